"""What a pre-candidate and a candidate do with the answers they asked for."""

from raft.core import elections
from raft.core.messages import PreVoteResponse, VoteResponse
from raft.core.roles import Role
from raft.core.state import State


def tick(state: State) -> None:
    """Begin anew when the vote has led nowhere for the drawn time."""
    state.election_elapsed += 1
    if state.election_elapsed >= state.election_deadline:
        elections.campaign(state, reason="the vote was not decided in time")


def on_pre_vote(state: State, message: PreVoteResponse) -> None:
    """Count an answer to the question for the next term; answers to older questions are dropped."""
    if state.role is Role.PRE_CANDIDATE and message.term == state.term + (1 if message.granted else 0):
        elections.count(state, message.sender, granted=message.granted)


def on_vote(state: State, message: VoteResponse) -> None:
    """Count a vote of this term."""
    if state.role is Role.CANDIDATE:
        elections.count(state, message.sender, granted=message.granted)
