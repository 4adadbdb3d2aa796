"""An agent that carries out nothing, in a process of its own: what a request costs on its way from a worker and back. See :mod:`micro_service`.

``micro_agent.py SOCKET INDEX``
"""

import asyncio
import sys
import time
from pathlib import Path

import uvloop

from service.ipc import protocol, server
from service.ipc.page import LeasePage

LEASE_NS = 3_600 * 10**9


class Desk:
    """Every command has succeeded, every barrier has passed, and it holds the lease.

    :param index: of the state that reads are about.
    """

    def __init__(self, index: int) -> None:
        self._index = index
        self._page = LeasePage()
        self._page.publish(time.clock_gettime_ns(time.CLOCK_BOOTTIME) + LEASE_NS, index)

    def greet(self, worker: server.Worker) -> None:
        """See the protocol."""
        worker.send(protocol.Configured({}))
        worker.send(protocol.Lease(str(self._page.path)))
        worker.send(protocol.NodeState(True, True, 0.0, self._index, 1, False, ""))

    def handle(self, worker: server.Worker, message: protocol.FromWorker) -> None:
        """See the protocol."""
        if isinstance(message, protocol.Propose):
            worker.send(protocol.Results(message.ids, [b"done"] * len(message.ids)))
        elif isinstance(message, protocol.Barrier):
            worker.send(protocol.BarrierPassed(message.id, self._index, 1))

    def leave(self, worker: server.Worker) -> None:
        """See the protocol."""


async def serve(path: Path, index: int) -> None:
    """Until this process is ended."""
    async with await server.listen(path, Desk(index)) as listening:
        await listening.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
