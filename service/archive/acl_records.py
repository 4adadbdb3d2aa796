"""The records of the ACL in ``state.bin``: tokens, policies and roles, as a Consul 1.8 writes and reads them."""

from collections.abc import Mapping, Sequence

from service.archive.errors import ArchiveInvalid, unreadable
from service.archive.msgpack import FALSE, NIL, TRUE, integer, mapping, sequence, text
from service.archive.records import ACL_POLICY, ACL_ROLE, ACL_TOKEN, Given, Record
from service.domain.acl.records import NodeIdentity, Policy, Role, ServiceIdentity, Token, made, secret_hash, type_of

TOKENS_INDEX, POLICIES_INDEX, ROLES_INDEX, BOOTSTRAP_INDEX = b"acl-tokens", b"acl-policies", b"acl-roles", b"acl-token-bootstrap"
NO_PLACE = "ACL tokens of a login or of the ACL before Consul 1.4"
"""What :func:`has_no_place` finds."""
Names = Mapping[str, str]
"""What policies or roles are called, by their ids."""

_NANOSECONDS = 10**9
_YEAR_1 = 62_135_596_800  # seconds from there, where Go begins to count, to 1970
_NO_TIME = b"\1" + bytes(12) + b"\xff\xff"
_TIME_BYTES = len(_NO_TIME)
_UTC = b"\0\0"


def pack_token(token: Token, policies: Names, roles: Names) -> bytes:
    """A token. Whoever packs it has its secret."""
    fields = [
        (b"AccessorID", text(token.accessor.encode())),
        (b"AuthMethod", text(b"")),
        (b"CreateIndex", integer(token.create_index)),
        (b"CreateTime", _pack_time(token.created_ns)),
        (b"Description", text(token.description.encode())),
        (b"ExpirationTTL", integer(0)),
        (b"ExpirationTime", _pack_time(token.expires_ns) if token.expires_ns else NIL),
        (b"Hash", text(token.hash)),
        (b"Local", TRUE if token.local else FALSE),
        (b"ModifyIndex", integer(token.modify_index)),
        (b"NodeIdentities", _pack_nodes(token.node_identities)),
        (b"Policies", _pack_links(token.policies, policies)),
        (b"Roles", _pack_links(token.roles, roles)),
        (b"Rules", text(b"")),
        (b"SecretID", text(token.secret.encode())),
        (b"ServiceIdentities", _pack_services(token.service_identities)),
        (b"Type", text(type_of(token).encode())),
    ]
    return bytes((ACL_TOKEN,)) + mapping(fields)


def pack_policy(policy: Policy) -> bytes:
    """A policy."""
    fields = [
        (b"CreateIndex", integer(policy.create_index)),
        (b"Datacenters", _pack_texts(policy.datacenters)),
        (b"Description", text(policy.description.encode())),
        (b"Hash", text(policy.hash)),
        (b"ID", text(policy.id.encode())),
        (b"ModifyIndex", integer(policy.modify_index)),
        (b"Name", text(policy.name.encode())),
        (b"Rules", text(policy.rules.encode())),
        (b"Syntax", integer(0)),
    ]
    return bytes((ACL_POLICY,)) + mapping(fields)


def pack_role(role: Role, policies: Names) -> bytes:
    """A role."""
    fields = [
        (b"CreateIndex", integer(role.create_index)),
        (b"Description", text(role.description.encode())),
        (b"Hash", text(role.hash)),
        (b"ID", text(role.id.encode())),
        (b"ModifyIndex", integer(role.modify_index)),
        (b"Name", text(role.name.encode())),
        (b"NodeIdentities", _pack_nodes(role.node_identities)),
        (b"Policies", _pack_links(role.policies, policies)),
        (b"ServiceIdentities", _pack_services(role.service_identities)),
    ]
    return bytes((ACL_ROLE,)) + mapping(fields)


def has_no_place(record: Record) -> bool:
    """Whether a token is of a kind that nothing here has: with rules of its own, made by a login, or without an accessor.

    Taken for a plain one it could do less or more than it may.
    """
    given = Given(record)
    return not given.data(b"AccessorID") or bool(given.data(b"Rules")) or bool(given.data(b"AuthMethod"))


