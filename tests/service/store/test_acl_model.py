"""The ACL's tables against a model that was written apart from them, however a log is cut, over snapshots and restored archives."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain import commands, results
from service.domain.acl.records import POLICIES, ROLES, TOKENS, NodeIdentity, Policy, Record, Role, ServiceIdentity, Token, row_id, secret_hash
from service.domain.commands import AclChange, Command, KvPut, ReapTokens, RestoreBegin, RestoreCommit, RestorePart
from service.store import acl_rows, restored
from service.store.machine import KvMachine
from service.store.reader import Reader

MEMORY = Path("/dev/shm")
"""Hundreds of small files are made; where there is a file system in memory, their syncs cost nothing."""

IDS = ["11111111-aaaa-4aaa-8aaa-111111111111", "22222222-bbbb-4bbb-8bbb-222222222222", "33333333-cccc-4ccc-8ccc-333333333333"]
MILLISECOND_NS = 1_000_000


class Change(NamedTuple):
    """A change that is wanted; the index that it was judged by is filled in when its turn comes.

    :ivar late: another change came in between.
    """

    puts: list[Record]
    deletes: list[str]
    bootstraps: bool
    late: bool


class Archive(NamedTuple):
    """An archive that is restored: three entries."""

    records: list[Record]
    indexes: dict[str, int]


def name_of(record: Record) -> str:
    """Of each kind there is one record with such a name."""
    return record.secret_hash.hex() if isinstance(record, Token) else record.name


def kind_of(record: Record) -> str:
    """Its table."""
    return TOKENS if isinstance(record, Token) else POLICIES if isinstance(record, Policy) else ROLES


class Model:
    """Tokens, policies and roles on one dictionary, by kind and id."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.indexes: dict[str, int] = {}

    @property
    def index(self) -> int:
        """Of the last change of anything."""
        return self.indexes.get("acl", 0)

    def run(self, index: int, stamp_ms: int, command: AclChange | ReapTokens) -> bool:
        """Whether it was carried out."""
        if isinstance(command, ReapTokens):
            ended = [id_ for id_, one in self.records.items() if isinstance(one, Token) and 0 < one.expires_ns <= stamp_ms * MILLISECOND_NS]
            self._note(index, {self._delete(id_) for id_ in ended})
            return True
        if command.seen_index != self.index:
            return False
        moved = {"acl-bootstrap"} if command.bootstraps else set()
        for record in command.puts:
            moved.add(self._put(index, stamp_ms, record))
        for id_ in command.deletes:
            moved.add(self._delete(id_))
        self._note(index, moved)
        return True

    def restore(self, index: int, archive: Archive) -> None:
        """Nothing stays of what was there; an archive without records changes nothing."""
        if not archive.records:
            return
        self.records, self.indexes = {}, {name: min(at, index) for name, at in archive.indexes.items()} | {"acl": index}
        for record in archive.records:
            self._keep(record, min(record.create_index, index), min(record.modify_index, index))

    def _put(self, index: int, stamp_ms: int, record: Record) -> str:
        id_ = row_id(kind_of(record), record.accessor if isinstance(record, Token) else record.id)
        if isinstance(record, Token):
            created = record.created_ns or stamp_ms * MILLISECOND_NS
            expires = created + record.lifetime_ns if record.lifetime_ns else record.expires_ns
            record = msgspec.structs.replace(record, created_ns=created, lifetime_ns=0, expires_ns=expires)
        return self._keep(record, self.records[id_].create_index if id_ in self.records else index, index)

    def _keep(self, record: Record, created: int, modified: int) -> str:
        kind = kind_of(record)
        id_ = row_id(kind, record.accessor if isinstance(record, Token) else record.id)
        namesakes = [other for other, one in self.records.items() if kind_of(one) == kind and name_of(one) == name_of(record)]
        for other in namesakes:
            del self.records[other]
        self.records[id_] = msgspec.structs.replace(record, create_index=created, modify_index=modified)
        return kind

    def _delete(self, id_: str) -> str:
        record = self.records.pop(id_, None)
        return kind_of(record) if record else ""

    def _note(self, index: int, moved: set[str]) -> None:
        if moved := moved - {""}:
            self.indexes |= dict.fromkeys(moved | {"acl"}, index)


