"""Configurations: the single changes, their bytes, and which one is in force."""

import pytest

from raft.core.membership import AddLearner, AddVoter, Change, ConfigurationTrail, Demote, Remove, changed, decode_configuration, encode_configuration
from raft.core.model import Boundary, Configuration, Entry, EntryKind
from raft.errors import ChangeRefused, MalformedMessage
from raft.testing.cluster import configuration, entry, member

ABC_D = configuration("abc", "d")


@pytest.mark.parametrize(
    ("change", "voters", "learners"),
    [
        (AddLearner(member("e")), "abc", "de"),
        (AddVoter(member("e")), "abce", "d"),
        (AddVoter(member("d")), "abcd", ""),
        (Demote("b"), "ac", "db"),
        (Remove("b"), "ac", "d"),
        (Remove("d"), "abc", ""),
    ],
)
def test_each_change_moves_one_server(change: Change, voters: str, learners: str) -> None:
    """Each kind of change moves exactly the named server and leaves the original as it was."""
    assert changed(ABC_D, change) == configuration(voters, learners)
    assert configuration("abc", "d") == ABC_D


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (AddLearner(member("a")), "name-a .a. is a member already"),
        (AddLearner(member("d")), "name-d .d. is a member already"),
        (AddVoter(member("a")), "name-a .a. is a voter already"),
        (Demote("d"), "d is no voter"),
        (Demote("x"), "x is no voter"),
        (Remove("x"), "x is no member"),
    ],
)
def test_a_change_without_sense_is_refused(change: Change, text: str) -> None:
    """Each refusal names the server and the reason."""
    with pytest.raises(ChangeRefused, match=text):
        changed(ABC_D, change)


@pytest.mark.parametrize("change", [Remove("a"), Demote("a")])
def test_the_last_voter_stays(change: Change) -> None:
    """A cluster can't lose its last voter."""
    with pytest.raises(ChangeRefused, match="a is the last voter"):
        changed(configuration("a", "b"), change)


def test_a_configuration_survives_its_bytes() -> None:
    """Decoding gives back what was encoded, also in a joint state and without members."""
    joint = Configuration(ABC_D.voters, ABC_D.learners, configuration("ab").voters)
    for example in (ABC_D, joint, Configuration()):
        assert decode_configuration(encode_configuration(example)) == example


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"null",
        b"\xff",
        b'{"voters":[["a","b"]],"learners":[],"outgoing":[]}',
        b'{"voters":[[1,2,3]],"learners":[],"outgoing":[]}',
    ],
)
def test_other_bytes_are_no_configuration(data: bytes) -> None:
    """Whatever is no configuration is refused as malformed, not by an accident of decoding."""
    with pytest.raises(MalformedMessage, match="configuration"):
        decode_configuration(data)


def test_members_are_counted_once() -> None:
    """A voter of both halves is one member; who votes in the outgoing half only is a voter still."""
    joint = Configuration(configuration("ab").voters, (), configuration("bc").voters)
    assert [found.id for found in joint.members] == ["a", "b", "c"]
    assert joint.is_voter("c")
    assert joint.outgoing_ids == ("b", "c")
    assert "c" in joint
    assert "d" not in joint


def configured(index: int, voters: str) -> Entry:
    """A configuration entry."""
    return Entry(index, 1, EntryKind.CONFIGURATION, encode_configuration(configuration(voters)))


def test_the_trail_follows_appends_and_truncation() -> None:
    """The last configuration in the log is in force; removing its entry brings the one before back."""
    trail = ConfigurationTrail(Boundary(configuration=configuration("a")), (entry(1, 1), configured(2, "ab")))
    assert (trail.current, trail.current_index) == (configuration("ab"), 2)
    assert trail.note((configured(3, "abc"), entry(4, 1), configured(5, "bc")))
    assert not trail.note((entry(6, 1),))
    assert trail.current == configuration("bc")
    assert trail.undo_from(4)
    assert (trail.current, trail.current_index) == (configuration("abc"), 3)
    assert not trail.undo_from(4)
    assert trail.undo_from(1)
    assert (trail.current, trail.current_index) == (configuration("a"), 0)


def test_the_trail_knows_every_index() -> None:
    """The configuration in force at any index after the boundary can be told, also after a compaction."""
    trail = ConfigurationTrail(Boundary(configuration=configuration("a")), (configured(2, "ab"), configured(5, "abc")))
    assert [trail.at(index).voter_ids for index in (0, 1, 2, 4, 5, 9)] == [("a",), ("a",), ("a", "b"), ("a", "b"), ("a", "b", "c"), ("a", "b", "c")]
    trail.compact(Boundary(3, 1, trail.at(3)))
    assert [trail.at(index).voter_ids for index in (3, 4, 5)] == [("a", "b"), ("a", "b"), ("a", "b", "c")]
    assert trail.current_index == 5
    trail.compact(Boundary(5, 1, trail.at(5)))
    assert (trail.current.voter_ids, trail.current_index) == (("a", "b", "c"), 5)
