"""Random requests: well-formed ones are answered as gunicorn's worker does, malformed ones hide none."""

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.service.worker import fuzz
from tests.service.worker.serving import Seen

SEED = 20_260
CASES = 1_000
"""About three thousand requests; `python -m tests.service.worker.fuzz` sends any number."""


def test_random_requests() -> None:
    """Whatever a client sends and however it is cut: nothing fails, nothing is hidden, what is well-formed is answered as by gunicorn."""
    malformed = 0
    for seed in range(SEED, SEED + CASES):
        case = fuzz.make_case(random.Random(seed))
        malformed += case.mutated
        assert fuzz.check(case) == "", f"python -m tests.service.worker.fuzz --requests 1 --seed {seed}"
    assert CASES // 3 < malformed < CASES * 2 // 3


def test_what_counts_as_hidden() -> None:
    """The comparison notices a request that only one of two servers sees, and one with another body; fewer are no harm."""
    get, put = Seen("GET", "/", b""), Seen("PUT", "/", b"v")
    assert fuzz.is_within([get], [get, put])
    assert fuzz.is_within([put], [put._replace(body=None)])
    assert not fuzz.is_within([get, put], [get])
    assert not fuzz.is_within([put], [put._replace(body=b"w")])
    assert not fuzz.is_within([put], [get])
