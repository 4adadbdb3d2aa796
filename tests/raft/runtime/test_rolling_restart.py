"""One server after the other is stopped and started: how often leadership moves, and who gets it."""

from collections.abc import Callable, Coroutine
from itertools import permutations
from typing import Any

import pytest

from raft.testing.servers import Servers, until

Run = Callable[[Coroutine[Any, Any, None]], None]


async def restart_all(servers: Servers, order: tuple[str, ...]) -> list[str]:
    """Retire, stop and start each server, as an operator would: the next once the one before is back.

    :returns: who led, one after the other.
    """
    leaders = [await servers.led()]
    for name in order:
        await servers[name].retire(5)
        rest = [other for other in servers.names if other != name]
        leaders.append(await servers.led(*rest))
        contact = servers[leaders[-1]].driver.contact
        await servers.stop(name)
        await until(lambda name=name, contact=contact: contact.is_lost(name), "the leader has noticed that it is away")  # type: ignore[misc]  # mypy can't infer it
        await servers.start(name)
        leaders.append(await servers.led())
        await servers[leaders[-1]].propose([b"after " + name.encode()])
        await until(lambda: len({machine.position for machine in servers.machines.values()}) == 1, "all have caught up")
    return [leader for number, leader in enumerate(leaders) if number == 0 or leader != leaders[number - 1]]


@pytest.mark.parametrize("order", list(permutations("abc")), ids="".join)
def test_leadership_moves_twice_at_most(run: Run, order: tuple[str, ...]) -> None:
    """In whatever order, leadership goes to a server that was restarted already where there is one: two moves and elections at most."""

    async def scenario() -> None:
        async with Servers("abc", keeps=True) as servers:
            while (leader := await servers.led()) != order[0]:  # the worst place to begin: somebody else has to take over at once
                await servers[leader].barrier()
                await servers[leader].transfer(order[0])
            term = servers[leader].status().term
            led = await restart_all(servers, order)
            moves = len(led) - 1
            assert moves == 2, led
            assert servers[led[-1]].status().term - term == moves

    run(scenario())
