"""Which of several directories of one cluster should be recovered: the one that loses nothing that any of them knows to be committed.

The longest log by Raft's own order (last term, then last index) is not enough. A log may end with a later term and still lack an entry that a later
leader has committed (paper, section 5.4.2). So whoever lacks what another one knows to be committed is ruled out first, and the order decides
among the rest. The one that knows the highest commit index is never ruled out, so somebody always remains.
"""

from collections.abc import Sequence

from service.offline.directory import DataUnusable, Inspection


def check_comparable(inspections: Sequence[Inspection]) -> None:
    """Whether the directories are whole and belong to different nodes of one cluster.

    :raises DataUnusable: naming the directory that does not.
    """
    for one in inspections:
        if one.damages:
            raise DataUnusable(f"{one.path} is damaged ({one.damages[0]}); kvorum data inspect {one.path} names everything")
        if one.identity is None or one.cluster is None:
            raise DataUnusable(f"{one.path} belongs to no cluster: there is nothing to recover in it")
    first = inspections[0]
    for number, one in enumerate(inspections):
        if _cluster(one) != _cluster(first):
            raise DataUnusable(f"{one.path} is of cluster {_cluster(one)}, {first.path} of cluster {_cluster(first)}")
        for other in inspections[:number]:
            if one.identity == other.identity:
                raise DataUnusable(f"{other.path} and {one.path} are both of node {_name(one)}, id {one.identity and one.identity.incarnation}")


def best(inspections: Sequence[Inspection]) -> Inspection:
    """The directory to recover; among equals the first."""
    possible = [one for one in inspections if not lacks(one, inspections)]
    return max(possible, key=lambda one: (one.log.last_term, one.log.last_index, -inspections.index(one)))


def lacks(one: Inspection, others: Sequence[Inspection]) -> list[str]:
    """What others know to be committed and this one does not hold, in words."""
    return [
        f"{_name(other)} knows index {index} of term {term} to be committed, which {_name(one)} does not hold"
        for other in others
        for index, term in (other.known_commit,)
        if not one.holds(index, term)
    ]


def _name(one: Inspection) -> str:
    return one.identity.name if one.identity is not None else str(one.path)


def _cluster(one: Inspection) -> str:
    return one.cluster.cluster_id if one.cluster is not None else "none"
