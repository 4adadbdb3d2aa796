"""Compares the state's file with the sums of its pages while the node runs: at start this happens once, but a disk goes on ageing.

It reads at a bounded rate, round and round; when a worker meets damage it reads everything at once.
"""

import asyncio
import logging

from service.agent.machine import ObservedMachine

log = logging.getLogger(__name__)


class Scrubber:
    """See the module's text. All on the loop's thread; the reading itself runs in threads.

    :param mebibytes_per_second: how fast it reads; 0: only on suspicion.
    """

    def __init__(self, machine: ObservedMachine, mebibytes_per_second: int) -> None:
        self._machine = machine
        self._pause = 1 / mebibytes_per_second if mebibytes_per_second else None
        self._suspected = asyncio.Event()

    def suspect(self) -> None:
        """Somebody could not read the state: compare everything, now."""
        self._suspected.set()

    async def run(self) -> None:
        """Read on and on.

        :raises StorageCorrupt: when a page is not what was written: the node must not go on.
        """
        while True:
            try:
                await asyncio.wait_for(self._suspected.wait(), self._pause)
            except TimeoutError:
                await asyncio.to_thread(self._machine.check_some)
                continue
            self._suspected.clear()
            log.warning("a worker could not read the state: all of it is compared with its sums")
            await asyncio.to_thread(self._machine.check_all)
