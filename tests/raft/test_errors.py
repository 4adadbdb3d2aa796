"""The tree of errors: the drawing at the head of the module is the classes, and each knows its outcome."""

import inspect
import re

import pytest

from raft import errors
from raft.errors import Outcome, RaftError

CLASSES = {name: value for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}


def drawn(text: str) -> list[tuple[int, str]]:
    """Depth and name of every line of a drawn tree."""
    found = []
    for line in text.splitlines():
        match = re.match(r"^ {4}([│├└─ ]*)([A-Z]\w+)(?: {2,}.*)?$", line)
        if match:
            found.append((len(match[1]) // 4, match[2]))
    return found


def test_the_drawing_is_the_tree() -> None:
    """Each class is drawn once, below its base class."""
    tree = drawn(errors.__doc__ or "")
    assert sorted(name for _, name in tree) == sorted(CLASSES)
    path: list[str] = []
    for depth, name in tree:
        path[depth:] = [name]
        expected = path[depth - 1] if depth else "Exception"
        assert CLASSES[name].__base__.__name__ == expected, name


def test_every_error_says_something() -> None:
    """Each class has a text of its own."""
    assert all(value.__doc__ and value.__doc__ != (value.__base__.__doc__ or "") for value in CLASSES.values())


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_the_outcome_is_known(name: str) -> None:
    """What is below Rejected or MessageRefused had no effect; what is below OutcomeUnknown may have had one."""
    value = CLASSES[name]
    if issubclass(value, errors.Rejected | errors.MessageRefused):
        assert value.outcome is Outcome.REJECTED
    if issubclass(value, errors.OutcomeUnknown):
        assert value.outcome is Outcome.UNKNOWN
    assert isinstance(value.outcome, Outcome)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.NotLeader("n1"), "not the leader; the leader is n1"),
        (errors.NotLeader(), "no leader is known"),
        (errors.ProposalTooLarge(11, 10), "a proposal of 11 bytes is over the limit of 10 bytes (proposal_bytes_max)"),
        (errors.EmptyProposal(), "a batch of proposals must hold at least one"),
        (errors.UncommittedLimit(11, 10), "11 uncommitted bytes would be over the limit of 10 bytes (uncommitted_bytes_max)"),
        (errors.TransferInProgress("n2"), "leadership is being transferred to n2"),
        (errors.ProposalTimeout(1.5), "no answer within 1.5 s"),
        (errors.ConfigInvalid(("a", "b")), "a; b"),
        (errors.StorageFailed("writing", "no space", "make room"), "writing: no space (make room)"),
        (errors.StorageCorrupt("reading", "bad checksum"), "reading: bad checksum"),
        (errors.MachineFailed(7, ValueError("x")), "the state machine failed at index 7: ValueError('x')"),
    ],
)
def test_texts_name_values_and_limits(error: RaftError, text: str) -> None:
    """Whoever reads an error learns the value, the limit and the setting."""
    assert str(error) == text
