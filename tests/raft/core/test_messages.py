"""Messages that make no sense can't be built."""

from collections.abc import Callable

import pytest

from raft.core import messages
from raft.core.messages import AppendRequest, Heartbeat, InstallSnapshot, Message, VoteRequest
from raft.core.model import Boundary
from raft.errors import MalformedMessage
from raft.testing.cluster import entries


@pytest.mark.parametrize(
    "build",
    [
        lambda: VoteRequest("", "b", 1, 0, 0),
        lambda: VoteRequest("a", "", 1, 0, 0),
        lambda: VoteRequest("a", "a", 1, 0, 0),
        lambda: Heartbeat("a", "b", -1, 0, 0),
        lambda: AppendRequest("a", "b", 1, -1, 0, (), 0),
        lambda: AppendRequest("a", "b", 1, 0, -1, (), 0),
        lambda: AppendRequest("a", "b", 1, 0, 0, (), -1),
        lambda: AppendRequest("a", "b", 3, 0, 0, entries(1, first=2), 0),
        lambda: AppendRequest("a", "b", 3, 0, 0, entries(2, 1), 0),
        lambda: AppendRequest("a", "b", 3, 4, 2, entries(1, first=5), 0),
        lambda: AppendRequest("a", "b", 3, 0, 0, entries(4), 0),
        lambda: AppendRequest("a", "b", 3, 4, 5, (), 0),
        lambda: InstallSnapshot("a", "b", 3, Boundary(0, 0)),
        lambda: InstallSnapshot("a", "b", 3, Boundary(4, -1)),
        lambda: InstallSnapshot("a", "b", 3, Boundary(4, 4)),
    ],
)
def test_a_message_without_sense_is_malformed(build: Callable[[], Message]) -> None:
    """No name, a negative number, a gap, or terms that go back or beyond the leader's: nothing of it can be built."""
    with pytest.raises(MalformedMessage):
        build()


def test_every_message_is_in_the_union() -> None:
    """Each public class of the module that carries sender, recipient and term is one of the known messages."""
    found = {
        value for value in vars(messages).values() if isinstance(value, type) and issubclass(value, messages._Base) and value is not messages._Base
    }
    assert found == set(Message.__args__)
    assert set(messages.CONTROL) < found
