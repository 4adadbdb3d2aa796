"""A node described for people and dashboards: values only, nothing that could be changed through them."""

from dataclasses import dataclass

from raft.core.model import Configuration, NodeId
from raft.core.progress import Progress
from raft.core.roles import Role
from raft.core.state import State


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One follower as the leader sees it.

    :param contact_ticks: ticks since it was last heard of.
    :param caught_up: whether it keeps up well enough to be given a vote.
    """

    peer: NodeId
    match_index: int
    next_index: int
    state: str
    inflight: int
    inflight_bytes: int
    contact_ticks: int
    caught_up: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """One node at one moment."""

    node_id: NodeId
    role: Role
    term: int
    vote: NodeId | None
    leader: NodeId | None
    first_index: int
    last_index: int
    durable_index: int
    commit_index: int
    applied_index: int
    boundary_index: int
    log_bytes: int
    uncommitted_bytes: int
    configuration: Configuration
    configuration_index: int
    transfer_target: NodeId | None
    peers: tuple[PeerStatus, ...]


def describe(state: State) -> Status:
    """The node as it is now."""
    log = state.log
    return Status(
        node_id=state.node_id,
        role=state.role,
        term=state.term,
        vote=state.vote,
        leader=state.leader,
        first_index=log.first_index,
        last_index=log.last_index,
        durable_index=log.durable,
        commit_index=log.commit,
        applied_index=log.applied,
        boundary_index=log.boundary.index,
        log_bytes=log.bytes,
        uncommitted_bytes=state.uncommitted_bytes,
        configuration=state.configuration,
        configuration_index=state.trail.current_index,
        transfer_target=state.transfer_target,
        peers=tuple(_describe_peer(state, progress) for progress in state.progress.values()),
    )


def _describe_peer(state: State, progress: Progress) -> PeerStatus:
    return PeerStatus(
        peer=progress.peer,
        match_index=progress.match,
        next_index=progress.next,
        state=progress.state.value,
        inflight=progress.inflight,
        inflight_bytes=progress.inflight_bytes,
        contact_ticks=state.tick_count - progress.contact_tick,
        caught_up=progress.has_caught_up(state.tick_count, state.config.election_ticks),
    )
