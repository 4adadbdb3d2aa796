"""The examples run."""

import asyncio

from raft.examples import counter


def test_counter() -> None:
    """Three nodes agree on the sum of what was added at each of them."""
    assert asyncio.run(counter.main()) == [55, 55, 55]
