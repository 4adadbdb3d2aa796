"""A worker with the ACL on, and whoever may do everything there."""

import json
from typing import Any

ON = {"acl_enabled": "true", "acl_default_policy": "deny"}


class Keeper:
    """A worker with the ACL on, and its first token."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker
        self.first = json.loads(worker.call("PUT", "/v1/acl/bootstrap").body)
        self.secret = self.first["SecretID"]

    def call(self, method: str, uri: str, body: Any = b"", token: str | None = None, **headers: str) -> Any:
        """A request with a token (default: the first one; empty: none)."""
        secret = self.secret if token is None else token
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.worker.call(method, uri, data, **({"X_Consul_Token": secret} if secret else {}), **headers)

    def get(self, uri: str, token: str | None = None) -> tuple[int, str]:
        """Status and body of a read."""
        reply = self.call("GET", uri, token=token)
        return reply.status, reply.body.decode()

    def put(self, uri: str, body: Any = b"", token: str | None = None) -> tuple[int, str]:
        """Status and body of a write."""
        reply = self.call("PUT", uri, body, token)
        return reply.status, reply.body.decode()

    def token(self, rules: str, name: str = "p") -> dict[str, Any]:
        """A new token with a policy of its own."""
        assert self.put("/v1/acl/policy", {"Name": name, "Rules": rules})[0] == 200
        return dict(json.loads(self.put("/v1/acl/token", {"Description": "t", "Policies": [{"Name": name}]})[1]))
