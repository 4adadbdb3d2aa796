"""Which function carries out which command."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from service.domain.commands import (
    AclChange,
    CheckState,
    Command,
    EndLockDelay,
    FireEvent,
    KvConditional,
    KvDelete,
    KvDeleteTree,
    KvLock,
    KvPut,
    Once,
    Permitted,
    ReapTokens,
    ReapTombstones,
    RecordServers,
    RestoreAbandon,
    RestoreBegin,
    RestoreCommit,
    RestorePart,
    SessionCreate,
    SessionDestroy,
    SessionExpire,
    SessionRenew,
    SetAutopilot,
    Txn,
)
from service.domain.results import Result, WriteResult
from service.store.apply import acl, archive, autopilot, conditions, events, kv, once, servers, sessions, txn
from service.store.apply.tables import Tables


class View(sessions.View, archive.View, acl.View, Tables, Protocol):
    """All that any of them needs."""


def _reap(view: View, index: int, stamp_ms: int, command: ReapTombstones) -> bool:
    """Now and then: forget old deletions, and the parts of a restore that nobody goes on with."""
    archive.forget_old(view, stamp_ms)
    return kv.reap_tombstones(view, index, stamp_ms, command)


_HANDLERS: dict[type[Command], Callable[[Any, int, int, Any], bool | Result]] = {
    KvPut: kv.put,
    KvDelete: kv.delete,
    KvDeleteTree: kv.delete_tree,
    KvConditional: conditions.carry_out,
    ReapTombstones: _reap,
    CheckState: kv.check_state,
    Txn: txn.carry_out,
    KvLock: sessions.lock,
    SessionCreate: sessions.create,
    SessionDestroy: sessions.destroy,
    SessionRenew: sessions.renew,
    SessionExpire: sessions.expire,
    EndLockDelay: sessions.end_lock_delay,
    FireEvent: events.fire,
    RecordServers: servers.record,
    SetAutopilot: autopilot.configure,
    RestoreBegin: archive.begin,
    RestorePart: archive.lay_aside,
    RestoreCommit: archive.commit,
    RestoreAbandon: archive.abandon,
    Once: lambda view, index, stamp_ms, command: once.carry_out(view, index, command, partial(apply, view, index, stamp_ms)),
    AclChange: acl.change,
    ReapTokens: acl.reap,
    Permitted: lambda view, index, stamp_ms, command: acl.carry_out(view, command, partial(apply, view, index, stamp_ms)),
}


def apply(view: View, index: int, stamp_ms: int, command: Command) -> Result:
    """Carry out one command.

    :param index: of its log entry.
    :param stamp_ms: the leader's clock when it appended the entry.
    :returns: whatever the command's sender expects; most want to know only whether a condition held.
    """
    done = _HANDLERS[type(command)](view, index, stamp_ms, command)
    return WriteResult(done, index) if isinstance(done, bool) else done
