"""Tokens, policies and roles as they are kept, and the fingerprints that Consul's replication goes by."""

import re
from hashlib import blake2b, sha256

import msgspec

MANAGEMENT_ID = "00000000-0000-0000-0000-000000000001"
ANONYMOUS_ID = "00000000-0000-0000-0000-000000000002"
ANONYMOUS_SECRET = "anonymous"  # noqa: S105 - everybody has it
MANAGEMENT = "management"
RESERVED_PREFIX = "00000000-0000-0000-0000-0000000000"
NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
ROLE_NAME = re.compile(r"[A-Za-z0-9_-]{1,256}")
IDENTITY_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,254}[a-z0-9])?")
_ALL = ("agent", "event", "key", "node", "query", "service", "session")
_HASH_BYTES = 32
_NANOSECONDS = 1_000_000


class ServiceIdentity(msgspec.Struct, array_like=True, frozen=True):
    """Grants what a service of that name needs, in all datacenters or in some."""

    service_name: str
    datacenters: list[str] = []


class NodeIdentity(msgspec.Struct, array_like=True, frozen=True):
    """Grants what the agent of a node of that name needs."""

    node_name: str
    datacenter: str


class Policy(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """A set of rules under a name. Indexes are those of the log."""

    id: str
    name: str
    description: str
    rules: str
    datacenters: list[str] = []
    create_index: int = 0
    modify_index: int = 0

    @property
    def hash(self) -> bytes:
        """Of what can change."""
        return _digest(self.name, self.description, self.rules, *self.datacenters)


class Role(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """Policies (by their ids) and identities under a name."""

    id: str
    name: str
    description: str
    policies: list[str] = []
    service_identities: list[ServiceIdentity] = []
    node_identities: list[NodeIdentity] = []
    create_index: int = 0
    modify_index: int = 0

    @property
    def hash(self) -> bytes:
        """Of what can change."""
        return _digest(self.name, self.description, *self.policies, *_identities(self))


class Token(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """Who carries its secret may do what its policies and roles (by their ids) say.

    :param secret_hash: SHA-256 of the secret, by which it is found.
    :param secret: to be shown again; empty when it is not kept.
    :param created_ns: since 1970; 0 in a command: the time at which it is applied.
    :param lifetime_ns: in a command: how long after that it expires; 0 for what ``expires_ns`` says.
    :param expires_ns: since 1970; 0 for never.
    :param hash: of what can change, as of its last change: the end of a policy does not change it.
    """

    accessor: str
    secret_hash: bytes
    secret: str
    description: str = ""
    policies: list[str] = []
    roles: list[str] = []
    service_identities: list[ServiceIdentity] = []
    node_identities: list[NodeIdentity] = []
    local: bool = False
    created_ns: int = 0
    lifetime_ns: int = 0
    expires_ns: int = 0
    hash: bytes = b""
    create_index: int = 0
    modify_index: int = 0


Record = Token | Policy | Role
TOKENS, POLICIES, ROLES = "acl-tokens", "acl-policies", "acl-roles"
"""The three kinds of records, as Consul calls their tables."""
_KINDS: dict[type[Record], str] = {Token: TOKENS, Policy: POLICIES, Role: ROLES}


def kind_of(record: Record) -> str:
    """Which of the three it is."""
    return _KINDS[type(record)]


def row_id(kind: str, id_: str) -> str:
    """What a record is called among those of all kinds."""
    return f"{kind}/{id_}"


def row_id_of(record: Record) -> str:
    """As :func:`row_id`."""
    return row_id(kind_of(record), record.accessor if isinstance(record, Token) else record.id)


def token_hash(token: Token) -> bytes:
    """Of what can change of a token."""
    return _digest(*_hashed(token))


def type_of(token: Token) -> str:
    """The type of Consul's first ACL: a token has it that was made to manage everything and was never changed."""
    return MANAGEMENT if token.hash == _digest(*_hashed(token, MANAGEMENT)) else ""


def secret_hash(secret: str) -> bytes:
    """By which a token is found. A secret is drawn at random from 2^122, so no salt and no slow hash is needed."""
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()


def management_policy() -> Policy:
    """The builtin policy that allows everything; its text is what Consul's clients compare with."""
    named = {f"{resource}_prefix": f'{resource}_prefix "" {{\n\tpolicy = "write"\n}}' for resource in _ALL}
    named["service_prefix"] = 'service_prefix "" {\n\tpolicy = "write"\n\tintentions = "write"\n}'
    plain = {resource: f'{resource} = "write"' for resource in ("acl", "keyring", "operator")}
    rules = "".join("\n" + text for _, text in sorted((named | plain).items()))
    return Policy(MANAGEMENT_ID, "global-management", "Builtin Policy that grants unlimited access", rules)


def anonymous_token() -> Token:
    """That of everybody who has none."""
    return made(Token(ANONYMOUS_ID, secret_hash(ANONYMOUS_SECRET), ANONYMOUS_SECRET, "Anonymous Token"))


def management_token(accessor: str, secret: str, description: str, *, keep: bool) -> Token:
    """One that may do everything.

    :param keep: whether its secret can be shown again.
    """
    token = Token(accessor, secret_hash(secret), secret if keep else "", description, [MANAGEMENT_ID])
    # Consul gives it the type of its first ACL, too, which only the hash shows.
    return msgspec.structs.replace(token, hash=_digest(*_hashed(token, MANAGEMENT)))


def complete_times(token: Token, stamp_ms: int) -> Token:
    """A token with its times, which a command may leave to the leader's clock."""
    created_ns = token.created_ns or stamp_ms * _NANOSECONDS
    expires_ns = created_ns + token.lifetime_ns if token.lifetime_ns else token.expires_ns
    return msgspec.structs.replace(token, created_ns=created_ns, lifetime_ns=0, expires_ns=expires_ns)


def made(token: Token) -> Token:
    """The token with its hash."""
    return msgspec.structs.replace(token, hash=token_hash(token))


def _hashed(token: Token, *types: str) -> list[str]:
    scope = "local" if token.local else "global"
    return [token.description, *types, scope, *token.policies, *token.roles, *_identities(token)]


def _identities(holder: Token | Role) -> list[str]:
    services = [text for one in holder.service_identities for text in (one.service_name, *one.datacenters)]
    return services + [text for one in holder.node_identities for text in (one.node_name, one.datacenter)]


def _digest(*texts: str) -> bytes:
    total = blake2b(digest_size=_HASH_BYTES)
    for text in texts:
        total.update(text.encode("utf-8", "surrogateescape"))
    return total.digest()
