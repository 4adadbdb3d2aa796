"""Tokens, policies and roles in the state: changes are all or nothing, judged by the index that was seen, replicated, and copied by snapshots."""

from pathlib import Path

import msgspec

from service.domain.acl.records import ANONYMOUS_ID, MANAGEMENT_ID, POLICIES, Policy, Token, anonymous_token, management_policy, row_id, secret_hash
from service.domain.commands import AclChange, Command, ReapTokens, encode, stamp
from service.domain.results import AclResult, decode_acl
from service.store import acl_rows
from service.store.machine import KvMachine
from service.store.reader import Reader

STAMP_MS = 1_000
TOKEN = Token("a" * 36, secret_hash("s"), "s", policies=[MANAGEMENT_ID])


def apply(machine: KvMachine, command: Command, stamp_ms: int = STAMP_MS) -> bytes:
    """One command as an entry of its own."""
    index, _ = machine.applied()
    return machine.apply([(index + 1, 1, stamp(encode(command), stamp_ms))])[0]


def acl(data_dir: Path) -> acl_rows.Everything:
    """The whole ACL as a worker reads it."""
    reader = Reader(data_dir)
    found, _ = reader.tables(acl_rows.everything)
    reader.close()
    return found


def test_change_is_applied_once(tmp_path: Path) -> None:
    """A change that was judged by an older ACL does nothing; one judged by the present ACL is whole, with the leader's time and the entry's index."""
    machine = KvMachine(tmp_path)
    assert decode_acl(apply(machine, AclChange(0, [management_policy(), anonymous_token(), TOKEN], bootstraps=True))) == AclResult(True, 1, STAMP_MS)
    before = machine.digest().sha256
    assert decode_acl(apply(machine, AclChange(0, [msgspec.structs.replace(TOKEN, description="lost")]))).ok is False
    found = acl(tmp_path)
    assert found.tokens[TOKEN.accessor] == msgspec.structs.replace(TOKEN, created_ns=STAMP_MS * 10**6, create_index=1, modify_index=1)
    assert set(found.tokens) == {TOKEN.accessor, ANONYMOUS_ID}
    assert found.indexes == dict.fromkeys(("acl", "acl-bootstrap", "acl-policies", "acl-tokens"), 1)
    assert machine.take_changes().tables == [acl_rows.TABLE]
    assert decode_acl(apply(machine, AclChange(1, deletes=[row_id(POLICIES, MANAGEMENT_ID)]))).ok
    assert not acl(tmp_path).policies
    assert acl(tmp_path).indexes["acl-tokens"] == 1
    assert machine.digest().sha256 != before
    machine.close()


def test_ids_of_different_kinds_do_not_meet(tmp_path: Path) -> None:
    """A client may choose a token's accessor: that of a policy's id does not touch the policy."""
    machine = KvMachine(tmp_path)
    policy = Policy(TOKEN.accessor, "p", "", "")
    apply(machine, AclChange(0, [policy]))
    apply(machine, AclChange(1, [TOKEN]))
    found = acl(tmp_path)
    assert list(found.policies) == list(found.tokens) == [TOKEN.accessor]
    machine.close()


def test_expired_tokens_are_forgotten_by_the_leaders_time(tmp_path: Path) -> None:
    """A lifetime counts from the entry's time; the entry that reaps decides by its own time alone."""
    machine = KvMachine(tmp_path)
    apply(machine, AclChange(0, [msgspec.structs.replace(TOKEN, lifetime_ns=500 * 10**6)]))
    assert acl(tmp_path).tokens[TOKEN.accessor].expires_ns == 1_500 * 10**6
    apply(machine, ReapTokens(), 1_499)
    assert acl(tmp_path).last_index == 1
    apply(machine, ReapTokens(), 1_500)
    assert not acl(tmp_path).tokens
    assert acl(tmp_path).last_index == 3
    machine.close()


def test_snapshot_carries_the_acl(tmp_path: Path) -> None:
    """A node that is restored from a snapshot has the same tokens and the same digest."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    source, target = KvMachine(tmp_path / "a"), KvMachine(tmp_path / "b")
    apply(source, AclChange(0, [management_policy(), TOKEN]))
    capture, pieces = source.capture(), bytearray()
    capture.write(pieces.extend)

    def read(size: int) -> bytes:
        piece = bytes(pieces[:size])
        del pieces[:size]
        return piece

    target.restore(capture.index, capture.term, read)
    capture.close()
    assert acl(tmp_path / "a") == acl(tmp_path / "b")
    assert source.digest() == target.digest()
    source.close()
    target.close()