ids = st.sampled_from(IDS)
links = st.lists(ids, max_size=2)
services = st.lists(st.builds(ServiceIdentity, st.just("web"), st.sampled_from([[], ["dc1"]])), max_size=1)
nodes = st.lists(st.just(NodeIdentity("n1", "dc1")), max_size=1)
tokens = st.builds(
    lambda id_, secret, links_, roles, local, lifetime, expires: Token(
        id_, secret_hash(secret), secret, "", links_, roles, local=local, lifetime_ns=lifetime * MILLISECOND_NS, expires_ns=expires * MILLISECOND_NS
    ),
    ids,
    st.sampled_from(["s1", "s2", "s3"]),
    links,
    links,
    st.booleans(),
    st.sampled_from([0, 0, 7, 49]),
    st.sampled_from([0, 0, 1_021, 1_070]),
)
policies = st.builds(Policy, ids, st.sampled_from(["p", "q", "r"]), st.just(""), st.sampled_from(["", 'key "a" { policy = "read" }']))
roles = st.builds(Role, ids, st.sampled_from(["p", "q", "r"]), st.just(""), links, services, nodes)
records = st.one_of(tokens, tokens, policies, roles)
doomed = st.builds(row_id, st.sampled_from([TOKENS, POLICIES, ROLES]), ids)
rarely = st.sampled_from([False] * 7 + [True])
changes = st.builds(Change, st.lists(records, max_size=3), st.lists(doomed, max_size=2), rarely, rarely)
archived = st.builds(lambda record, at: msgspec.structs.replace(record, create_index=at, modify_index=2 * at), records, st.sampled_from([1, 3, 900]))
archives = st.builds(Archive, st.lists(archived, max_size=4), st.dictionaries(st.sampled_from(["acl-tokens", "acl-bootstrap"]), st.just(5)))
puts = st.builds(KvPut, st.just(b"k"), st.sampled_from([b"x", b"y"]))
logs = st.lists(st.one_of(changes, changes, changes, changes, st.just(ReapTokens()), puts, archives), min_size=5, max_size=25)


def stamp_of(index: int) -> int:
    """The leader's time of an entry."""
    return 1_000 + 7 * index


def played(log: list[Any]) -> tuple[list[Command], list[bool], Model]:
    """The entries that a log comes to, what becomes of each, and the model at its end."""
    model, entries, expected = Model(), list[Command](), list[bool]()
    for step in log:
        index = len(entries) + 1
        if isinstance(step, Archive):
            kept = [(restored.ACL, restored.encode(record)) for record in step.records]
            kept += [(restored.ACL_INDEXES, restored.encode(step.indexes))] if kept else []
            name = f"restore-{index}"
            entries += [RestoreBegin(name), RestorePart(name, 0, [], kept), RestoreCommit(name, 1, 0, 1)]
            expected += [True] * 3
            model.restore(index + 2, step)
        elif isinstance(step, KvPut):
            entries.append(step)
            expected.append(True)
        else:
            wanted = AclChange(model.index + step.late, step.puts, step.deletes, step.bootstraps) if isinstance(step, Change) else step
            entries.append(wanted)
            expected.append(model.run(index, stamp_of(index), wanted))
    return entries, expected, model


def apply(machine: KvMachine, entries: list[Command], cuts: set[int]) -> list[bool]:
    """Apply what the machine has not applied yet, in the batches that the cuts make."""
    start = machine.applied_index
    ends = [*sorted(cut for cut in cuts if start < cut < len(entries)), len(entries)]
    found: list[bool] = []
    for end in ends:
        batch: list[Any] = [
            (index, 1, commands.stamp(commands.encode(command), stamp_of(index))) for index, command in enumerate(entries[start:end], start + 1)
        ]
        for command, answer in zip(entries[start:end], machine.apply(batch), strict=True):
            found.append(results.decode_acl(answer).ok if isinstance(command, AclChange) else results.decode(answer).ok)
        start = end
    return found


def check(directory: Path, model: Model) -> None:
    """What a worker reads is what the model has."""
    reader = Reader(directory)
    found = reader.tables(acl_rows.everything)[0]
    by_id: dict[str, Record] = {
        row_id(kind, id_): one for kind, some in zip((TOKENS, POLICIES, ROLES), found, strict=False) for id_, one in some.items()
    }
    assert by_id == model.records
    assert found.indexes == model.indexes
    for record in model.records.values():
        if isinstance(record, Token):
            assert reader.tables(lambda connection, wanted=record: acl_rows.find_token(connection, wanted.secret_hash))[0] == record
    reader.close()


@settings(max_examples=50, deadline=None, derandomize=True, print_blob=True)
@given(log=logs, cuts=st.sets(st.integers(1, 30)), half=st.integers(0, 30))
def test_equals_the_model(log: list[Any], cuts: set[int], half: int) -> None:
    """Results, records and indexes are the model's. A log in one batch, cut anyhow, one by one with a restart, or continued from a snapshot
    gives the same digest.
    """
    entries, expected, model = played(log)
    half = min(half, len(entries))
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory:
        at = {name: Path(directory) / name for name in ("whole", "cut", "single", "copy")}
        for path in at.values():
            path.mkdir()
        whole, cut, copy = KvMachine(at["whole"]), KvMachine(at["cut"]), KvMachine(at["copy"])
        assert apply(whole, entries, set()) == expected
        assert apply(cut, entries, cuts) == expected
        single = KvMachine(at["single"])
        outcome = apply(single, entries[:half], set(range(half)))
        if half:
            transfer(single, copy)
        single.close()
        single = KvMachine(at["single"])
        assert outcome + apply(single, entries, set(range(len(entries)))) == expected
        assert outcome + apply(copy, entries, cuts) == expected
        machines = [whole, cut, single, copy]
        assert len({machine.digest() for machine in machines}) == 1
        for machine, path in zip(machines, at.values(), strict=True):
            check(path, model)
            machine.close()


def transfer(source: KvMachine, target: KvMachine) -> None:
    """Bring one up to date by a snapshot of the other."""
    pieces: list[bytes] = []
    capture = source.capture()
    capture.write(pieces.append)
    stream = iter(pieces)
    target.restore(capture.index, capture.term, lambda _: next(stream, b""))
    capture.close()
