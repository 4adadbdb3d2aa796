"""What must hold in one node at any moment. Cheap enough for production; the simulator checks it after every step.

The numbers are those of the texts of :mod:`raft.core.log` and :mod:`raft.core.progress`.
"""

from raft.core.progress import Progress
from raft.core.roles import Role
from raft.core.state import State
from raft.errors import InvariantViolation


def check(state: State) -> None:
    """Check one node.

    :raises InvariantViolation: naming the first that is broken.
    """
    log = state.log
    _require(
        (state.installing is not None or log.boundary.index <= log.applied) and log.applied <= log.applying <= min(log.commit, log.durable),
        "log 2: applied beyond what is committed and durable",
        state,
    )
    _require(log.durable <= log.handed <= log.last_index and log.commit <= log.last_index, "log 3: durable, handed or commit beyond the end", state)
    _require(state.term >= log.last_term, "the log ends in a later term than the node's", state)
    _require((state.role is Role.LEADER) == (state.leader == state.node_id), "leads without being the leader it knows", state)
    if state.role is Role.LEADER:
        _require(
            log.term_at(log.last_index) == state.term or log.boundary.index == log.last_index, "a leader whose log does not end in its term", state
        )
        for progress in state.progress.values():
            _check_progress(state, progress)


def _check_progress(state: State, progress: Progress) -> None:
    _require(progress.match < progress.next, f"progress of {progress.peer}: match {progress.match}, next {progress.next}", state)
    _require(progress.next <= state.log.last_index + 1, f"progress of {progress.peer}: next {progress.next} beyond the log", state)
    _require(progress.inflight <= state.config.inflight_appends_max, f"progress of {progress.peer}: {progress.inflight} in flight", state)


def _require(holds: bool, what: str, state: State) -> None:
    if not holds:
        log = state.log
        raise InvariantViolation(
            f"{state.node_id} ({state.role}, term {state.term}): {what}; boundary {log.boundary.index}, applied {log.applied}, "
            f"applying {log.applying}, commit {log.commit}, durable {log.durable}, handed {log.handed}, last {log.last_index}"
        )
