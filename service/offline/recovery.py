"""A cluster that has lost its quorum for good, begun anew out of one survivor's directory. The reasons: decision 10.

Nothing of the log is cut. A configuration with this node alone is put at its end, in a new term, and the node's cluster gets a new id: when
it starts it leads by itself, commits what it holds and goes on from there. Members of the old cluster that come back carry the old id, so neither
side takes a word of the other; they join like any new node, with an empty directory.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from raft.core.membership import encode_configuration
from raft.core.model import Configuration, Entry, EntryKind, HardState, Member
from raft.errors import RaftError
from raft.ports.storage import WriteBatch
from raft.storage.amendment import amend
from raft.storage.directory import sync_directory
from raft.storage.sqlite import FILE_NAME
from service.agent.identity import ADDRESSES_RECORD, CLUSTER_RECORD, REMOVED_RECORD, Cluster, FormedMember
from service.offline.directory import MARK_RECORD, DataUnusable, Inspection, Mark

MARK_FORMAT = 1
_FILES = (FILE_NAME, FILE_NAME + "-wal")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be written.

    :ivar backup: the directory that gets the files as they were.
    """

    inspection: Inspection
    old: Configuration
    member: Member
    cluster: Cluster
    mark: Mark
    hard_state: HardState
    backup: Path


def plan(found: Inspection, address: str | None, cluster_id: str, at: str) -> Plan:
    """Lay out the recovery of a whole directory. Nothing is changed.

    :param address: where this node will listen for peers; None: where it did.
    :param cluster_id: of the new cluster; never used before.
    :raises DataUnusable: when it holds nothing to go on from.
    """
    log = found.log
    if found.identity is None or found.cluster is None or log.hard_state is None:
        raise DataUnusable(f"{found.path} belongs to no cluster: there is nothing to recover in it")
    if found.unfinished:
        raise DataUnusable(f"{found.path} is in the middle of installing a snapshot: start the node once, stop it, and come back")
    if REMOVED_RECORD in log.records:
        raise DataUnusable(f"the cluster has removed {found.identity.name}: its data may have ended long before the cluster did")
    old, me = log.configuration, found.identity
    known = next((member for member in old.members if member.id == me.incarnation), None)
    if known is None and address is None:
        raise DataUnusable(f"{me.name} was no member at the end of its log, so its address is not known: give --address")
    member = Member(me.incarnation, me.name, address or (known.address if known is not None else ""))
    term = max(log.hard_state.term, log.last_term) + 1
    left_out = [one.id for one in old.members if one.id != me.incarnation]
    return Plan(
        inspection=found,
        old=old,
        member=member,
        cluster=Cluster(cluster_id, [FormedMember(member.name, member.id, member.address)]),
        mark=Mark(MARK_FORMAT, at, found.cluster.cluster_id, log.last_index + 1, term, left_out),
        hard_state=HardState(term, None, log.hard_state.commit),
        backup=found.path / f"before-recovery-{cluster_id}",
    )


def carry_out(plan: Plan) -> None:
    """Copy the files that will be changed, then change them in one transaction. The caller owns the directory.

    A crash leaves the old or the new, and perhaps a copy. Durable on return.

    :raises DataUnusable: when the disk refuses; the directory is then what it was.
    """
    entry = Entry(plan.mark.index, plan.mark.term, EntryKind.CONFIGURATION, encode_configuration(Configuration(voters=(plan.member,))))
    records = {CLUSTER_RECORD: msgspec.json.encode(plan.cluster), MARK_RECORD: msgspec.json.encode(plan.mark)}
    if ADDRESSES_RECORD in plan.inspection.log.records:
        records[ADDRESSES_RECORD] = b"{}"
    try:
        _back_up(plan.inspection.path, plan.backup)
        amend(plan.inspection.path, WriteBatch(plan.hard_state, (entry,)), records)
    except OSError as error:
        raise DataUnusable(f"the copy at {plan.backup} can't be made: {error}") from error
    except RaftError as error:
        raise DataUnusable(str(error)) from error


def _back_up(directory: Path, backup: Path) -> None:
    """A copy under its final name is whole: it gets that only when all of it is on the disk."""
    partial = backup.with_name(backup.name + ".partial")
    partial.mkdir(mode=0o700)
    for name in _FILES:
        source = directory / name
        if not source.exists():
            continue
        shutil.copy2(source, partial / name)
        file = os.open(partial / name, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
    sync_directory(partial)
    partial.rename(backup)
    sync_directory(directory)


def told(plan: Plan) -> str:
    """What will be kept, what is lost and what nobody can know, for people."""
    found, log = plan.inspection, plan.inspection.log
    committed, _ = found.known_commit
    kept = f"kept, all of it: the last index is {log.last_index} of term {log.last_term}; up to {committed} it is known here to be committed"
    if log.last_index > committed:
        kept += f"\n           Whether {committed + 1} to {log.last_index} were, this node can't know: who wrote them was told 'done', 'unknown' or"
        kept += "\n           nothing. They will be committed."
    lost = [f"{one.name} ({one.address})" for one in plan.old.members if one.id != plan.member.id]
    return f"""\
node       {plan.member.name}, id {plan.member.id}, {plan.member.address}
log        {kept}
lost       writes after index {log.last_index} that others acknowledged and that never reached this node. Nobody can tell from here
           whether there are any; if the directory of another node still exists, name it with --compare.
left out   {", ".join(lost) or "nobody"}. Never start them on their old data again: they would be another cluster, with the
           old id. Put the data aside, and let the nodes join with empty directories.
cluster    {plan.mark.from_cluster} is given up; {plan.cluster.cluster_id} begins with one voter,
           at index {plan.mark.index} of term {plan.mark.term}
copy       {FILE_NAME} as it is now goes to {plan.backup}"""
