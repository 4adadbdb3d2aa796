"""A data directory as a whole: log, records, snapshots, state, and whether they fit together as :mod:`raft.runtime.recovery` will ask at start."""

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from raft.errors import RaftError
from raft.storage.inspection import Damage, LogReport, inspect_log, still
from raft.storage.snapshots import SnapshotReport, inspect_snapshots
from service.agent.identity import CLUSTER_RECORD, IDENTITY_RECORD, REMOVED_RECORD, Cluster, Identity
from service.errors import KvorumError, StateUnreadable
from service.store import files
from service.store.inspection import StateReport, inspect_state

MARK_RECORD = "recovery"


class DataUnusable(KvorumError):
    """A data directory that can't be looked at or changed; the text names it and says why. Nothing was changed."""

    exit_code = 3


class Mark(msgspec.Struct, frozen=True):
    """The record of a recovery from a lost quorum, kept beside the new cluster's.

    :param at: when, in UTC.
    :param from_cluster: the cluster that was given up.
    :param index: where the new cluster's first configuration stands in the log; ``term`` is its term.
    :param left_out: ids of the members that were left behind.
    """

    format: int
    at: str
    from_cluster: str
    index: int
    term: int
    left_out: list[str]


@dataclass(slots=True)
class Inspection:
    """What was found. Parts that could not be read are None, and then a damage says why.

    :ivar generation: of the state file; 0 when there is none.
    :ivar unfinished: a crash has cut the installation of a snapshot short; the next start finishes it.
    :ivar notes: what is no damage but worth knowing.
    """

    path: Path
    log: LogReport
    snapshots: list[SnapshotReport]
    identity: Identity | None = None
    cluster: Cluster | None = None
    mark: Mark | None = None
    generation: int = 0
    state: StateReport | None = None
    unfinished: bool = False
    damages: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def applied(self) -> tuple[int, int]:
        """Index and term of the last entry whose effects the state holds."""
        digest = self.state.digest if self.state is not None else None
        return (0, 0) if digest is None else (digest.index, digest.term)

    @property
    def known_commit(self) -> tuple[int, int]:
        """Index and term of the last entry that was committed as far as these files tell."""
        log = self.log
        known = [self.applied]
        if log.boundary is not None:
            known.append((log.boundary.index, log.boundary.term))
        noted = min(log.hard_state.commit if log.hard_state is not None else 0, log.last_index)
        term = log.term_at(noted)
        if term is not None:
            known.append((noted, term))
        return max(known)

    def holds(self, index: int, term: int) -> bool:
        """Whether the log holds that entry; what lies before its boundary was committed, and so is the same everywhere."""
        boundary = self.log.boundary
        return (boundary is not None and index < boundary.index) or index == 0 or self.log.term_at(index) == term


def inspect(path: Path) -> Inspection:
    """Read and verify everything. The caller keeps nodes out; nothing is changed.

    :raises DataUnusable: when there is no data directory, or the disk can't be read.
    """
    if not path.is_dir():
        raise DataUnusable(f"{path} is no directory")
    try:
        log = inspect_log(path)
        found = Inspection(path, log, inspect_snapshots(path / "snapshots"))
        found.damages += log.damages
        _read_records(found)
        _read_state(found)
    except (RaftError, OSError) as error:
        raise DataUnusable(f"{path} can't be inspected: {error}") from error
    if REMOVED_RECORD in log.records:
        found.notes.append("the cluster has removed this node")
    for snapshot in found.snapshots:
        if snapshot.problem:
            index = snapshot.boundary.index if snapshot.boundary is not None else 0
            found.damages.append(Damage(f"snapshot {snapshot.name}", index, snapshot.problem))
    if not found.damages:
        _check_fit(found)
    return found


def _read_records(found: Inspection) -> None:
    for name, kind, attribute in ((IDENTITY_RECORD, Identity, "identity"), (CLUSTER_RECORD, Cluster, "cluster"), (MARK_RECORD, Mark, "mark")):
        value = found.log.records.get(name)
        if value is None:
            continue
        try:
            setattr(found, attribute, msgspec.json.decode(value, type=kind))
        except msgspec.MsgspecError as error:
            found.damages.append(Damage(f"record {name!r}", 0, str(error)))
    if found.cluster is None and CLUSTER_RECORD not in found.log.records:
        found.notes.append("the node belongs to no cluster yet")


def _read_state(found: Inspection) -> None:
    try:
        generation = files.read_current(found.path)
    except StateUnreadable as error:
        found.damages.append(Damage("state", 0, str(error)))
        return
    if generation is None:
        lying = files.generations(found.path)
        if lying:
            found.damages.append(Damage("state", 0, f"{files.CURRENT} is missing, but there is {files.state_path(found.path, lying[-1]).name}"))
        else:
            found.notes.append("there is no state file yet")
        return
    found.generation = generation
    path = files.state_path(found.path, generation)
    if not path.exists():
        found.damages.append(Damage("state", 0, f"{path.name} is missing"))
        return
    with still(path) as file:
        found.state = inspect_state(file, path)
    found.damages += [Damage(path.name, found.applied[0], problem) for problem in found.state.problems]
    found.notes += [
        f"generation {other} was left behind; the next start removes it" for other in files.generations(found.path) if other != generation
    ]


def _check_fit(found: Inspection) -> None:
    """The questions of a start (:mod:`raft.runtime.recovery`), asked without its remedies."""
    log, (applied, term) = found.log, found.applied
    newest = found.snapshots[0].boundary if found.snapshots else None
    if newest is not None and newest.index > applied and (applied == 0 or log.term_at(applied) != term):
        found.unfinished = True
        found.notes.append(f"the snapshot at index {newest.index} is not installed yet; the next start does it")
        return
    if log.boundary is not None and applied < log.boundary.index:
        found.damages.append(Damage("state", applied, f"the log begins only after index {log.boundary.index}"))
    elif log.term_at(applied) != term:
        if newest is not None and (newest.index, newest.term) == (applied, term):
            found.unfinished = True
            found.notes.append(f"the snapshot at index {applied} is installed, the log not yet cut; the next start does it")
        else:
            found.damages.append(Damage("state", applied, f"it holds this index of term {term}, which the log does not"))
