"""The records of the ACL of a real Consul 1.8.7, and the same ones written by us."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from service.archive import acl_records, msgpack, records
from service.archive.container import Reader
from service.archive.errors import ArchiveInvalid
from service.archive.msgpack import Unpacker
from service.archive.records import ACL_POLICY, ACL_ROLE, ACL_TOKEN, Record
from service.domain.acl.records import ANONYMOUS_ID, MANAGEMENT_ID, NodeIdentity, Policy, ServiceIdentity, Token, made, management_policy, secret_hash

if TYPE_CHECKING:
    from collections.abc import Callable

REAL = Path(__file__).with_name("consul-1.8.7-acl.tgz")
"""Saved from a fresh `consul agent -dev` with ACLs: tokens of the bootstrap, with everything, expiring, empty, with a link to a policy that was
deleted since, of the ACL before Consul 1.4; a policy for one datacenter; a role with identities, and one with a link to the deleted policy.
"""


def split(data: bytes) -> list[tuple[Record, bytes]]:
    """Each record with the bytes that it is made of."""
    listed = list(records.read(Unpacker(io.BytesIO(data).read))[1])
    ends = [record.position for record in listed[1:]] + [len(data)]
    return [(record, data[record.position : end]) for record, end in zip(listed, ends, strict=True)]


@pytest.fixture(scope="module")
def found() -> list[tuple[Record, bytes]]:
    """The records of the real archive."""
    state = bytearray()

    def take(read: Callable[[int], bytes]) -> None:
        while data := read(1 << 16):
            state.extend(data)

    with REAL.open("rb") as archive:
        Reader(archive.read).read_all(take)
    return split(bytes(state))


def tokens(found: list[tuple[Record, bytes]]) -> dict[str, Token]:
    """Those that have a place here, by their descriptions."""
    listed = [record for record, _ in found if record.number == ACL_TOKEN and not acl_records.has_no_place(record)]
    return {token.description: token for token in map(acl_records.token_of, listed)}


def policies(found: list[tuple[Record, bytes]]) -> dict[str, Policy]:
    """By their names."""
    return {policy.name: policy for policy in (acl_records.policy_of(record) for record, _ in found if record.number == ACL_POLICY)}


def test_what_it_holds(found: list[tuple[Record, bytes]]) -> None:
    """Tokens, policies and roles mean what they did in that Consul; a token with rules of its own has no place."""
    assert Counter(record.number for record, _ in found if record.number in records.RESTORED_ACL) == {ACL_TOKEN: 7, ACL_POLICY: 3, ACL_ROLE: 2}
    by_name, named = policies(found), tokens(found)
    assert msgspec.structs.replace(by_name["global-management"], create_index=0, modify_index=0) == management_policy()
    assert (by_name["app"].datacenters, by_name["app"].create_index) == (["dc1"], 10)
    assert list(named) == ["t1", "", "dangling", "exp", "Bootstrap Token (Global Management)", "Anonymous Token"]
    full = named["t1"]
    assert full.policies == [by_name["app"].id, by_name["ro"].id]
    assert (full.service_identities, full.node_identities, full.local) == ([ServiceIdentity("web")], [NodeIdentity("n", "dc1")], False)
    assert full.secret_hash == secret_hash("0d3279a3-563d-3c25-b17a-1503d341e7a5")
    assert (named["exp"].expires_ns - named["exp"].created_ns, named["exp"].local) == (3600 * 10**9, True)
    assert 1_795_000_000 < named["exp"].created_ns / 10**9 < 1_796_000_000
    assert (named["Bootstrap Token (Global Management)"].policies, named["Anonymous Token"].accessor) == ([MANAGEMENT_ID], ANONYMOUS_ID)
    roles = {role.name: role for role in (acl_records.role_of(record) for record, _ in found if record.number == ACL_ROLE)}
    assert (full.roles, roles["r"].policies) == ([roles["r"].id], [by_name["ro"].id])
    assert roles["r"].service_identities == [ServiceIdentity("db", ["dc1"]), ServiceIdentity("web")]


def test_written_by_us_they_are_the_same_bytes(found: list[tuple[Record, bytes]]) -> None:
    """Byte for byte what a Consul writes, the hash and the type of the bootstrap token too. Only the name of a policy that is gone is lost."""
    names = {policy.id: policy.name for policy in policies(found).values()}
    roles = {role.id: role.name for role in (acl_records.role_of(record) for record, _ in found if record.number == ACL_ROLE)}
    compared = 0
    for record, original in found:
        if record.number == ACL_TOKEN and not acl_records.has_no_place(record):
            written = acl_records.pack_token(acl_records.token_of(record), names, roles)
        elif record.number == ACL_POLICY:
            written = acl_records.pack_policy(acl_records.policy_of(record))
        elif record.number == ACL_ROLE:
            written = acl_records.pack_role(acl_records.role_of(record), names)
        else:
            continue
        compared += 1
        assert written == original.replace(b"\xa4Name\xa4gone", b"\xa4Name\xa0")
    assert compared == 11


def test_times() -> None:
    """A time that is not there, also Go's, counts as none; any other comes back to the nanosecond."""
    for created in (0, 1, 1_700_000_000_123_456_789):
        token = made(Token("a", secret_hash("s"), "s", created_ns=created, expires_ns=created))
        ((record, _),) = split(records.pack_header(1) + acl_records.pack_token(token, {}, {}))
        assert acl_records.token_of(record) == token


