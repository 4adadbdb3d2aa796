"""The program that is recorded: a node's operations on real files, one after the other, each acknowledged when it is done.

``python -m raft.testing.crash_script SUBJECT ROLE SEED DIRECTORY [MUTANT]``. ``SUBJECT`` is ``module:Class`` of a :class:`Subject`.
"""

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Protocol
from unittest.mock import patch

from raft.core.model import Boundary, Entry, HardState
from raft.errors import StorageFailed
from raft.ports.machine import Capture, StateMachine
from raft.ports.storage import WriteBatch
from raft.runtime.snapshotter import restore
from raft.storage import engine, sqlite
from raft.storage.snapshots import FileSnapshots
from raft.storage.sqlite import SqliteLog
from raft.storage.witness import Witness, encode
from raft.testing.crash_plan import CONFIGURATION, Apply, Arrive, Compact, Hold, Operation, Put, Release, Reopen, Write, plan
from raft.testing.recording import MARKS

CHECKPOINT_PAGES = 48
"""Pages of the write-ahead log after which the recorded log is checkpointed: few, so that a short recording holds many checkpoints."""

TERM_AFTER_FAILURE = 1 << 20
"""A term that no plan reaches."""


class Machine(StateMachine, Protocol):
    """A state machine that keeps its state in a directory."""

    def close(self) -> None:
        """Release the files."""
        ...


class Subject(Protocol):
    """Which machine the node drives. Made without arguments."""

    def open(self, directory: Path) -> Machine:
        """Open the machine, or make it."""
        ...

    def command(self, index: int, term: int) -> bytes:
        """The data of an entry; always the same."""
        ...

    def fingerprint(self, machine: Machine) -> str:
        """Equal for equal states and for no others."""
        ...

    def planted(self, mutant: str) -> AbstractContextManager[object]:
        """The machine with a fault in it. KeyError when it has no such fault."""
        ...


def load_subject(name: str) -> Subject:
    """The subject of a name ``module:Class``."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)()  # type: ignore[no-any-return]  # the caller names a Subject


class Node:
    """The adapters on one directory, and what the runtime does with them."""

    def __init__(self, subject: Subject, directory: Path, committed: Sequence[Entry]) -> None:
        self._subject = subject
        self._directory = directory
        self._committed = committed
        self._held: Capture | None = None
        self._open()
        self._marks = os.open(directory / MARKS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def step(self, operation: Operation) -> None:
        """Do it, then say so, with what a checkpoint has proven."""
        self.acknowledge(self.perform(operation))

    def acknowledge(self, proven: int) -> None:
        """From here on the world counts on it."""
        os.write(self._marks, str(proven).encode())

    def perform(self, operation: Operation) -> int:
        """Do it; what a checkpoint has proven, or 0."""
        match operation:
            case Write(batch):
                self.log.write(batch)
            case Put(name, value):
                self.log.put(name, value)
            case Apply(last):
                self._apply(last)
            case Compact(boundary):
                proven = self.machine.checkpoint()
                if proven >= boundary.index:
                    self.log.compact(boundary)
                return proven
            case Hold():
                self._held = self.machine.capture()
            case Release():
                self._release()
            case Arrive():
                self._arrive(operation)
            case Reopen():
                self.close()
                self._open()
        return 0

    def insist(self) -> None:
        """Ask a log that has failed for one thing more. Whatever it does not refuse is acknowledged, and so gives it away."""
        with suppress(StorageFailed):
            self.step(Write(WriteBatch(HardState(TERM_AFTER_FAILURE))))

    def close(self) -> None:
        """Release everything."""
        if self._held is not None:
            self._held.close()
            self._held = None
        self.machine.close()
        self.log.close()

    def _open(self) -> None:
        self.log = SqliteLog(self._directory)
        self.log.load()
        self.snapshots = FileSnapshots(self._directory / "snapshots")
        self.machine = self._subject.open(self._directory)

    def _apply(self, last: int) -> None:
        first = self.machine.applied()[0]
        self.machine.apply([(entry.index, entry.term, entry.data) for entry in self._committed[first:last]])

    def _release(self) -> None:
        if self._held is None:
            raise RuntimeError("no picture is held open")
        capture, self._held = self._held, None
        sink = self.snapshots.create(Boundary(capture.index, capture.term, CONFIGURATION))
        capture.write(sink.write)
        sink.commit()
        capture.close()

    def _arrive(self, arrival: Arrive) -> None:
        sink = self.snapshots.create(arrival.boundary)
        picture = picture_of(self._subject, self._committed[: arrival.boundary.index])
        if not arrival.whole:
            sink.write(picture[: len(picture) // 2])
            sink.abort()
            return
        for start in range(0, len(picture), 8192):
            sink.write(picture[start : start + 8192])
        sink.commit()
        if arrival.installed:
            restore(self.machine, self.snapshots, arrival.boundary)
            self.log.reset(arrival.boundary, self.log.hard_state())


def picture_of(subject: Subject, entries: Sequence[Entry]) -> bytes:
    """What another node's machine would send that has applied the entries."""
    with tempfile.TemporaryDirectory() as directory:
        machine = subject.open(Path(directory))
        machine.apply([(entry.index, entry.term, entry.data) for entry in entries])
        pieces: list[bytes] = []
        capture = machine.capture()
        capture.write(pieces.append)
        capture.close()
        machine.close()
        return b"".join(pieces)


