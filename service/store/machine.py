"""The replicated state machine: committed entries become rows of ``state.db``.

The only module of the service that knows the library's ports. It belongs to the agent, the one writer of the data directory; whoever composes the
node holds the directory's lock before this is opened.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from sqlite3 import Connection

import msgspec

from raft.ports.machine import StateMachine
from service.domain.commands import Command, decode
from service.domain.results import Result, WriteResult, encode
from service.errors import StateDamaged, StateUnreadable
from service.store import capture, engine, files, session_rows, statements, sums, upgrade
from service.store.apply import dispatch, kv
from service.store.capture import FileCapture
from service.store.changes import ChangeLog, Changes, Timer
from service.store.digest import Digest, Held
from service.store.sums import PageSums
from service.store.transaction import Transaction

FIRST_GENERATION = 1
CHECKPOINT_ATTEMPTS = 3

LOG_FRAMES_MAX = 4_096
"""Pages in the write-ahead log (16 MiB) from which on a checkpoint holds the entries back for its last step, so that the log starts anew.
See decision 28."""

CHANGES_MAX = 16_384
"""Changes of rows, those by triggers among them, after which a checkpoint is due: about 8,192 keys."""


class KvMachine(StateMachine):
    """Keys and values under the port :class:`raft.ports.machine.StateMachine`; see there for order and threads.

    :meth:`checkpoint`, :meth:`capture`, :meth:`hold` and :meth:`digest` have connections of their own and may also run beside :meth:`apply`.

    :param data_dir: the node's directory; the state is made there when there is none.
    :param generation: the number of one that has to be made.
    :raises StateDamaged: when a byte of the state is not what was written; every page is compared before anything is used.
    :raises StateUnreadable: when the state is foreign, newer, or CURRENT does not name it.
    """

    def __init__(self, data_dir: Path, generation: int = FIRST_GENERATION) -> None:
        self._data_dir = data_dir
        self._damage: StateDamaged | None
        self._changes = ChangeLog()
        self._checkpoint_lock = threading.Lock()
        self._apply_lock = threading.Lock()
        self._index, self._term = 0, 0
        with files.explained(f"the state in {data_dir} can't be prepared"):
            self._generation = _find_or_create(data_dir, generation)
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

    def apply(self, entries: Sequence[tuple[int, int, bytes | None]], *, awaited: bool = True) -> Sequence[bytes]:
        """Apply entries in order; effects and applied index become visible together.

        :returns: one of :mod:`service.domain.results` in bytes for each, empty for Raft's own entries; nothing at all where nobody awaits them.
        :raises CommandInvalid: when an entry can't be understood; nothing of the batch was applied.
        :raises StateDamaged: when SQLite finds the file damaged; nothing of the batch was applied.
        :raises ValueError: when the entries don't follow what was applied.
        """
        if not entries:
            return []
        self._check_order(entries)
        decoded = [None if data is None else decode(data) for _, _, data in entries]
        with self._apply_lock:
            results, unmoved = self._write(entries, decoded, awaited=awaited)
        if not awaited:
            return []
        if unmoved:
            results = [_corrected(result, unmoved) for result in results]
        return [b"" if result is None else encode(result) for result in results]

    def _write(
        self, entries: Sequence[tuple[int, int, bytes | None]], decoded: Sequence[tuple[int, Command] | None], *, awaited: bool
    ) -> tuple[list[Result | None], Mapping[int, int]]:
        """Do it; the results, and what :attr:`Transaction.unmoved` says of them."""
        transaction = Transaction(self._connection, self._term, entries[-1][:2], answering=awaited)
        try:
            results = _carry_out(transaction, entries, decoded)
            last_index, last_term, _ = entries[-1]
            transaction.commit(last_index, last_term)
        except engine.DATABASE_ERRORS as error:
            with suppress(*engine.DATABASE_ERRORS):
                transaction.roll_back()
            self._refuse_damage(error)
            raise
        except BaseException:
            transaction.roll_back()
            raise
        if transaction.replaced:
            self._changes.add_replaced()
        self._changes.add(transaction.keys, transaction.prefixes, transaction.tables)
        if transaction.timers or transaction.sessions:
            self._changes.add_sessions(transaction.sessions, transaction.timers)
        self._index, self._term = last_index, last_term
        self._changed = self._connection.total_changes
        return results, transaction.unmoved

    def take_changes(self) -> Changes:
        """What became different since the last call; to be published now, for it can be read by others already.

        Call it from the thread that called :meth:`apply` or :meth:`restore`, or after that call has returned.
        """
        return self._changes.take(self._index)

    def checkpoint_due(self) -> bool:
        """Whether so much was changed since the last checkpoint that the write-ahead log is getting long. From any thread."""
        return self._changed - self._moved_changes >= CHANGES_MAX

    def checkpoint(self) -> int:
        """Move the write-ahead log into the file, sync it, and keep the sums of the pages that changed. A long one starts anew behind that.

        Only a run that reports every frame as moved proves anything: under a reader that pins an old moment, SQLite reports success for a run that
        copied little and synced nothing. The moment of :attr:`_pin` is moved whole, so it tries again when an entry was applied in between.

        :returns: the index up to which effects are proven to survive a power loss; an earlier one when this run proved nothing new.
        :raises StateDamaged: when SQLite finds the file damaged.
        """
        with self._checkpoint_lock, self._damage_noted():
            if self._move_log() >= LOG_FRAMES_MAX:
                self._move_log()  # what came meanwhile, which took less time
                with self._apply_lock:  # and what came meanwhile; the next entry finds nothing left in the log
                    self._move_log()
            return min(self._durable_index, self._index)  # entries are in the file a moment before they count as applied

    def check_some(self) -> bool:
        """Compare the next mebibyte of the file with its sums, round and round; beside everything else.

        :returns: whether this step ended a round.
        :raises StateDamaged: when a page is not what was written, or anything else has found damage since the start.
        """
        with self._checkpoint_lock, self._damage_noted():
            if self._damage is not None:
                raise self._damage
            return self._pages.check_some()

    def check_all(self) -> None:
        """Compare the whole file with its sums, from the first page on.

        :raises StateDamaged: as :meth:`check_some`.
        """
        with self._checkpoint_lock:
            self._pages.start_over()
        while not self.check_some():
            pass

    def capture(self) -> FileCapture:
        """A picture of the present state; nothing is copied before it is written, and all pages are compared before that."""
        return FileCapture(files.state_path(self._data_dir, self._generation), self.check_all)

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
            sums.seal(path, index)
        finally:
            files.remove(new)
        with self._checkpoint_lock:
            self._switch(generation)
            self._durable_index = index
        self._changes.add_everything()

    def timers(self) -> list[Timer]:
        """All that end when their time is up. To be asked for when the machine is opened and after :meth:`restore`, which tells no single ones."""
        return session_rows.timers(self._connection)

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
        with self._checkpoint_lock:
            moved = False
            with suppress(StateUnreadable, *engine.DATABASE_ERRORS):
                moved = self._move_log() >= 0
            self._release(moved=moved)

    def _move_log(self) -> int:
        """Move the present moment into the file, with its sums.

        :returns: how many pages the log holds, all of which are in the file; -1 when a reader held it up.
        """
        self._moved_changes = self._changed
        for _ in range(CHECKPOINT_ATTEMPTS):
            self._pin.execute("BEGIN")
            try:
                index = _position(self._pin)[0]
                salts = self._pages.salts()
                busy, frames, moved = self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if not busy and frames == moved >= 0 and salts == self._pages.salts():
                    self._pages.note(salts, frames, index)
                    self._durable_index = index
                    return int(frames)
            finally:
                self._pin.execute("COMMIT")
        return -1

    def _release(self, *, moved: bool) -> None:
        """Close everything.

        :param moved: nothing is left in the log. Otherwise it has to stay: SQLite would move the rest as its last connection closes, and nobody would
            sum that; so the last one is one that can't write.
        """
        connections = [self._checkpointer, self._connection]
        connections.insert(0 if moved else 2, self._pin)
        for connection in connections:
            connection.close()
        self._pages.close()

    def _switch(self, generation: int) -> None:
        """Make another generation the current one. A failure closes the machine: nobody could say any more which file is the state."""
        old = files.state_path(self._data_dir, self._generation)
        try:
            with files.explained(f"{self._data_dir / files.CURRENT} can't be moved to generation {generation}"):
                files.write_current(self._data_dir, generation)
            with suppress(*engine.DATABASE_ERRORS):  # on a full disk readers learn of it from the agent alone
                self._connection.execute(statements.SUPERSEDE, (generation,))
        finally:
            self._release(moved=False)
        self._generation = generation
        self._open()
        with suppress(OSError):  # what stays is removed at the next start
            files.remove(old)

    def _open(self) -> None:
        path = files.state_path(self._data_dir, self._generation)
        upgrade.upgrade(path)
        with ExitStack() as opened:
            self._pages = opened.enter_context(closing(PageSums(path)))
            self._pages.check()
            self._pin: Connection = opened.enter_context(closing(engine.open_reader(path)))  # the last to be closed when this fails
            self._connection: Connection = opened.enter_context(closing(engine.open_writer(path)))
            self._checkpointer: Connection = opened.enter_context(closing(engine.open_writer(path)))
            try:
                position = _position(self._connection)
                self._pages.check_index(position[0])
                upgrade.finish(self._connection)
                engine.complete(self._connection)
            except engine.DATABASE_ERRORS as error:
                raise engine.failure(f"{path} can't be read", error) from error
            opened.pop_all()
        self._index, self._term = position
        self._changed = self._moved_changes = 0
        self._damage = None

    @contextmanager
    def _damage_noted(self) -> Iterator[None]:
        """Keep the first damage that is found, for :meth:`check_some`.

        :raises StateDamaged: also in place of what SQLite raises about a damaged file.
        """
        try:
            yield
        except StateDamaged as error:
            self._damage = self._damage or error
            raise
        except engine.DATABASE_ERRORS as error:
            self._refuse_damage(error)
            raise

    def _refuse_damage(self, error: Exception) -> None:
        if engine.is_damage(error):
            self._damage = StateDamaged(f"{files.state_path(self._data_dir, self._generation)} is damaged: {error}")
            raise self._damage from error

    def _check_order(self, entries: Sequence[tuple[int, int, bytes | None]]) -> None:
        expected = self._index
        for index, _, _ in entries:
            expected += 1
            if index != expected:
                raise ValueError(f"entry {index} does not follow entry {expected - 1}")


def _carry_out(
    transaction: Transaction, entries: Sequence[tuple[int, int, bytes | None]], decoded: Sequence[tuple[int, Command] | None]
) -> list[Result | None]:
    transaction.look_up(kv.conditional_keys(item[1] for item in decoded if item is not None))
    results: list[Result | None] = []
    for (index, _, _), item in zip(entries, decoded, strict=True):
        if item is None:
            results.append(None)
            continue
        stamp_ms, command = item
        results.append(dispatch.apply(transaction, index, stamp_ms, command))
    return results


def _corrected(result: Result | None, unmoved: Mapping[int, int]) -> Result | None:
    """The result of a put that changed nothing names the ModifyIndex that its key has kept."""
    if not isinstance(result, WriteResult) or result.modify_index != result.index or result.index not in unmoved:
        return result
    return msgspec.structs.replace(result, modify_index=unmoved[result.index])


def _position(connection: Connection) -> tuple[int, int]:
    """Index and term of the last entry whose effects the connection sees."""
    found = connection.execute(statements.META).fetchone()
    if found is None:
        raise StateUnreadable("the state does not say which entries it holds: it was never completed")
    return found[0], found[1]


def _find_or_create(data_dir: Path, first: int) -> int:
    generation = files.read_current(data_dir)
    if generation is not None:
        return generation
    for candidate in files.generations(data_dir):
        _refuse_to_forget(files.state_path(data_dir, candidate))
    path = files.state_path(data_dir, first)
    new = path.with_name(path.name + ".new")
    files.remove(new)
    engine.create(new)
    files.publish(new, path)
    sums.seal(path, 0)
    files.write_current(data_dir, first)
    return first


def _refuse_to_forget(path: Path) -> None:
    """A state file without CURRENT is either what a first start left that was interrupted, empty, or somebody's data."""
    connection = engine.open_reader(path)  # a writer would move the write-ahead log into the file as it closes
    try:
        found = connection.execute(statements.META).fetchone()
    except engine.DATABASE_ERRORS as error:
        raise engine.failure(f"{path} can't be read", error) from error
    finally:
        connection.close()
    if found is None or found[0]:
        raise StateDamaged(f"{path} holds applied entries, but {path.parent / files.CURRENT} is missing: write the file's name into it")
