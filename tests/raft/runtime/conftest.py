"""What the tests of the running server share."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest


def raft_threads() -> list[str]:
    """Threads of servers that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("raft-")]


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a scenario on a loop of its own; it must leave no task and no thread of a server behind, and no error unheard."""

    def run_it(scenario: Coroutine[Any, Any, None]) -> None:
        unheard: list[dict[str, Any]] = []

        async def whole() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unheard.append(context))
            await scenario
            mine = asyncio.current_task()
            assert [task for task in asyncio.all_tasks() if task is not mine] == []

        asyncio.run(whole())
        assert raft_threads() == []
        assert unheard == []

    return run_it
