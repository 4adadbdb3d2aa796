"""The replicated state machine: committed entries become rows of ``state.db``.

The only module of the service that knows the library's ports. It belongs to the agent, the one writer of the data directory; whoever composes the
node holds the directory's lock before this is opened.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from sqlite3 import Connection

from raft.ports.machine import StateMachine
from service.domain.commands import Command, decode
from service.domain.results import WriteResult, encode
from service.errors import StateUnreadable
from service.store import capture, engine, files, statements
from service.store.apply import kv
from service.store.capture import FileCapture
from service.store.changes import ChangeLog, Changes
from service.store.digest import Digest, Held
from service.store.transaction import Transaction

FIRST_GENERATION = 1


class KvMachine(StateMachine):
    """Keys and values under the port :class:`raft.ports.machine.StateMachine`; see there for order and threads.

    :meth:`checkpoint`, :meth:`capture`, :meth:`hold` and :meth:`digest` have connections of their own and may also run beside :meth:`apply`.

    :param data_dir: the node's directory; the state is made there when there is none.
    :raises StateUnreadable: when the state is damaged, foreign, newer, or CURRENT does not name it.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._changes = ChangeLog()
        self._checkpoint_lock = threading.Lock()
        self._index, self._term = 0, 0
        with files.explained(f"the state in {data_dir} can't be prepared"):
            self._generation = _find_or_create(data_dir)
            files.remove_leftovers(data_dir, self._generation)
        self._open()
        self._durable_index = 0

    @property
    def generation(self) -> int:
        """The number of the state file in use; it grows when a snapshot is restored."""
        return self._generation

    @property
    def applied_index(self) -> int:
        """Like the first of :meth:`applied`; may be read from any thread at any time."""
        return self._index

    def applied(self) -> tuple[int, int]:
        """Index and term of the last entry whose effects the state holds."""
        return self._index, self._term

    def apply(self, entries: Sequence[tuple[int, int, bytes | None]]) -> Sequence[bytes]:
        """Apply entries in order; effects and applied index become visible together.

        :returns: a :class:`service.domain.results.WriteResult` in bytes for each, empty for Raft's own entries.
        :raises CommandInvalid: when an entry can't be understood; nothing of the batch was applied.
        :raises ValueError: when the entries don't follow what was applied.
        """
        if not entries:
            return []
        self._check_order(entries)
        decoded = [None if data is None else decode(data) for _, _, data in entries]
        transaction = Transaction(self._connection, self._term)
        try:
            results = _carry_out(transaction, entries, decoded)
            last_index, last_term, _ = entries[-1]
            transaction.commit(last_index, last_term)
        except BaseException:
            transaction.roll_back()
            raise
        self._changes.add(transaction.keys, transaction.prefixes)
        self._index, self._term = last_index, last_term
        return results

    def take_changes(self) -> Changes:
        """What became different since the last call; to be published now, for it can be read by others already.

        Call it from the thread that called :meth:`apply` or :meth:`restore`, or after that call has returned.
        """
        return self._changes.take(self._index)

    def checkpoint(self) -> int:
        """Move the write-ahead log into the file and sync it.

        Only a run that reports every frame as moved proves anything: under a reader that pins an old moment, SQLite reports success for a run that
        copied little and synced nothing.

        :returns: the index up to which effects are proven to survive a power loss; an earlier one when this run proved nothing new.
        """
        with self._checkpoint_lock:
            index = self._index
            busy, frames, moved = self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if not busy and frames == moved >= 0:
                self._durable_index = index
            return self._durable_index

    def capture(self) -> FileCapture:
        """A picture of the present state; nothing is copied before it is written."""
        return FileCapture(files.state_path(self._data_dir, self._generation))

    def restore(self, index: int, term: int, read: Callable[[int], bytes]) -> None:
        """Replace the whole state by a picture: written aside, verified, made the next generation, then made current.

        A reader of the old file learns of it by ``superseded_by`` and opens the new one. Old files are removed at once: who has them open keeps them.

        :raises StateUnreadable: when the picture is damaged or holds another index or term; the state is then what it was.
        """
        generation = self._generation + 1
        path = files.state_path(self._data_dir, generation)
        new = path.with_name(path.name + ".new")
        try:
            capture.receive(new, read)
            capture.verify(new, index, term, engine.schema_text(self._connection))
            with files.explained(f"the snapshot can't be written to {new}"):
                files.publish(new, path)
        finally:
            files.remove(new)
        with self._checkpoint_lock:
            self._switch(generation)
            self._durable_index = index
        self._changes.add_everything()

    def hold(self) -> Held:
        """The present state, held still for a digest; nothing is copied."""
        return Held(files.state_path(self._data_dir, self._generation))

    def digest(self) -> Digest:
        """A fingerprint of everything that was replicated. Two nodes at one index must agree on it."""
        held = self.hold()
        try:
            found = held.digest()
        finally:
            held.close()
        if found is None:
            raise RuntimeError("nobody broke it off")
        return found

    def close(self) -> None:
        """Release the files. The state may be opened again."""
        self._checkpointer.close()
        self._connection.close()

    def _switch(self, generation: int) -> None:
        """Make another generation the current one. A failure closes the machine: nobody could say any more which file is the state."""
        old = files.state_path(self._data_dir, self._generation)
        try:
            with files.explained(f"{self._data_dir / files.CURRENT} can't be moved to generation {generation}"):
                files.write_current(self._data_dir, generation)
            with suppress(engine.DATABASE_ERROR):  # on a full disk readers learn of it from the agent alone
                self._connection.execute(statements.SUPERSEDE, (generation,))
        finally:
            self.close()
        self._generation = generation
        self._open()
        with suppress(OSError):  # what stays is removed at the next start
            files.remove(old)

    def _open(self) -> None:
        path = files.state_path(self._data_dir, self._generation)
        self._connection: Connection = engine.open_writer(path)
        self._checkpointer: Connection = engine.open_writer(path)
        try:
            found = self._connection.execute(statements.META).fetchone()
        except engine.DATABASE_ERROR as error:
            self.close()
            raise StateUnreadable(f"{path} can't be read: {error}") from error
        if found is None:
            self.close()
            raise StateUnreadable(f"{path} does not say which entries it holds: it was never completed")
        self._index, self._term = found[:2]

    def _check_order(self, entries: Sequence[tuple[int, int, bytes | None]]) -> None:
        expected = self._index
        for index, _, _ in entries:
            expected += 1
            if index != expected:
                raise ValueError(f"entry {index} does not follow entry {expected - 1}")


