"""A damaged data directory: what may be done about it without guessing.

A state that is damaged beside a whole log is built anew from the log, or from a stored snapshot and the log, when they reach back far enough: the
state follows from them. Everything else is repaired from the peers or not at all: the files are set aside and the node comes back as a new
incarnation (:mod:`service.agent.joining`), but only when the leader of the others, confirmed by a quorum that this node is no part of, knows a
member of this name. Then whatever was acknowledged is there. Otherwise these files may be the last copy, and the node refuses.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from raft.errors import RaftError, StorageCorrupt
from raft.storage.failures import RESTORE_HINT
from raft.storage.inspection import inspect_log
from raft.storage.snapshots import FileSnapshots
from raft.storage.sqlite import SqliteLog
from service.agent.aside import set_aside
from service.agent.formation import Call
from service.agent.identity import CLUSTER_RECORD, IDENTITY_RECORD, REMOVED_RECORD, Cluster, Identity
from service.agent.joining import way_to
from service.agent.machine import StateCorrupt
from service.ipc import membership as asking
from service.settings import Settings

log = logging.getLogger(__name__)

AUTO = "auto"
PATIENCE_SECONDS = 20.0
"""How long the others have time to elect a leader: a node may be damaged by what has stopped all of them."""
PAUSE_SECONDS = 0.5
REPAIRS_MAX = 5
"""In :data:`WITHIN_SECONDS`, of one process. A disk that damages more is not to be trusted with a vote."""
WITHIN_SECONDS = 3_600.0


class RepairRefused(StorageCorrupt):
    """Nothing may be done about the damage; the hint says why. Nothing was changed."""


class _Known(NamedTuple):
    """What the damaged log still says for certain: every record has a checksum. None where it can't be read."""

    identity: Identity | None
    cluster: Cluster | None
    removed: bool


class Repair:
    """See the module's text.

    :param call: makes one request to a peer: (address, path, body, seconds) to (status, body); raises OSError.
    """

    def __init__(self, settings: Settings, call: Call) -> None:
        self._settings = settings
        self._data_dir = settings.data_dir
        targets: Sequence[str] = settings.join_targets
        if not settings.join:
            targets = [str(member.address) for member in settings.members if member.name != settings.name]
        self._times: deque[float] = deque(maxlen=REPAIRS_MAX)
        self._ways = [(target, way_to(target, call)) for target in targets]

    async def heal(self, damage: StorageCorrupt) -> None:
        """Set aside what is damaged, so that the node can start. Nothing of the directory is open meanwhile.

        :raises RepairRefused: when nothing may be done.
        :raises StorageFailed: when the disk refuses.
        """
        if self._settings.repair != AUTO:
            raise _refused(damage, f"the setting repair is {self._settings.repair!r}")
        now = asyncio.get_running_loop().time()
        if len(self._times) == REPAIRS_MAX and now - self._times[0] < WITHIN_SECONDS:
            raise _refused(damage, f"it was repaired {REPAIRS_MAX} times within the hour: the disk is not to be trusted")
        self._times.append(now)
        if isinstance(damage, StateCorrupt) and await asyncio.to_thread(_can_rebuild, self._data_dir):
            place = await asyncio.to_thread(set_aside, self._data_dir, state_only=True)
            log.error("%s", damage)
            log.warning("the damaged state was set aside, in %s; it is built anew from the log, which is whole", place)
            return
        known = await asyncio.to_thread(_read_known, self._data_dir)
        cluster_id = await self._ask(damage, known)
        place = await asyncio.to_thread(set_aside, self._data_dir, state_only=False)
        log.error("%s", damage)
        log.warning(
            "the damaged data were set aside, in %s: a quorum of cluster %s does without them; this node comes back empty, as a new incarnation",
            place,
            cluster_id,
        )

    async def _ask(self, damage: StorageCorrupt, known: _Known) -> str:
        """Wait until the leader of the others tells that they can do without these data.

        :returns: the id of their cluster.
        """
        name = self._settings.name
        if known.identity is not None and known.identity.name != name:
            raise _refused(damage, f"the data directory belongs to node {known.identity.name!r}; this node is {name!r}")
        if known.removed:
            raise _refused(damage, "the cluster has removed this node")
        if not self._ways:
            raise _refused(damage, "this node knows no peers (initial_cluster, join), so these data may be the last copy")
        log.warning("%s; the others are asked whether they can do without these data", damage)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS
        while True:
            problems = []
            for target, ask in self._ways:
                status, answer = await ask(asking.Members())
                problem = self._judge(damage, known, status, answer)
                if not problem:
                    return str(answer["cluster_id"])
                problems.append(f"{target}: {problem}")
            if loop.time() >= deadline:
                raise _refused(damage, f"no quorum of the others can do without these data, which may be the last copy: {'; '.join(problems)}")
            await asyncio.sleep(PAUSE_SECONDS)

    def _judge(self, damage: StorageCorrupt, known: _Known, status: int, answer: dict[str, Any]) -> str:
        """What is wrong with an answer; empty when nothing is.

        A list of members is given by a leader only, after a quorum has confirmed that it leads.
        """
        if status != 200:
            return str(answer.get("detail", f"status {status}"))
        cluster_id = str(answer.get("cluster_id"))
        if known.cluster is not None and known.cluster.cluster_id != cluster_id:
            raise _refused(damage, f"these data belong to cluster {known.cluster.cluster_id}, the others to {cluster_id}")
        if not answer.get("committed"):
            return "a change of its members is under way"
        if not any(member["name"] == self._settings.name for member in answer.get("members", [])):
            raise _refused(damage, f"cluster {cluster_id} has no member {self._settings.name}")
        return ""


def _can_rebuild(data_dir: Path) -> bool:
    """Whether log and snapshots are whole and reach back to where a state can begin: to nothing, or to a snapshot."""
    try:
        store = SqliteLog(data_dir)
        try:
            boundary = store.load().boundary
        finally:
            store.close()
        if boundary.index == 0:
            return True
        source = FileSnapshots(data_dir / "snapshots").latest()
    except StorageCorrupt:
        return False
    if source is None:
        return False
    source.close()
    return source.boundary.index >= boundary.index


def _read_known(data_dir: Path) -> _Known:
    try:
        records = inspect_log(data_dir).records
    except RaftError:  # the file is gone, or can't be read
        records = {}
    identity, cluster = records.get(IDENTITY_RECORD), records.get(CLUSTER_RECORD)
    return _Known(
        None if identity is None else msgspec.json.decode(identity, type=Identity),
        None if cluster is None else msgspec.json.decode(cluster, type=Cluster),
        REMOVED_RECORD in records,
    )


def _refused(damage: StorageCorrupt, why: str) -> RepairRefused:
    return RepairRefused(damage.operation, damage.cause, f"not repaired: {why}; {damage.hint or RESTORE_HINT}")
