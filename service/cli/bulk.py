"""Writing many keys: a small pool of connections, a bounded number of writes under way, and an account of what became of each."""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from types import FrameType
from uuid import uuid4

from service.cli.console import printable
from service.cli.sources import Record
from service.client import Client, ClientError, Once
from service.errors import UNKNOWN

MESSAGES_MAX = 20
_UNDER_WAY_PER_THREAD = 4
_PAUSE_SECONDS_MIN = 0.1
_PAUSE_SECONDS_MAX = 1.0
FORGOTTEN = 409

Digest = tuple[bytes, int]


@dataclass(slots=True)
class Tally:
    """What became of the records. ``rejected`` were certainly not written, ``unknown`` may have been, ``unreadable`` could not be read."""

    written: int = 0
    unchanged: int = 0
    rejected: int = 0
    unknown: int = 0
    unreadable: int = 0
    not_tried: int = 0
    bytes_written: int = 0
    messages: list[str] = field(default_factory=list)

    def complain(self, message: str) -> None:
        """Keep a message; beyond the first few they are only counted."""
        if len(self.messages) < MESSAGES_MAX:
            self.messages.append(message)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one record: the name of the counter, and what to tell."""

    counter: str
    message: str = ""
    size: int = 0


def digest(value: bytes, flags: int) -> Digest:
    """What is compared to find out whether a key is as it should be."""
    return sha256(value).digest(), flags


class BulkWriter:
    """Writes records in no particular order.

    :param connect: makes a client; each thread has its own.
    :param parallel: how many writes run at the same time.
    :param patience_seconds: how long a write that did not succeed for a passing reason (no leader, no connection) is tried again.
    :param since: a log index of a kvorum from before the first write. With it, a write whose outcome is unknown is tried again too, under a key of
        its own, so that it takes effect once. With 0 it never is.
    :param known: what is stored already, by key; records equal to it are left alone.
    """

    def __init__(
        self, connect: Callable[[], Client], parallel: int, patience_seconds: float, *, since: int = 0, known: Mapping[str, Digest] | None = None
    ) -> None:
        self._connect = connect
        self._parallel = parallel
        self._patience_seconds = patience_seconds
        self._since = since
        self._run = uuid4().hex
        self._known = known or {}
        self._mine = threading.local()
        self._clients: list[Client] = []
        self._stopping = threading.Event()
        self.stopped_by: signal.Signals | None = None

    def write(self, records: Iterable[Record], advance: Callable[[], None]) -> Tally:
        """Write all. On Ctrl-C or SIGTERM what is under way is awaited and counted, and the rest is not tried; a second signal ends at once.

        Call it in the main thread.

        :param advance: called after each record.
        :returns: the account; :attr:`stopped_by` tells whether a signal ended it early.
        """
        tally = Tally()
        waiting = iter(records)
        under_way: set[Future[_Outcome]] = set()
        with self._signals_noted(), self._closing_clients(), ThreadPoolExecutor(self._parallel) as pool:
            while True:
                while len(under_way) < self._parallel * _UNDER_WAY_PER_THREAD and (record := next(waiting, None)) is not None:
                    under_way.add(pool.submit(self._write_one, record))
                if not under_way:
                    return tally
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    _count(tally, future.result())
                    advance()

    @contextmanager
    def _signals_noted(self) -> Iterator[None]:
        """Signals only raise a flag here: an exception out of nowhere could lose count of a write that has left."""
        previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.stopped_by is not None:
            raise KeyboardInterrupt
        self.stopped_by = signal.Signals(number)
        self._stopping.set()

    def _write_one(self, record: Record) -> _Outcome:
        if self._stopping.is_set():
            return _Outcome("not_tried")
        try:
            value = record.read()
        except OSError as error:
            return _Outcome("unreadable", f"{error.filename}: {error.strerror}")
        if record.key in self._known and self._known[record.key] == digest(value, record.flags):
            return _Outcome("unchanged")
        return self._put(record, value)

    def _put(self, record: Record, value: bytes) -> _Outcome:
        give_up_at = time.monotonic() + self._patience_seconds
        pause = _PAUSE_SECONDS_MIN
        once, worst = self._once(record.key), "rejected"
        while True:
            try:
                self._client().put(record.key, value, flags=record.flags, once=once)
            except ClientError as error:
                worst = UNKNOWN if UNKNOWN in {worst, error.outcome} else worst
                if not _passing(error, once) or time.monotonic() + pause > give_up_at or self._stopping.wait(pause):
                    # A node that can't be reached for so long will not take the other keys either.
                    if error.status == 0 and error.outcome != UNKNOWN:
                        self._stopping.set()
                    return _Outcome(worst, f"{printable(record.key)}: {error}")
                pause = min(2 * pause, _PAUSE_SECONDS_MAX)
            else:
                return _Outcome("written", size=len(value))

    def _once(self, key: str) -> Once | None:
        """The key of a write: that of no other run and of no other record."""
        if not self._since:
            return None
        return Once(f"{self._run}-{sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()}", max(self._since, self._client().index))

    def _client(self) -> Client:
        if not hasattr(self._mine, "client"):
            self._mine.client = self._connect()
            self._clients.append(self._mine.client)
        return self._mine.client  # type: ignore[no-any-return]  # what threading.local holds has no type

    @contextmanager
    def _closing_clients(self) -> Iterator[None]:
        try:
            yield
        finally:
            for client in self._clients:
                client.close()


def _passing(error: ClientError, once: Once | None) -> bool:
    """Whether another attempt may succeed, and can do no harm. A node that has forgotten the key says so with a status of its own."""
    return error.retryable or (once is not None and error.outcome == UNKNOWN and error.status != FORGOTTEN)


def _count(tally: Tally, outcome: _Outcome) -> None:
    setattr(tally, outcome.counter, getattr(tally, outcome.counter) + 1)
    tally.bytes_written += outcome.size
    if outcome.message:
        tally.complain(outcome.message)
