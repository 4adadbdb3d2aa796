"""A closed loop of HTTP requests: so many connections, each with one request under way, the next as soon as the answer is whole.

It measures what a cluster can do when it is always busy: the rate, and how long one of so many clients waits. What clients wait who come at
moments of their own is another question: a closed loop asks less when answers are late.

The generator is one process and one loop, and knows of HTTP only what the answers of a key-value API need: a length, or chunks without trailers.
It takes part in the machine's load; its own processor time is told beside the others'.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import uvloop

ANSWER_SECONDS = 60.0
"""How long an answer may take before the run is given up."""
CONNECT_AT_ONCE = 64
TOLD_BYTES = 300

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LAST_CHUNK = b"\r\n0\r\n\r\n"


class LoadFailed(Exception):
    """The run says nothing: a connection broke, an answer was not 2xx or did not come. The text tells the first of it."""


@dataclass(slots=True)
class Measured:
    """What one run saw.

    :ivar seconds: that were measured.
    :ivar latencies: of the answers within them, in seconds, in order of their size.
    :ivar refused: how many answers were not 2xx, by status.
    :ivar refusal: the beginning of the first of those.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    refusal: str = ""

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


class _Load:
    """One run: what all connections share.

    :ivar counting: whether answers are within the time that is measured.
    :ivar broken: what ended the run early.
    """

    def __init__(self, requests: Iterator[bytes]) -> None:
        self.measured = Measured()
        self.counting = False
        self.asking = True
        self.broken = ""
        self.rest = asyncio.Event()
        self.under_way = 0
        self.answered_in_all = 0
        self._requests = requests

    def next(self) -> bytes | None:
        """The next request; None when there is none, or the time is over."""
        request = next(self._requests, None) if self.asking else None
        if request is not None:
            self.under_way += 1
        elif self.under_way == 0:
            self.rest.set()
        return request

    def answered(self, status: bytes, seconds: float, told: bytes) -> None:
        """Count an answer."""
        self.under_way -= 1
        self.answered_in_all += 1
        if not status.startswith(b"2"):
            self.measured.refusal = self.measured.refusal or told.decode("latin-1")
            self.measured.refused[status.decode("latin-1")] += 1
        elif self.counting:
            self.measured.latencies.append(seconds)

    def give_up(self, why: str) -> None:
        """End the run: it can't tell anything any more."""
        self.broken = self.broken or why
        self.asking = False
        self.rest.set()


class _Connection(asyncio.Protocol):
    """One client."""

    _transport: asyncio.Transport

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._waits = False
        self._sent = 0.0
        self._head = b""
        self._status = b""
        self._missing = 0
        self._chunked = False
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Nothing is asked before all are connected."""
        self._transport = cast("asyncio.Transport", transport)

    def ask(self) -> None:
        """Send the next request, if there is one."""
        request = self._load.next()
        self._waits = request is not None
        if request is not None:
            self._sent = time.perf_counter()
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Take a part of the answer, and ask again when it is whole."""
        if not self._status:
            self._head += data
            head, blank, data = self._head.partition(b"\r\n\r\n")
            if not blank:
                return
            self._begin(head)
        if self._chunked:
            self._tail = (self._tail + data)[-len(_LAST_CHUNK) :]
            whole = self._tail in {_LAST_CHUNK, _LAST_CHUNK[2:]}
        else:
            self._missing -= len(data)
            whole = self._missing <= 0
        if whole:
            self._load.answered(self._status, time.perf_counter() - self._sent, self._head[:TOLD_BYTES])
            self._head = self._status = self._tail = b""
            self.ask()

    def _begin(self, head: bytes) -> None:
        length = _LENGTH.search(head)
        self._status, self._chunked, self._missing = head[9:12], length is None, int(length[1]) if length else 0
        if length is None and b"chunked" not in head.lower():
            self._load.give_up(f"an answer without a length: {head[:TOLD_BYTES]!r}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody but us may end a connection that waits."""
        if self._waits:
            self._load.give_up(f"a connection broke before its answer: {exc or 'closed by the server'}")

    def close(self) -> None:
        """Let go."""
        self._waits = False
        self._transport.abort()


def run(
    urls: Sequence[str],
    requests: Iterator[bytes],
    connections: int,
    *,
    seconds: float | None = None,
    warm_seconds: float = 0.0,
    watch: Callable[[], None] | None = None,
) -> Measured:
    """Send requests until there are no more, or for some time.

    :param urls: of the nodes; the connections are dealt out to them in turn.
    :param requests: whole requests, heads and bodies.
    :param seconds: how long it is measured; without it the requests must end, and all of them are.
    :param warm_seconds: how long the same load lasts before that.
    :param watch: called at the beginning and at the end of the measured time.
    :raises LoadFailed: when a connection broke, or an answer was not 2xx or did not come in time.
    """
    measured = uvloop.run(_run(urls, requests, connections, seconds=seconds, warm_seconds=warm_seconds, watch=watch or (lambda: None)))
    measured.latencies.sort()
    if measured.refused or not measured.answers:
        raise LoadFailed(f"{measured.answers} answers, and refused: {dict(measured.refused)} {measured.refusal}")
    return measured


async def _run(
    urls: Sequence[str], requests: Iterator[bytes], count: int, *, seconds: float | None, warm_seconds: float, watch: Callable[[], None]
) -> Measured:
    load = _Load(requests)
    connections = await _connect(urls, load, count)
    try:
        load.counting = seconds is None
        if seconds is None:
            await _all(load, connections, watch)
        else:
            await _some_time(load, connections, seconds, warm_seconds, watch)
    finally:
        for connection in connections:
            connection.close()
    if load.broken:
        raise LoadFailed(load.broken)
    return load.measured


async def _all(load: _Load, connections: list[_Connection], watch: Callable[[], None]) -> None:
    watch()
    began = time.perf_counter()
    for connection in connections:
        connection.ask()
    await _to_rest(load)
    load.measured.seconds = time.perf_counter() - began
    watch()


async def _some_time(load: _Load, connections: list[_Connection], seconds: float, warm_seconds: float, watch: Callable[[], None]) -> None:
    for connection in connections:
        connection.ask()
    await _lasting(load, warm_seconds)
    watch()
    load.counting, began = True, time.perf_counter()
    await _lasting(load, seconds)
    load.counting = load.asking = False
    load.measured.seconds = time.perf_counter() - began
    watch()
    await _to_rest(load)


async def _connect(urls: Sequence[str], load: _Load, count: int) -> list[_Connection]:
    loop, addresses = asyncio.get_running_loop(), [urlsplit(url) for url in urls]
    found: list[_Connection] = []
    for first in range(0, count, CONNECT_AT_ONCE):
        targets = [addresses[number % len(addresses)] for number in range(first, min(first + CONNECT_AT_ONCE, count))]
        made = (loop.create_connection(partial(_Connection, load), target.hostname or "", target.port or 80) for target in targets)
        found += [protocol for _, protocol in await asyncio.gather(*made)]
    return found


async def _lasting(load: _Load, seconds: float) -> None:
    """Some time, in which the requests must not end."""
    try:
        async with asyncio.timeout(seconds):
            await load.rest.wait()
    except TimeoutError:
        return
    load.give_up("the requests ended before the time")


async def _to_rest(load: _Load) -> None:
    """Until nothing is under way, as long as answers come."""
    while load.under_way and not load.broken:
        before = load.answered_in_all
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await load.rest.wait()
        except TimeoutError:
            if load.answered_in_all == before:
                load.give_up(f"{load.under_way} answers did not come within {ANSWER_SECONDS:g} s")
