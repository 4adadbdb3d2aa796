"""From what the disk holds to a node that can run: which state is the newest valid one, and does the log continue it?"""

from dataclasses import dataclass

from raft.core.model import Boundary, HardState
from raft.errors import StorageCorrupt
from raft.ports.machine import StateMachine
from raft.ports.storage import LoadedLog, LogStore, SnapshotStore, StableStore
from raft.runtime.snapshotter import restore

_HINT = "put the directory aside and let the node come back empty; its peers have the data"


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a node starts from."""

    hard_state: HardState
    log: LoadedLog
    applied: int


def recover(*, log_store: LogStore, stable_store: StableStore, snapshot_store: SnapshotStore, machine: StateMachine) -> Recovered:
    """Load everything, finish an installation that a crash cut short, and check that the parts fit.

    :raises StorageCorrupt: naming the part that does not fit.
    """
    hard_state = stable_store.hard_state()
    log = log_store.load()
    applied, term = machine.applied()
    newest = _newest_label(snapshot_store)
    if newest is not None and newest.index > applied and (applied == 0 or _term_at(log, applied) != term):
        restore(machine, snapshot_store, newest)
        applied, term = newest.index, newest.term
    if applied < log.boundary.index:
        cause = f"the state holds index {applied}, the log begins after {log.boundary.index}"
        raise StorageCorrupt("reading the state", cause, _HINT)
    if _term_at(log, applied) != term:
        log = _finish_installation(log_store, hard_state, newest, applied, term)
    return Recovered(hard_state, log, applied)


def _finish_installation(log_store: LogStore, hard_state: HardState, newest: Boundary | None, applied: int, term: int) -> LoadedLog:
    """The machine holds a snapshot, the log is still the old one: the crash came between the two."""
    if newest is None or (newest.index, newest.term) != (applied, term):
        cause = f"the state holds index {applied} of term {term}, which the log does not"
        raise StorageCorrupt("reading the log", cause, _HINT)
    log_store.reset(newest, hard_state)
    return LoadedLog(newest, ())


def _newest_label(snapshot_store: SnapshotStore) -> Boundary | None:
    source = snapshot_store.latest()
    if source is None:
        return None
    source.close()
    return source.boundary


def _term_at(log: LoadedLog, index: int) -> int | None:
    if index == log.boundary.index:
        return log.boundary.term
    position = index - log.boundary.index - 1
    return log.entries[position].term if 0 <= position < len(log.entries) else None