def _synchronous(value: str, expected: int) -> AbstractContextManager[object]:
    """``log.db`` with another ``synchronous`` than the library sets."""
    changed = tuple(("synchronous", value, expected) if pragma[0] == "synchronous" else pragma for pragma in engine.PRAGMAS)
    return patch.object(engine, "PRAGMAS", changed)


class _EarlyNode(Node):
    """Answers before it has done anything, but for checkpoints."""

    def step(self, operation: Operation) -> None:
        if isinstance(operation, Write):
            self.acknowledge(0)
            self.perform(operation)
        else:
            super().step(operation)


@contextmanager
def _statement_by_statement(_log: SqliteLog) -> Iterator[None]:
    yield


def _acknowledge_by_call(witness: Witness, number: int) -> None:
    """What a witness puts down in mapped memory, written by a call, for the recorder to see."""
    witness.number = number
    file = os.open(witness.path, os.O_WRONLY)
    os.pwrite(file, encode(number), 0)
    os.close(file)


_guarded = SqliteLog._guarded  # noqa: SLF001 - a fault has to get inside


@contextmanager
def _forgetful(log: SqliteLog, operation: str) -> Iterator[None]:
    """The log forgets that a sync has failed."""
    log._failure = None  # noqa: SLF001 - as above
    with _guarded(log, operation):
        yield


@contextmanager
def planted(subject: Subject, mutant: str) -> Iterator[None]:
    """The node with a deliberate fault: one of the library's storage, or one that the subject's machine offers.

    :raises KeyError: when nobody knows it.
    """
    every = nullcontext()
    faults: dict[str, AbstractContextManager[object]] = {
        "": every,
        "M05": patch.object(sys.modules[__name__], "Node", _EarlyNode),
        "M26-normal": _synchronous("NORMAL", 1),
        "M26-off": _synchronous("OFF", 0),
        "M27": patch.object(SqliteLog, "_guarded", _forgetful),
        "no-transaction": patch.object(SqliteLog, "_transaction", _statement_by_statement),
        "snapshot-unsynced": patch("raft.storage.snapshots.os.fsync", lambda _file: None),
    }
    with faults[mutant] if mutant in faults else subject.planted(mutant):
        yield


def main(arguments: Sequence[str]) -> None:
    """Run the script of a role; see the module's text."""
    name, role, seed, directory, *rest = arguments
    subject = load_subject(name)
    chosen = plan(role, int(seed), subject.command)
    small_log = patch.object(sqlite, "CHECKPOINT_PAGES", CHECKPOINT_PAGES)
    with small_log, patch.object(Witness, "acknowledge", _acknowledge_by_call), planted(subject, rest[0] if rest else ""):
        node = Node(subject, Path(directory), chosen.committed)
        for operation in chosen.operations:
            try:
                node.step(operation)
            except BaseException:
                if isinstance(operation, Write | Put):
                    node.insist()
                node.log.close()
                raise
        node.close()


if __name__ == "__main__":
    main(sys.argv[1:])
