"""The state machine against a model that was written apart from it, with whatever batches a log may be cut into."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain import commands, results
from service.domain.commands import Command, KvConditional, KvDelete, KvDeleteTree, KvPut, ReapTombstones, Txn, TxnOperation
from service.domain.conditions import Condition
from service.store.machine import KvMachine
from service.store.reader import Reader

MEMORY = Path("/dev/shm")
"""Hundreds of small files are made; where there is a file system in memory, their syncs cost nothing."""

KEYS = [b"", b"a", b"a/", b"a/b", b"ab", b"\xff", b"\x00"]


class Entry(NamedTuple):
    """What a model keeps for a key."""

    value: bytes
    flags: int
    created: int
    modified: int


class Model:
    """Consul's rules on dictionaries."""

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.graves: dict[bytes, int] = {}
        self.table_index = 0

    def run(self, index: int, command: Command) -> tuple[bool, set[bytes], set[bytes]]:
        """Whether it was ok, which keys it changed one by one, which prefix it deleted."""
        if isinstance(command, ReapTombstones):
            self.graves = {key: at for key, at in self.graves.items() if at > command.up_to}
            return True, set(), set()
        if isinstance(command, KvDeleteTree):
            doomed = [key for key in self.entries if key.startswith(command.prefix)]
            for key in doomed:
                self._bury(index, key)
            return True, set(), {command.prefix} if doomed else set()
        if isinstance(command, Txn):
            return self._txn(index, command)
        if isinstance(command, KvConditional):
            condition = command.condition
            if (condition.one_of is not None and self.version(command.key) not in condition.one_of) or self.version(command.key) in condition.none_of:
                return False, set(), set()
            command = command.command
        return self._delete(index, command) if isinstance(command, KvDelete) else self._put(index, command)

    def version(self, key: bytes) -> int:
        """The key's ModifyIndex, 0 when there is none."""
        return self.entries[key].modified if key in self.entries else 0

    def _delete(self, index: int, command: KvDelete) -> tuple[bool, set[bytes], set[bytes]]:
        old = self.entries.get(command.key)
        if old is None:
            return True, set(), set()
        if command.cas not in {None, old.modified}:
            return False, set(), set()
        self._bury(index, command.key)
        return True, {command.key}, set()

    def _put(self, index: int, command: KvPut) -> tuple[bool, set[bytes], set[bytes]]:
        old = self.entries.get(command.key)
        if command.cas is not None and (old.modified if old else 0) != command.cas:
            return False, set(), set()
        if old is not None and (old.value, old.flags) == (command.value, command.flags):
            return True, set(), set()
        self.entries[command.key] = Entry(command.value, command.flags, old.created if old else index, index)
        self.table_index = index
        return True, {command.key}, set()

    def _txn(self, index: int, command: Txn) -> tuple[bool, set[bytes], set[bytes]]:
        before = dict(self.entries), dict(self.graves), self.table_index
        ok, keys, prefixes = all(operation.key or operation.verb == "delete-tree" for operation in command.operations), set(), set()
        for operation in command.operations:
            done, changed, deleted = self._operation(index, operation) if ok else (False, set(), set())
            ok, keys, prefixes = ok and done, keys | changed, prefixes | deleted
        if ok:
            return True, keys, prefixes
        self.entries, self.graves, self.table_index = before
        return False, set(), set()

    def _operation(self, index: int, operation: TxnOperation) -> tuple[bool, set[bytes], set[bytes]]:
        old = self.entries.get(operation.key)
        done = {"get": old is not None, "get-tree": True, "check-not-exists": old is None}
        done["check-index"] = old is not None and old.modified == operation.index
        writes = {
            "set": KvPut(operation.key, operation.value, operation.flags),
            "cas": KvPut(operation.key, operation.value, operation.flags, operation.index),
            "delete": KvDelete(operation.key),
            "delete-cas": KvDelete(operation.key, operation.index),
            "delete-tree": KvDeleteTree(operation.key),
        }
        return self.run(index, writes[operation.verb]) if operation.verb in writes else (done[operation.verb], set(), set())

    def list_index(self, prefix: bytes) -> int:
        """The index that a listing of the prefix carries."""
        indexes = [entry.modified for key, entry in self.entries.items() if key.startswith(prefix)]
        indexes += [at for key, at in self.graves.items() if key.startswith(prefix)]
        return max(indexes, default=self.table_index) or 1

    def _bury(self, index: int, key: bytes) -> None:
        del self.entries[key]
        self.graves[key] = index
        self.table_index = index


conditions = st.none() | st.none() | st.integers(0, 12)
keys = st.sampled_from(KEYS)
puts = st.builds(KvPut, keys, st.sampled_from([b"", b"x", b"y"]), st.sampled_from([0, 1, (1 << 64) - 1]), conditions)
deletes = st.builds(KvDelete, keys, conditions)
conditionals = st.builds(
    KvConditional,
    st.one_of(puts, deletes),
    st.builds(Condition, st.none() | st.lists(st.integers(0, 12), max_size=5), st.lists(st.integers(0, 12), max_size=3)),
)
trees = st.builds(KvDeleteTree, st.sampled_from([*KEYS, b"a/b/", b"zz"]))
reaps = st.builds(ReapTombstones, st.integers(0, 40))
VERBS = ["set", "set", "set", "cas", "cas", "delete", "delete-cas", "delete-tree", "get", "get-tree", "check-index", "check-not-exists"]
operations = st.builds(
    TxnOperation, st.sampled_from(VERBS), st.sampled_from(KEYS[1:]), st.sampled_from([b"", b"x", b"y"]), st.sampled_from([0, 1]), st.integers(0, 12)
)
txns = st.builds(Txn, st.lists(operations, max_size=5))
logs = st.lists(
    st.one_of(st.none(), puts, puts, puts, puts, deletes, deletes, conditionals, conditionals, trees, reaps, txns, txns), min_size=8, max_size=40
)
"""Entries of a log; None stands for Raft's own."""


