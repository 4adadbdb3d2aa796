"""Quorum arithmetic against a second, naive implementation that counts subsets."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product

import pytest

from raft.core.quorum import INFINITY, VoteResult, agreed, is_quorum, joint_vote, jointly_agreed, majority, vote

IDS = "abcdefg"


def naive_majorities(voters: Sequence[str]) -> list[set[str]]:
    """Every subset that holds more than half of the voters, found by trying them all."""
    return [set(some) for size in range(len(voters) + 1) for some in combinations(voters, size) if 2 * size > len(voters)]


def naive_agreed(voters: Sequence[str], reached: Mapping[str, int]) -> int:
    """The largest value that some majority has reached in full."""
    if not voters:
        return INFINITY
    return max(min(reached[voter] for voter in some) for some in naive_majorities(voters))


def naive_vote(voters: Sequence[str], votes: Mapping[str, bool]) -> VoteResult:
    """Won when some majority has granted; lost when no majority is left that has not refused."""
    if not voters:
        return VoteResult.WON
    majorities = naive_majorities(voters)
    if any(all(votes.get(voter) is True for voter in some) for some in majorities):
        return VoteResult.WON
    if all(any(votes.get(voter) is False for voter in some) for some in majorities):
        return VoteResult.LOST
    return VoteResult.PENDING


def pairs_of_groups(ids: str) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """All pairs of groups of voters, empty ones included."""
    groups = [some for size in range(len(ids) + 1) for some in combinations(ids, size)]
    return product(groups, groups)


@pytest.mark.parametrize("count", range(1, 8))
def test_cs_07_quorum_arithmetic_commit(count: int) -> None:
    """The commit index agrees with brute force for every vector of acknowledgements up to seven voters."""
    voters = IDS[:count]
    values = 3 if count > 5 else count + 1
    checked = 0
    for vector in product(range(values), repeat=count):
        reached = dict(zip(voters, vector, strict=True))
        assert agreed(voters, reached.__getitem__) == naive_agreed(voters, reached), reached
        checked += 1
    assert checked == values**count


@pytest.mark.parametrize("count", range(1, 8))
def test_cs_07_quorum_arithmetic_vote(count: int) -> None:
    """The outcome of a vote agrees with brute force for every combination of granted, refused and missing answers."""
    voters = IDS[:count]
    for answers in product((True, False, None), repeat=count):
        votes = {voter: answer for voter, answer in zip(voters, answers, strict=True) if answer is not None}
        assert vote(voters, votes) is naive_vote(voters, votes), votes
        assert is_quorum(voters, (), (voter for voter in voters if votes.get(voter))) is (naive_vote(voters, votes) is VoteResult.WON)


def test_cs_07_quorum_arithmetic_pairs() -> None:
    """For every pair of configurations of up to four ids, overlapping or not, both halves must agree."""
    ids = IDS[:4]
    for incoming, outgoing in pairs_of_groups(ids):
        for vector in product(range(3), repeat=len(ids)):
            reached = dict(zip(ids, vector, strict=True))
            expected = min(naive_agreed(incoming, reached), naive_agreed(outgoing, reached))
            assert jointly_agreed(incoming, outgoing, reached.__getitem__) == expected
        for answers in product((True, False, None), repeat=len(ids)):
            votes = {voter: answer for voter, answer in zip(ids, answers, strict=True) if answer is not None}
            halves = (naive_vote(incoming, votes), naive_vote(outgoing, votes))
            if VoteResult.LOST in halves:
                expected_vote = VoteResult.LOST
            else:
                expected_vote = VoteResult.WON if set(halves) == {VoteResult.WON} else VoteResult.PENDING
            assert joint_vote(incoming, outgoing, votes) is expected_vote, (incoming, outgoing, votes)


@pytest.mark.parametrize("count", range(1, 8))
def test_cs_07_quorum_arithmetic_splits(count: int) -> None:
    """For every way to split up to seven ids over two configurations a decision takes a majority of each; all pairs are such a split, renamed."""
    ids = IDS[:count]
    for first, last in combinations(range(count + 2), 2):
        incoming, outgoing = ids[: last - 1], ids[first:]  # who stands before ``first`` is new, who stands after ``last`` is old
        new, old = naive_majorities(incoming), naive_majorities(outgoing)
        for answers in product((True, False, None), repeat=count):
            votes = {voter: answer for voter, answer in zip(ids, answers, strict=True) if answer is not None}
            granted = {voter for voter in votes if votes[voter]}
            refused = set(votes) - granted
            won = (not incoming or any(some <= granted for some in new)) and (not outgoing or any(some <= granted for some in old))
            lost = (incoming and all(some & refused for some in new)) or (outgoing and all(some & refused for some in old))
            expected = VoteResult.WON if won else VoteResult.LOST if lost else VoteResult.PENDING
            assert joint_vote(incoming, outgoing, votes) is expected, (incoming, outgoing, votes)
            assert is_quorum(incoming, outgoing, granted) is won
            assert (jointly_agreed(incoming, outgoing, lambda voter: int(voter in granted)) >= 1) is won  # noqa: B023  # called at once


def test_majorities_of_neighbouring_configurations_overlap() -> None:
    """Any majority of n voters meets any majority of n + 1 voters: why one server at a time is safe."""
    for count in range(1, 7):
        before, after = IDS[:count], IDS[: count + 1]
        assert all(one & other for one in naive_majorities(before) for other in naive_majorities(after))
        assert majority(count) == min(map(len, naive_majorities(before)))


def test_an_empty_group_agrees_to_everything() -> None:
    """Nobody to ask commits at infinity and wins, so a configuration outside a joint change is no special case."""
    assert agreed((), lambda _: 0) == INFINITY
    assert vote((), {}) is VoteResult.WON
    assert is_quorum("a", "", ["a"])


def test_answers_of_strangers_do_not_count() -> None:
    """Votes of ids outside the group change nothing."""
    assert vote("abc", {"a": True, "x": True, "y": True}) is VoteResult.PENDING
    assert vote("abc", {"a": True, "x": False, "y": False}) is VoteResult.PENDING
