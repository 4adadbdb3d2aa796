"""Archives with tokens, policies and roles, from a real Consul to kvorum and back, by Consul's own command line."""

import io
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from cluster import Cluster, wait_until
from consul_server import PATIENCE_SECONDS, ConsulServer, find_consul

from service.archive import records
from service.archive.container import Writer
from service.domain.entries import Row

PROGRAM = find_consul()
pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not PROGRAM, reason="no consul program on PATH, in CONSUL_BIN or in .consul (make consul)"),
]


class Api:
    """The HTTP API of either, with a token that manages."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token

    def ask(self, method: str, path: str, body: Any = None, token: str | None = None) -> requests.Response:
        """One request."""
        headers = {"X-Consul-Token": self.token if token is None else token}
        return requests.request(method, f"{self.url}/v1/{path}", headers=headers, timeout=60, **({"json": body} if body is not None else {}))

    def make(self, path: str, body: Any) -> Any:
        """Make something."""
        answer = self.ask("PUT", path, body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def may(self, token: str) -> dict[str, int]:
        """The statuses of a read and a write of some keys with a token."""
        found = {f"PUT {key}": self.ask("PUT", f"kv/{key}", "v", token).status_code for key in ("app/a", "app/no/a", "other")}
        return found | {f"GET {key}": self.ask("GET", f"kv/{key}", None, token).status_code for key in ("app/a", "app/no/a", "other")}

    def everything(self) -> dict[str, Any]:
        """All tokens with their secrets, policies with their rules, and roles, without the indexes, which move on the way."""
        found = {}
        for kind, id_ in (("token", "AccessorID"), ("policy", "ID"), ("role", "ID")):
            listed = self.ask("GET", f"acl/{'policies' if kind == 'policy' else kind + 's'}").json()
            for one in listed:
                record = self.ask("GET", f"acl/{kind}/{one[id_]}").json()
                found[f"{kind} {one[id_]}"] = {name: value for name, value in record.items() if name not in ("CreateIndex", "ModifyIndex")}
        return found


@pytest.fixture
def consul(tmp_path: Path) -> Iterator[ConsulServer]:
    """A Consul with ACLs."""
    made = ConsulServer(PROGRAM, tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def kvorum(tmp_path: Path) -> Iterator[Api]:
    """A node of kvorum with ACLs."""
    settings = {"KVORUM_ACL_ENABLED": "true", "KVORUM_ACL_DEFAULT_POLICY": "deny", "KVORUM_DATACENTER": "dc1"}
    made = Cluster(tmp_path, 1, settings)
    try:
        made.start_all()
        api = Api(made.nodes[0].url, "")
        api.token = wait_until(lambda: api.ask("PUT", "acl/bootstrap").json()["SecretID"], "kvorum was bootstrapped", PATIENCE_SECONDS)
        yield api
    finally:
        made.stop_all()


def fill(api: Api, name: str) -> list[str]:
    """Policies, a role and tokens of both.

    :returns: the secrets: of a policy, of a role, of one that manages, of one with neither.
    """
    rules = 'key_prefix "app/" { policy = "write" } key_prefix "app/no/" { policy = "deny" } key "other" { policy = "read" }'
    api.make("acl/policy", {"Name": name, "Description": "ü", "Rules": rules, "Datacenters": ["dc1"]})
    identities = {"ServiceIdentities": [{"ServiceName": "web", "Datacenters": ["dc1"]}], "NodeIdentities": [{"NodeName": "n", "Datacenter": "dc1"}]}
    api.make("acl/role", {"Name": name, "Policies": [{"Name": name}], **identities})
    gone = api.make("acl/policy", {"Name": f"{name}-gone"})["ID"]
    bodies: list[dict[str, Any]] = [
        {"Description": name, "Policies": [{"Name": name}, {"Name": f"{name}-gone"}], "ServiceIdentities": [{"ServiceName": "db"}]},
        {"Roles": [{"Name": name}], "Local": True, "ExpirationTTL": "23h"},
        {"Policies": [{"Name": "global-management"}]},
        {},
    ]
    secrets = [str(api.make("acl/token", body)["SecretID"]) for body in bodies]
    assert api.ask("DELETE", f"acl/policy/{gone}").status_code == 200
    api.ask("PUT", "kv/other", "v")
    return secrets


MAY = {"PUT app/a": 200, "PUT app/no/a": 403, "PUT other": 403, "GET app/a": 200, "GET app/no/a": 403, "GET other": 200}
MAY_NOTHING = dict.fromkeys(MAY, 403)
UNKNOWN = dict.fromkeys(MAY, 403)


def check(target: Api, source: dict[str, Any], secrets: list[str], before: str) -> None:
    """The target has the ACL of the source, whole, and its own of before no more."""
    assert target.everything() == source
    of_policy, of_role, manages, bare = secrets
    assert target.may(of_policy) == MAY
    assert target.may(of_role) == MAY
    assert target.may(bare) == MAY_NOTHING
    assert target.ask("GET", "acl/tokens", token=manages).status_code == 200
    refused = target.ask("GET", "acl/token/self", token=before)
    assert (refused.status_code, refused.text) == (403, "ACL not found")
    assert target.ask("PUT", "acl/bootstrap").status_code == 403
    # It goes on from there.
    assert target.make("acl/policy", {"Name": f"new-{uuid.uuid4()}"})["ModifyIndex"] > 0


def test_there_and_back(consul: ConsulServer, kvorum: Api, tmp_path: Path) -> None:
    """`consul snapshot` takes a Consul's archive into kvorum: its tokens, policies and roles are there and do what they did. Then kvorum's, with more
    of them, goes into that Consul, which takes all of it.
    """
    real = Api(consul.url, consul.token)
    archive, back = str(tmp_path / "consul.tgz"), str(tmp_path / "kvorum.tgz")
    secrets, before = fill(real, "from-consul"), kvorum.token
    source = real.everything()
    consul.command("snapshot", "save", archive, token=real.token)
    consul.command("snapshot", "restore", archive, token=before, url=kvorum.url)
    kvorum.token = real.token
    check(kvorum, source, secrets, before)

    more = fill(kvorum, "from-kvorum")
    since = real.make("acl/token", {})["SecretID"]
    source = kvorum.everything()
    consul.command("snapshot", "save", back, token=kvorum.token, url=kvorum.url)
    consul.command("snapshot", "inspect", back, token=kvorum.token)
    consul.command("snapshot", "restore", back, token=real.token)
    for some in (secrets, more):
        check(real, source, some, since)
        source = real.everything()

    # One that was saved where secrets are not kept tells so in a field that a Consul passes over.
    without = tmp_path / "without.tgz"
    writer = Writer(io.BytesIO())
    writer.write(records.pack_header(9, "3 ACL tokens") + records.pack_key(Row(b"a", b"1", 0, 0, None, 4, 4)))
    without.write_bytes(b"".join(writer.finish(9, 2, 0)))
    assert consul.command("snapshot", "restore", str(without), token=real.token) == "Restored snapshot\n"
