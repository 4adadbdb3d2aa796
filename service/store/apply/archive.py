"""What restoring an archive does: parts are laid aside one by one, then all of them take the place of the state in one entry.

So every node has the old state or the new one, whole, at each index of the log; a crash in between is replayed like any other. Who has no part in
the restore that is under way is told so, and a command that comes twice does nothing the second time: whoever restores may ask again when an answer
was lost.
"""

from collections.abc import Sequence
from typing import Protocol

from service.domain.commands import RestoreAbandon, RestoreBegin, RestoreCommit, RestorePart
from service.domain.results import WriteResult
from service.store import restoring_rows, session_rows
from service.store.apply.tables import Tables
from service.store.changes import Timer
from service.store.restored import Now
from service.store.restoring_rows import Position

FORGOTTEN_AFTER_MS = 60 * 60 * 1000
"""How long parts are kept that nobody adds to."""
OVERTAKEN = "another restore has taken the place of this one, or it took too long; nothing was changed"


class View(Tables, Protocol):
    """What the commands need of the state."""

    def replace_all(self, timers: Sequence[Timer]) -> None:
        """Note that another state took the place of the whole one; with the timers that ended and those that began."""
        ...


def begin(view: Tables, _index: int, stamp_ms: int, command: RestoreBegin) -> bool:
    """Make room; of a restore that began already nothing is lost."""
    connection = view.open()
    found = restoring_rows.position(connection)
    if command.id not in (found.restore, found.committed):
        restoring_rows.forget(connection)
        restoring_rows.note(connection, Position(command.id, 0, stamp_ms, found.committed))
    return True


def lay_aside(view: Tables, index: int, stamp_ms: int, command: RestorePart) -> WriteResult:
    """Keep the part that is due."""
    connection = view.open()
    found = restoring_rows.position(connection)
    if found.restore != command.id or command.number > found.parts:
        return WriteResult(ok=False, index=index, error=OVERTAKEN)
    if command.number == found.parts:
        restoring_rows.lay_aside(connection, command.rows, command.records)
        restoring_rows.note(connection, found._replace(parts=found.parts + 1, touched_at_ms=stamp_ms))
    return WriteResult(ok=True, index=index)


def commit(view: View, index: int, stamp_ms: int, command: RestoreCommit) -> WriteResult:
    """Replace the state, if all parts are there."""
    connection = view.open()
    found = restoring_rows.position(connection)
    if found.committed == command.id:
        return WriteResult(ok=True, index=index)
    if (found.restore, found.parts) != (command.id, command.parts):
        return WriteResult(ok=False, index=index, error=OVERTAKEN)
    ended = [Timer(timer.name, index, 0) for timer in session_rows.timers(connection)]
    restoring_rows.take_place(connection, Now(index, stamp_ms), command.kv_index, command.sessions_index)
    restoring_rows.forget(connection)
    restoring_rows.note(connection, Position("", 0, stamp_ms, command.id))
    view.replace_all(ended + session_rows.timers(connection))
    return WriteResult(ok=True, index=index)


def abandon(view: Tables, _index: int, stamp_ms: int, command: RestoreAbandon) -> bool:
    """Forget the parts of a restore that failed."""
    connection = view.open()
    found = restoring_rows.position(connection)
    if found.restore == command.id:
        restoring_rows.forget(connection)
        restoring_rows.note(connection, Position("", 0, stamp_ms, found.committed))
    return True


def forget_old(view: Tables, stamp_ms: int) -> None:
    """Forget the parts of a restore that nobody goes on with: its worker, say, is gone."""
    connection = view.open()
    found = restoring_rows.position(connection)
    if found.restore and stamp_ms - found.touched_at_ms > FORGOTTEN_AFTER_MS:
        restoring_rows.forget(connection)
        restoring_rows.note(connection, Position("", 0, stamp_ms, found.committed))
