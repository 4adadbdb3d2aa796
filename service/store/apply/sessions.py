"""What each command does to sessions, to the locks that they hold, and to the delays that the loss of a lock leaves behind."""

from typing import Protocol

from service.domain.commands import EndLockDelay, KvLock, SessionCreate, SessionDestroy, SessionExpire, SessionRenew
from service.domain.entries import Session
from service.domain.results import SessionResult, WriteResult
from service.domain.txn import LockRefused, OperationFailed, PutLock, Workspace
from service.store.apply import txn

DELETE = "delete"
"""The behaviour by which a session's keys go with it."""


class View(txn.View, Protocol):
    """The state as the entry at hand finds it, with the effects of those before it."""

    def held_keys(self, id_: str) -> list[bytes]:
        """The keys that a session holds, in byte order."""
        ...

    def release_keys(self, index: int, id_: str, keys: list[bytes]) -> None:
        """Let go of all the keys that a session holds: those of :meth:`held_keys`. Value, flags and LockIndex stay."""
        ...

    def add_session(self, index: int, session: Session) -> None:
        """Begin a session."""
        ...

    def renew_session(self, index: int, session: Session) -> None:
        """Let the time of a session begin anew, if it has one."""
        ...

    def renewed_index(self, id_: str) -> int:
        """The entry of a session's last renewal, or of its creation; 0 when there is no such session."""
        ...

    def remove_session(self, index: int, id_: str) -> None:
        """End a session that holds nothing any more."""
        ...

    def delay_lock(self, index: int, key: bytes, duration_ns: int) -> None:
        """Let nobody lock a key until :meth:`end_delay`."""
        ...

    def end_delay(self, index: int, key: bytes, since_index: int) -> None:
        """Let a key be locked again, unless a later delay than that holds."""
        ...


def lock(view: View, index: int, _stamp_ms: int, command: KvLock) -> WriteResult:
    """Take a lock or let it go: a transaction of one operation, but that who holds it now makes it false and not wrong."""
    operation = command.operation
    if operation.verb == "lock" and view.is_delayed(operation.key):
        return WriteResult(ok=False, index=index)
    workspace = Workspace(txn.Found(view, [operation]), index)
    try:
        workspace.carry_out(operation)
    except LockRefused:
        return WriteResult(ok=False, index=index)
    except OperationFailed as failure:
        return WriteResult(ok=False, index=index, error=str(failure))
    for effect in workspace.effects:
        if isinstance(effect, PutLock):
            view.put_lock(index, effect.row)
    row = workspace.row(operation.key)
    return WriteResult(ok=True, index=index, modify_index=row.modify_index if row else 0)


def create(view: View, index: int, _stamp_ms: int, command: SessionCreate) -> bool:
    """Begin a session; not under an id that is taken."""
    if view.session(command.session.id) is not None:
        return False
    view.add_session(index, command.session)
    return True


def destroy(view: View, index: int, stamp_ms: int, command: SessionDestroy) -> bool:
    """End a session; one that does not exist counts as ended."""
    _end(view, index, stamp_ms, command.id)
    return True


def expire(view: View, index: int, stamp_ms: int, command: SessionExpire) -> bool:
    """End a session whose time is up, unless it was renewed since the time was counted."""
    if view.renewed_index(command.id) != command.renewed_index:
        return False
    _end(view, index, stamp_ms, command.id)
    return True


def renew(view: View, index: int, _stamp_ms: int, command: SessionRenew) -> SessionResult:
    """Let a session's time begin anew. It changes nothing that clients see."""
    session = view.session(command.id)
    if session is not None:
        view.renew_session(index, session)
    return SessionResult(index, session)


def end_lock_delay(view: View, index: int, _stamp_ms: int, command: EndLockDelay) -> bool:
    """Let a key be locked again."""
    view.end_delay(index, command.key, command.since_index)
    return True


def _end(view: View, index: int, stamp_ms: int, id_: str) -> None:
    """Release or delete the keys, begin their delays, end the session; all at one index."""
    session = view.session(id_)
    if session is None:
        return
    keys = view.held_keys(id_)
    if session.behavior == DELETE:
        for key in keys:
            view.delete(index, stamp_ms, key)
    elif keys:
        view.release_keys(index, id_, keys)
    if session.lock_delay_ns > 0:
        for key in keys:
            view.delay_lock(index, key, session.lock_delay_ns)
    view.remove_session(index, id_)