def token_of(record: Record) -> Token:
    """The token of a record, with its secret. What is wrong is named without the secret."""
    given = Given(record)
    secret = _secret(given, record)
    token = Token(
        given.text(b"AccessorID"),
        secret_hash(secret),
        secret,
        given.text(b"Description"),
        _ids(given, b"Policies"),
        _ids(given, b"Roles"),
        _services(given),
        _nodes(given),
        given.flag(b"Local"),
        _time(given, b"CreateTime", record),
        0,
        _time(given, b"ExpirationTime", record),
        given.data(b"Hash"),
        given.number(b"CreateIndex"),
        given.number(b"ModifyIndex"),
    )
    return token if token.hash else made(token)


def policy_of(record: Record) -> Policy:
    """The policy of a record; that its rules can be used is left to the caller."""
    given = Given(record)
    if given.number(b"Syntax"):
        raise unreadable(f'the ACL policy at byte {record.position} of "state.bin" is written in the language before Consul 1.4')
    return Policy(
        given.text(b"ID"),
        given.text(b"Name"),
        given.text(b"Description"),
        given.text(b"Rules"),
        given.texts(b"Datacenters") or [],
        given.number(b"CreateIndex"),
        given.number(b"ModifyIndex"),
    )


def role_of(record: Record) -> Role:
    """The role of a record."""
    given = Given(record)
    return Role(
        given.text(b"ID"),
        given.text(b"Name"),
        given.text(b"Description"),
        _ids(given, b"Policies"),
        _services(given),
        _nodes(given),
        given.number(b"CreateIndex"),
        given.number(b"ModifyIndex"),
    )


def _pack_links(ids: Sequence[str], names: Names) -> bytes:
    """What does not exist any more has no name; a Consul passes over it, too."""
    links = [mapping([(b"ID", text(id_.encode())), (b"Name", text(names.get(id_, "").encode()))]) for id_ in ids]
    return sequence(links) if links else NIL


def _pack_services(identities: Sequence[ServiceIdentity]) -> bytes:
    found = [mapping([(b"Datacenters", _pack_texts(one.datacenters)), (b"ServiceName", text(one.service_name.encode()))]) for one in identities]
    return sequence(found) if found else NIL


def _pack_nodes(identities: Sequence[NodeIdentity]) -> bytes:
    found = [mapping([(b"Datacenter", text(one.datacenter.encode())), (b"NodeName", text(one.node_name.encode()))]) for one in identities]
    return sequence(found) if found else NIL


def _pack_texts(texts: Sequence[str]) -> bytes:
    return sequence([text(one.encode()) for one in texts]) if texts else NIL


def _pack_time(nanoseconds: int) -> bytes:
    """A time as Go's ``MarshalBinary`` gives it: version, seconds since the year 1, nanoseconds, minutes east of Greenwich."""
    if not nanoseconds:
        return text(_NO_TIME)
    seconds, rest = divmod(nanoseconds, _NANOSECONDS)
    return text(b"\1" + (seconds + _YEAR_1).to_bytes(8, "big") + rest.to_bytes(4, "big") + _UTC)


def _time(given: Given, name: bytes, record: Record) -> int:
    """A time in nanoseconds since 1970; 0 for none."""
    data = given.data(name)
    if not data or data[:-2] == _NO_TIME[:-2]:
        return 0
    seconds, rest = int.from_bytes(data[1:9], "big", signed=True) - _YEAR_1, int.from_bytes(data[9:13], "big")
    found = seconds * _NANOSECONDS + rest
    if len(data) != _TIME_BYTES or data[0] != 1 or rest >= _NANOSECONDS or not 0 < found < 1 << 63:
        raise _wrong(record, f"{name.decode()} is {data!r:.60}, no time")
    return found


def _secret(given: Given, record: Record) -> str:
    try:
        found = given.data(b"SecretID").decode()
    except UnicodeDecodeError:
        raise _wrong(record, "SecretID is no UTF-8") from None
    if not found:
        raise _wrong(record, "SecretID is empty")
    return found


def _ids(given: Given, name: bytes) -> list[str]:
    return [link.text(b"ID") for link in given.records(name) or ()]


def _services(given: Given) -> list[ServiceIdentity]:
    return [ServiceIdentity(one.text(b"ServiceName"), one.texts(b"Datacenters") or []) for one in given.records(b"ServiceIdentities") or ()]


def _nodes(given: Given) -> list[NodeIdentity]:
    return [NodeIdentity(one.text(b"NodeName"), one.text(b"Datacenter")) for one in given.records(b"NodeIdentities") or ()]


def _wrong(record: Record, problem: str) -> ArchiveInvalid:
    return unreadable(f'{problem}, in a record of ACL tokens at byte {record.position} of "state.bin"')