def record(number: int, *fields: tuple[bytes, bytes]) -> Record:
    """A record of such fields."""
    ((found, _),) = split(records.pack_header(1) + bytes((number,)) + msgpack.mapping(list(fields)))
    return found


SECRET = (b"SecretID", msgpack.text(b"hidden-secret"))


@pytest.mark.parametrize("field", [(b"Rules", msgpack.text(b"x")), (b"AuthMethod", msgpack.text(b"k8s")), (b"AccessorID", msgpack.NIL)])
def test_without_a_place(field: tuple[bytes, bytes]) -> None:
    """Rules of its own, a login, no accessor: nothing here has such a token."""
    assert acl_records.has_no_place(record(ACL_TOKEN, (b"AccessorID", msgpack.text(b"a")), field))
    assert not acl_records.has_no_place(record(ACL_TOKEN, (b"AccessorID", msgpack.text(b"a"))))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ([], "SecretID is empty, in a record of ACL tokens at byte 12"),
        ([(b"SecretID", msgpack.text(b"\xffhidden-secret"))], "SecretID is no UTF-8"),
        ([SECRET, (b"CreateTime", msgpack.text(b"\1" + bytes(13)))], "CreateTime is .*, no time"),
        ([SECRET, (b"ExpirationTime", msgpack.text(b"\2" + bytes([0, 0, 0, 15] + [0] * 10)))], "ExpirationTime is .*, no time"),
        ([SECRET, (b"ExpirationTime", msgpack.text(b"\1" + b"\x7f" * 14))], "ExpirationTime is .*, no time"),
        ([SECRET, (b"ExpirationTime", msgpack.integer(7))], "ExpirationTime is 7, no text"),
        ([SECRET, (b"Policies", msgpack.text(b"x"))], "Policies is b'x', no list"),
        ([SECRET, (b"Hash", msgpack.integer(1))], "Hash is 1, no text"),
    ],
)
def test_refused_tokens(fields: list[tuple[bytes, bytes]], text: str) -> None:
    """What is wrong is named, and never the secret."""
    with pytest.raises(ArchiveInvalid, match=text) as refused:
        acl_records.token_of(record(ACL_TOKEN, *fields))
    assert "hidden-secret" not in str(refused.value)


def test_refused_policies() -> None:
    """Rules of the language before Consul 1.4 would be read as others."""
    with pytest.raises(ArchiveInvalid, match=r"language before Consul 1\.4"):
        acl_records.policy_of(record(ACL_POLICY, (b"Syntax", msgpack.integer(1))))


def test_the_header_tells_what_was_left_out() -> None:
    """In a field that a Consul passes over; without it there is nothing to tell."""
    for header in (records.Header(7), records.Header(7, "3 ACL tokens")):
        assert records.read(Unpacker(io.BytesIO(records.pack_header(*header)).read))[0] == header
    assert records.pack_header(7) == msgpack.mapping([(b"LastIndex", msgpack.integer(7))])
