"""Asks a server over many connections and takes the time of every answer: a closed loop, or an open one.

**Closed**: each connection sends its next request as soon as it has an answer. This finds out how much a server can do. It says little about how long
people wait: while the server pauses nobody asks, so a pause of a second is one slow answer a connection.

**Open**: requests arrive at a fixed rate, whatever the server does, and wait for a free connection. Each one's latency is counted from the moment
in which it arrived, so all that arrive during a pause wait for its end, and are counted (otherwise called: coordinated omission is avoided).

One thread, a socket a connection, one request at a time on each. Requests are whole bytes from an iterator; of an answer only its status and its end
are looked for. What that costs is measured too (``Figures.cpu_seconds``).
"""

import asyncio
import gc
import itertools
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

import uvloop

from benchmarks.compare.timer import Timer

Address = tuple[str, int]

ANSWER_SECONDS = 10.0
"""How long answers are waited for after the last request; what has none by then is called unanswered."""
CONNECTING_AT_ONCE = 64
TICK_SECONDS = 0.0002
"""How often arrivals are looked for where more than one falls into it: fewer wakings leave more of the processors to the server."""


@dataclass
class Figures:
    """What was seen. Times are seconds, moments those of ``time.monotonic``, the same for all processes of a machine.

    :ivar seconds: for how long requests were sent.
    :ivar ended: when each answer of status 2xx was complete.
    :ivar latencies: how long it took, in the same order.
    :ivar refused: when each answer of another status was complete.
    :ivar unanswered: requests without an answer: their connection broke, or time was up.
    :ivar lags: open loop only: how much later than it arrived a request was sent although a connection was free, which is the asker's own fault.
    :ivar cpu_seconds: what the asker itself took of a processor.
    """

    seconds: float
    began: float = 0.0
    ended: "array[float]" = field(default_factory=lambda: array("d"))
    latencies: "array[float]" = field(default_factory=lambda: array("d"))
    refused: "array[float]" = field(default_factory=lambda: array("d"))
    unanswered: int = 0
    lags: "array[float]" = field(default_factory=lambda: array("d"))
    cpu_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Good answers a second, of those that came while requests were sent."""
        until = self.began + self.seconds
        return sum(moment <= until for moment in self.ended) / self.seconds

    @property
    def bad(self) -> int:
        """Requests that were not answered 2xx."""
        return len(self.refused) + self.unanswered


def quantile(values: "array[float]", share: float) -> float:
    """The smallest value that at least this share of all are not above; 0 when there are none."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def status_when_whole(data: bytes) -> int:
    """The first digit of an answer's status; 0 while its end has not come."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return 0
    at = data.find(b"Content-Length: ", 0, head)
    # Without a length it comes in chunks, of which the last is empty.
    whole = len(data) >= head + 4 + int(data[at + 16 : data.find(b"\r", at)]) if at >= 0 else data.endswith(b"\r\n0\r\n\r\n")
    return data[9] - 48 if whole else 0


class Connection(asyncio.Protocol):
    """One socket with at most one request on it.

    :ivar since: from when on the wait for its answer counts; 0 when nothing is asked.
    """

    def __init__(self, load: "Load") -> None:
        self.since = 0.0
        self.open = False
        self._load = load
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class, of no kin
        self.open = True

    def send(self, request: bytes, since: float) -> None:
        """Ask."""
        self.since = since
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Look for the end of the answer."""
        if self._rest:
            data = self._rest + data
        status = status_when_whole(data)
        if status == 0:
            self._rest = data
            return
        self._rest = b""
        self._load.answered(self, status == 2)

    def connection_lost(self, error: Exception | None) -> None:
        """Whatever was asked here stays unanswered; nobody asks here again."""
        del error
        self.open = False
        self._load.lost(self)

    def close(self) -> None:
        """Let go of the socket."""
        self._transport.abort()