def run(directory: Path, log: list[Command | None], cuts: set[int]) -> tuple[KvMachine, list[bool | None], list[tuple[set[bytes], set[bytes]]]]:
    """Apply a log in the batches that the cuts make; results of all entries, changes of each batch."""
    directory.mkdir()
    machine = KvMachine(directory)
    outcomes: list[bool | None] = []
    changes = []
    ends = [*sorted(cut for cut in cuts if 0 < cut < len(log)), len(log)]
    start = 0
    for end in ends:
        batch = [
            (index, 1 + index // 10, command and commands.stamp(commands.encode(command), 1_000 + index))
            for index, command in enumerate(log[start:end], start + 1)
        ]
        answers = machine.apply(batch)
        outcomes += [_ok(command, answer) for command, answer in zip(log[start:end], answers, strict=True)]
        taken = machine.take_changes()
        changes.append((set(taken.keys), set(taken.prefixes)))
        start = end
    return machine, outcomes, changes


def _ok(command: Command | None, answer: bytes) -> bool | None:
    if command is None:
        return None
    return not results.decode_txn(answer).failures if isinstance(command, Txn) else results.decode(answer).ok


@settings(max_examples=120, deadline=None, derandomize=True, print_blob=True)
@given(log=logs, cuts=st.sets(st.integers(1, 39)))
def test_equals_the_model_however_the_log_is_cut(log: list[Command | None], cuts: set[int]) -> None:
    """Results, rows, indexes and named changes are the model's; one batch, single entries or any cut give the same digest."""
    model = Model()
    expected = [model.run(index, command) if command is not None else (None, set(), set()) for index, command in enumerate(log, 1)]
    digests = []
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory:
        for name, chosen in (("one", set()), ("cut", cuts), ("single", set(range(len(log))))):
            machine, outcomes, changes = run(Path(directory) / name, log, chosen)
            digests.append(machine.digest())
            assert outcomes == [ok for ok, _, _ in expected]
            assert set().union(*(keys for keys, _ in changes)) == set().union(*(keys for _, keys, _ in expected))
            assert set().union(*(prefixes for _, prefixes in changes)) == set().union(*(prefixes for _, _, prefixes in expected))
            if name == "single" and log:
                assert changes == [(keys, prefixes) for _, keys, prefixes in expected]
            check_reads(Reader(Path(directory) / name), model, len(log))
            machine.close()
    assert len(set(digests)) == 1


def check_reads(reader: Reader, model: Model, applied: int) -> None:
    """Every read gives what the model says."""
    for key in KEYS:
        found = reader.get(key)
        entry = model.entries.get(key)
        assert (found.row and (found.row.value, found.row.flags, found.row.create_index, found.row.modify_index)) == entry
        assert (found.index, found.applied) == (entry.modified if entry else model.table_index or 1, applied)
    for prefix in (*KEYS, b"a/b/", b"zz"):
        listing = reader.list(prefix)
        under = sorted(key for key in model.entries if key.startswith(prefix))
        assert [row.key for row in listing.rows] == under
        assert (listing.index, listing.applied) == (model.list_index(prefix), applied)
        assert reader.keys(prefix) == (under, model.list_index(prefix), applied)
        folders = [key[: key.index(b"/", len(prefix)) + 1] if b"/" in key[len(prefix) :] else key for key in under]
        assert reader.keys(prefix, b"/").keys == list(dict.fromkeys(folders))
    assert reader.totals().keys == len(model.entries)
    reader.close()


def versions(log: list[Command | None]) -> list[int | None]:
    """The ModifyIndex of its key after each command about one key; None for other entries."""
    model = Model()
    found: list[int | None] = []
    for index, command in enumerate(log, 1):
        if command is not None:
            model.run(index, command)
        found.append(model.version(command.key) if isinstance(command, KvPut | KvDelete | KvConditional) else None)
    return found


@settings(max_examples=60, deadline=None, derandomize=True, print_blob=True)
@given(log=logs)
def test_the_version_that_a_write_tells(log: list[Command | None]) -> None:
    """A write tells its key's ModifyIndex after it, as the model has it; in a batch, where a later put may hide it, it tells that or nothing."""
    expected = versions(log)
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory:
        for name, step in (("one", len(log)), ("single", 1)):
            machine = KvMachine(_made(Path(directory) / name))
            for start in range(0, len(log), step):
                numbered = list(enumerate(log[start : start + step], start + 1))
                answers = machine.apply([(index, 1, command and commands.stamp(commands.encode(command), 1)) for index, command in numbered])
                for (index, _), answer in zip(numbered, answers, strict=True):
                    if (wanted := expected[index - 1]) is not None:
                        told = results.decode(answer).modify_index
                        assert told == wanted or (name == "one" and told == 0), (index, told, wanted)
            machine.close()


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory
