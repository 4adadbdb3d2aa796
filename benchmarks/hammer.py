"""A closed loop to some nodes (``benchmarks.compare.load``) that gives figures or fails: with a time to warm up, and a hook at both ends of what is
measured, for those who look at the nodes' processes meanwhile.

It measures what a cluster can do when it is always busy: the rate, and how long one of so many clients waits. The generator takes part in the
machine's load; its own processor time is told beside the others'.
"""

import asyncio
import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from urllib.parse import urlsplit

import uvloop

from benchmarks.compare.load import Address, Closed, Figures

WHOLE_SECONDS = 3600.0
"""How long requests may take that are to be sent to the last one."""


class LoadFailed(Exception):
    """The run says nothing: a connection broke, an answer was not 2xx, or requests or answers did not come in time."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run saw.

    :ivar seconds: that were measured.
    :ivar latencies: of the answers within them, in seconds, in order of their size.
    """

    seconds: float
    latencies: list[float]

    @property
    def answers(self) -> int:
        """How many requests were answered."""
        return len(self.latencies)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """The latency that so many percent of the answers did not exceed, in milliseconds."""
        return self.latencies[min(self.answers - 1, int(self.answers * percent / 100))] * 1000


class _Watched(Closed):
    """A closed loop of which a part is measured.

    :ivar marks: the moments at which that began and ended.
    """

    def __init__(self, requests: Iterator[bytes], warm_seconds: float, seconds: float, watch: Callable[[], None]) -> None:
        super().__init__(requests, warm_seconds + seconds)
        self.marks: list[float] = []
        self._ends = warm_seconds, warm_seconds + seconds
        self._watch = watch

    def begin(self) -> None:
        """Start the clocks, and ask."""
        loop = asyncio.get_running_loop()
        for seconds in self._ends:
            loop.call_later(seconds, self._mark)
        super().begin()

    def _mark(self) -> None:
        # What the hook itself takes is outside: the clock begins after it, and ends before it.
        if self.marks:
            self.marks.append(monotonic())
            self._watch()
        else:
            self._watch()
            self.marks.append(monotonic())


def run(
    urls: Sequence[str], requests: Iterator[bytes], connections: int, *, seconds: float, warm_seconds: float, watch: Callable[[], None]
) -> Measured:
    """Send requests for some time.

    :param urls: of the nodes; the connections are dealt out to them in turn.
    :param requests: whole requests, heads and bodies; they must not end.
    :param seconds: how long it is measured.
    :param warm_seconds: how long the same load lasts before that.
    :param watch: called at the beginning and at the end of the measured time.
    :raises LoadFailed: when a connection broke, an answer was not 2xx or did not come, or there was none.
    """
    load = _Watched(requests, warm_seconds, seconds, watch)
    figures = _carried_out(load, urls, connections)
    if len(load.marks) < 2:
        raise LoadFailed("the requests ended before the time")
    began, ended = load.marks
    latencies = sorted(took for moment, took in zip(figures.ended, figures.latencies, strict=True) if began <= moment <= ended)
    if not latencies:
        raise LoadFailed(f"no answer within {ended - began:.1f} s")
    return Measured(ended - began, latencies)


def send_all(urls: Sequence[str], requests: Iterator[bytes], connections: int) -> float:
    """Send requests to the last one.

    :returns: the seconds from the first request to the last answer.
    :raises LoadFailed: when one of them was not answered 2xx, or they are too many.
    """
    figures = _carried_out(Closed(requests, WHOLE_SECONDS), urls, connections)
    if next(requests, None) is not None or not figures.ended:
        raise LoadFailed(f"{len(figures.ended)} requests were answered, and not all were sent within {WHOLE_SECONDS:g} s")
    return figures.ended[-1] - figures.began


def _carried_out(load: Closed, urls: Sequence[str], connections: int) -> Figures:
    gc.disable()  # nothing here makes cycles, and a collection would be a pause of the generator's own
    try:
        figures = uvloop.run(load.run(tuple(_address(url) for url in urls), connections))
    except OSError as error:
        raise LoadFailed(f"can't connect to {', '.join(urls)}: {error}") from error
    finally:
        gc.enable()
    if figures.bad:
        raise LoadFailed(f"{len(figures.ended)} good answers, {len(figures.refused)} of another status, {figures.unanswered} unanswered")
    return figures


def _address(url: str) -> Address:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0