class Load:
    """What both loops share: connections, records, and the end.

    :param requests: whole requests; when it ends, so does the load.
    :ivar waiting: when those arrived that no connection was free for. A closed loop has none.
    """

    def __init__(self, requests: Iterator[bytes], seconds: float) -> None:
        self.figures = Figures(seconds)
        self.connections: list[Connection] = []
        self.outstanding = 0
        self.until = 0.0
        self.sending = True
        self.waiting: deque[float] = deque()
        self._requests = requests
        self._over = asyncio.Event()

    async def run(self, addresses: tuple[Address, ...], connections: int, begun: Callable[[], object] = lambda: None) -> Figures:
        """Connect, ask until the time is up, and wait for the answers.

        :param connections: in all; they go to the addresses in turn.
        :param begun: called when they are made.
        """
        loop = asyncio.get_running_loop()
        places = list(itertools.islice(itertools.cycle(addresses), connections))
        for start in range(0, connections, CONNECTING_AT_ONCE):
            some = places[start : start + CONNECTING_AT_ONCE]
            made = await asyncio.gather(*(loop.create_connection(lambda: Connection(self), *place) for place in some))
            self.connections += [protocol for _, protocol in made]
        begun()
        cpu, self.figures.began = time.process_time(), time.monotonic()
        self.until = self.figures.began + self.figures.seconds
        self.begin()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), self.figures.seconds + ANSWER_SECONDS)
        self.end()
        self.figures.cpu_seconds = time.process_time() - cpu
        self.figures.unanswered += self.outstanding + len(self.waiting)
        for connection in self.connections:
            connection.since = 0.0
            connection.close()
        return self.figures

    def ask(self, connection: Connection, since: float) -> bool:
        """Send the next request.

        :returns: whether there was one.
        """
        request = next(self._requests, None)
        if request is None:
            self.sending = False
            return False
        self.outstanding += 1
        connection.send(request, since)
        return True

    def answered(self, connection: Connection, good: bool) -> None:
        """An answer is whole: note it, and go on."""
        now, figures = time.monotonic(), self.figures
        self.outstanding -= 1
        if good:
            figures.ended.append(now)
            figures.latencies.append(now - connection.since)
        else:
            figures.refused.append(now)
        connection.since = 0.0
        self.free(connection, now)
        self.check()

    def lost(self, connection: Connection) -> None:
        """A connection broke: what it had asked has no answer."""
        if connection.since:
            connection.since = 0.0
            self.outstanding -= 1
            self.figures.unanswered += 1
        self.check()

    def check(self) -> None:
        """Is it over?"""
        if self.outstanding == 0 and (not any(connection.open for connection in self.connections) or not (self.sending or self.waiting)):
            self._over.set()

    def begin(self) -> None:
        """Send the first requests."""
        raise NotImplementedError

    def free(self, connection: Connection, now: float) -> None:
        """A connection has its answer."""
        raise NotImplementedError

    def end(self) -> None:
        """Nothing is sent any more."""


class Closed(Load):
    """Every connection asks again as soon as it has an answer."""

    def begin(self) -> None:
        """All ask at once."""
        for connection in self.connections:
            if connection.open:
                self.ask(connection, time.monotonic())
        self.check()

    def free(self, connection: Connection, now: float) -> None:
        """Ask again."""
        if now < self.until:
            self.ask(connection, now)
        else:
            self.sending = False


class Open(Load):
    """Requests arrive at a fixed rate and wait for a connection.

    :param rate: arrivals a second.
    """

    def __init__(self, requests: Iterator[bytes], seconds: float, rate: float) -> None:
        super().__init__(requests, seconds)
        self._rate = rate
        self._arrived = 0
        self._idle: deque[Connection] = deque()
        self._timer: Timer | None = None

    def begin(self) -> None:
        """Start the clock."""
        self._idle = deque(self.connections)
        self._timer = Timer(max(1 / self._rate, TICK_SECONDS), self._arrive)
        self._arrive()  # the first, for which no tick comes

    def _arrive(self) -> None:
        now, began, rate = time.monotonic(), self.figures.began, self._rate
        while (due := began + self._arrived / rate) <= min(now, self.until):
            self._arrived += 1
            self.waiting.append(due)
        while self.waiting and self._idle:
            connection = self._idle.popleft()  # in turn, so that every address gets its share
            if connection.open:
                self.figures.lags.append(now - self.waiting[0])
                self._send(connection)
        if now >= self.until:
            self.end()

    def _send(self, connection: Connection) -> None:
        if not self.ask(connection, self.waiting.popleft()):
            self.waiting.clear()
            self.end()

    def free(self, connection: Connection, now: float) -> None:
        """Take who waits longest."""
        del now
        if self.waiting:
            self._send(connection)
        else:
            self._idle.append(connection)

    def end(self) -> None:
        """Nobody arrives any more; those who wait are still served."""
        self.sending = False
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        self.check()


def run(
    addresses: tuple[Address, ...],
    requests: Iterator[bytes],
    connections: int,
    seconds: float,
    *,
    rate: float = 0.0,
    begun: Callable[[], object] = lambda: None,
) -> Figures:
    """Load some addresses from this process, and give all figures.

    :param seconds: for how long; the rest of the answers is waited for.
    :param rate: arrivals a second of an open loop; 0 for a closed one.
    :param begun: called when all connections are made, just before the first request.
    :raises OSError: it can't connect.
    """

    async def go() -> Figures:
        load = Open(requests, seconds, rate) if rate else Closed(requests, seconds)
        return await load.run(addresses, connections, begun)

    gc.disable()  # nothing here makes cycles, and a collection would be a pause of the asker's own
    try:
        return uvloop.run(go())
    finally:
        gc.enable()
