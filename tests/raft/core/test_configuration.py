"""Configurations that come from outside: what must not be believed is refused by name, whatever the bytes are."""

import json
from typing import Any

import pytest

from raft.core.membership import decode_configuration, encode_configuration
from raft.core.model import Configuration, Promotion
from raft.errors import MalformedMessage
from raft.testing.cluster import configuration

A, B, C = (list(member) for member in configuration("abc").voters)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"voters": [A], "observers": [B]}, r"the unknown fields \['observers'\]"),
        ({"voters": [[1, "b", "c"]]}, "members are not made of text"),
        ({"voters": [["", "b", "c"]]}, "an empty id, or one twice"),
        ({"voters": [A, A]}, "an empty id, or one twice"),
        ({"voters": [A], "leaves_by_itself": 1}, "leaves by itself: 1"),
        ({"voters": [A, B], "learners": [B]}, "a voter among its learners"),
        ({"voters": [A], "outgoing": [B], "learners": [B]}, "a voter among its learners"),
        ({"voters": [A], "learners_next": [B]}, "a voter among its learners"),
        ({"voters": [A, B], "outgoing": [B], "learners_next": [B]}, "a voter among its learners"),
        ({"voters": [A], "promotions": [["b", None]]}, "a promotion of no learner"),
        ({"voters": [A], "learners": [B], "promotions": [["b", 1]]}, "a promotion of no learner"),
        ({"voters": [A], "learners": [B], "promotions": [[["b"], None]]}, "a promotion of no learner"),
        ({"voters": [A], "promotions": [[]]}, "no configuration"),
    ],
)
def test_a_configuration_that_can_not_be_is_refused(fields: dict[str, Any], text: str) -> None:
    """Each refusal says what is wrong with it."""
    with pytest.raises(MalformedMessage, match=text):
        decode_configuration(json.dumps(fields).encode())


def test_nesting_without_end_is_no_configuration() -> None:
    """Bytes that would exhaust the decoder are malformed like any others."""
    with pytest.raises(MalformedMessage, match="no configuration"):
        decode_configuration(b'{"voters":' + b"[" * 100_000)


def test_a_joint_configuration_survives_its_bytes() -> None:
    """Both halves, learners to be, promotions and the way out come back as they were."""
    found = configuration("abc", "d")
    voters, outgoing = found.voters[:2], found.voters[1:]
    whole = Configuration(voters, found.learners, outgoing, found.voters[2:], leaves_by_itself=True, promotions=(Promotion("d", "a"),))
    assert decode_configuration(encode_configuration(whole)) == whole
