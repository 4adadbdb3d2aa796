"""The process that asks: it is started once, and carries out one order after the other, apart from whoever keeps the clock and kills nodes."""

import multiprocessing
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from types import TracebackType
from typing import Any, Self

from benchmarks.compare import load
from benchmarks.compare.dialects import DIALECTS
from benchmarks.compare.load import Address, Figures, quantile
from benchmarks.compare.system import System

FILL_CONNECTIONS = 256
FILL_SECONDS = 120.0

_begun: Event


@dataclass(frozen=True)
class Order:
    """What to ask.

    :param token: sent with each request; none when empty.
    :param kind: the method of the dialect that makes the requests.
    :param seconds: for how long, unless the requests end before.
    :param rate: arrivals a second of an open loop; 0 for a closed one.
    """

    addresses: tuple[Address, ...]
    dialect: str
    token: str
    kind: str
    query: str
    connections: int
    seconds: float
    rate: float = 0.0


class Asker:
    """Hands orders to its process. Used in a ``with``, which ends the process."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._begun = context.Event()
        self._pool = ProcessPoolExecutor(1, context, _remember, (self._begun,))
        self._pool.submit(int).result()  # it has started, and imported nothing slow while something is measured

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def begin(self, order: Order) -> Future[Figures]:
        """Have it carried out while the caller does something else; all connections are made when this returns.

        :raises Exception: whatever kept them from being made.
        """
        self._begun.clear()
        running = self._pool.submit(_carry_out, order)
        while not self._begun.wait(0.01) and not running.done():
            pass
        if error := running.exception() if running.done() else None:
            raise error
        return running

    def ask(self, order: Order) -> Figures:
        """Have it carried out."""
        return self.begin(order).result()

    def fill(self, system: System) -> None:
        """Write every key that is read later.

        :raises AssertionError: not all writes were acknowledged.
        """
        dialect = DIALECTS[system.dialect]("")
        keys = sum(1 for _ in dialect.fill())
        figures = self.ask(Order(system.roles()[:1], system.dialect, system.token, "fill", "", FILL_CONNECTIONS, FILL_SECONDS))
        assert len(figures.ended) == keys, f"{system.name} acknowledged {len(figures.ended)} of {keys} keys; {figures.bad} were not"


def _remember(begun: Event) -> None:
    global _begun  # noqa: PLW0603  (an event reaches a process only when that starts, and orders come later)
    _begun = begun


def _carry_out(order: Order) -> Figures:
    dialect = DIALECTS[order.dialect](order.token)
    requests = dialect.fill() if order.kind == "fill" else getattr(dialect, order.kind)(order.query)
    return load.run(order.addresses, requests, order.connections, order.seconds, rate=order.rate, begun=_begun.set)


def summary(figures: Figures) -> dict[str, Any]:
    """One run in a few numbers; times in milliseconds."""
    times = {f"p{share * 100:g}".replace(".", "_"): quantile(figures.latencies, share) * 1000 for share in (0.5, 0.9, 0.99, 0.999)}
    return {
        "rate": figures.rate,
        "answered": len(figures.ended),
        "not_2xx": len(figures.refused),
        "unanswered": figures.unanswered,
        "ms": times | {"max": max(figures.latencies, default=0.0) * 1000},
        "asker_cpu_share": figures.cpu_seconds / figures.seconds,
        "asker_late_p99_ms": quantile(figures.lags, 0.99) * 1000,
    }