def _carry_out(
    transaction: Transaction, entries: Sequence[tuple[int, int, bytes | None]], decoded: Sequence[tuple[int, Command] | None]
) -> list[bytes]:
    transaction.look_up(kv.conditional_keys(item[1] for item in decoded if item is not None))
    results = []
    for (index, _, _), item in zip(entries, decoded, strict=True):
        if item is None:
            results.append(b"")
            continue
        stamp_ms, command = item
        results.append(encode(WriteResult(kv.apply(transaction, index, stamp_ms, command), index)))
    return results


def _find_or_create(data_dir: Path) -> int:
    generation = files.read_current(data_dir)
    if generation is not None:
        return generation
    for candidate in files.generations(data_dir):
        _refuse_to_forget(files.state_path(data_dir, candidate))
    path = files.state_path(data_dir, FIRST_GENERATION)
    new = path.with_name(path.name + ".new")
    files.remove(new)
    engine.create(new)
    files.publish(new, path)
    files.write_current(data_dir, FIRST_GENERATION)
    return FIRST_GENERATION


def _refuse_to_forget(path: Path) -> None:
    """A state file without CURRENT is either what a first start left that was interrupted, empty, or somebody's data."""
    connection = engine.open_writer(path)
    try:
        found = connection.execute(statements.META).fetchone()
    except engine.DATABASE_ERROR as error:
        raise StateUnreadable(f"{path} can't be read: {error}") from error
    finally:
        connection.close()
    if found is None or found[0]:
        raise StateUnreadable(f"{path} holds applied entries, but {path.parent / files.CURRENT} is missing: write the file's name into it")
