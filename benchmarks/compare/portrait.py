"""One system alone: its rate over the number of connections, its latencies when requests arrive at a fixed rate, and what a killed leader costs."""

import time
from array import array
from collections import Counter
from dataclasses import dataclass
from typing import Any

from benchmarks.compare.asker import Asker, Order, summary
from benchmarks.compare.load import Figures
from benchmarks.compare.system import System

KINDS = ("put", "get")
OPEN_CONNECTIONS = 256
OUTAGE_RATE = 200.0
OUTAGE_CONNECTIONS = 2_048
"""So many that each arrival finds a free one, however long requests hang that were on their way to the dead leader."""
OUTAGE_BEFORE_SECONDS = 2.0
SLOT_SECONDS = 0.01
PERCENTILES = 60
"""How many points of a distribution are kept."""


@dataclass(frozen=True)
class Sitting:
    """How long it is looked at.

    :param connections: the numbers that are tried.
    :param seconds: for each of them.
    :param rates: arrivals a second of the open loop, by kind.
    :param open_seconds: of the open loop.
    :param after_seconds: after the kill of the leader.
    """

    connections: tuple[int, ...]
    seconds: float
    rates: dict[str, float]
    open_seconds: float
    after_seconds: float


def throughput(asker: Asker, system: System, kind: str, sitting: Sitting) -> list[dict[str, Any]]:
    """A closed loop at the leader with each number of connections."""
    found = []
    for connections in sitting.connections:
        order = Order(system.roles()[:1], system.dialect, system.token, kind, "", connections, sitting.seconds)
        found.append({"connections": connections, **summary(asker.ask(order))})
    return found


def distribution(asker: Asker, system: System, kind: str, sitting: Sitting) -> dict[str, Any]:
    """An open loop at the leader: what share of requests waited at most how long."""
    order = Order(system.roles()[:1], system.dialect, system.token, kind, "", OPEN_CONNECTIONS, sitting.open_seconds, sitting.rates[kind])
    figures = asker.ask(order)
    return {"arrivals_per_second": sitting.rates[kind], **summary(figures), "distribution": quantiles(figures.latencies)}


def quantiles(latencies: "array[float]") -> list[tuple[float, float]]:
    """Pairs of one by the share that waited longer, and milliseconds: ten for each power of ten, up to the last request."""
    ordered = sorted(latencies)
    rests = [10 ** (step / 10) for step in range(PERCENTILES + 1)]
    return [(rest, ordered[int(len(ordered) * (1 - 1 / rest))] * 1000) for rest in rests if rest <= len(ordered)]


def outage(asker: Asker, system: System, sitting: Sitting) -> dict[str, Any]:
    """Kill the leader under writes that arrive at both followers at a fixed rate."""
    killed_number = system.leader()
    followers = tuple(address for number, address in enumerate(system.addresses) if number != killed_number)
    order = Order(followers, system.dialect, system.token, "put", "", OUTAGE_CONNECTIONS, OUTAGE_BEFORE_SECONDS + sitting.after_seconds, OUTAGE_RATE)
    running = asker.begin(order)
    time.sleep(OUTAGE_BEFORE_SECONDS)
    killed = time.monotonic()
    system.kill(killed_number)
    dead = time.monotonic()
    return {"arrivals_per_second": OUTAGE_RATE, **timeline(running.result(), killed, dead)}


def timeline(figures: Figures, killed: float, dead: float) -> dict[str, Any]:
    """Acknowledged writes by hundredths of a second around the kill, and when the first that arrived after it was acknowledged."""
    slots = Counter(int((moment - killed) // SLOT_SECONDS) for moment in figures.ended)
    after = [ended - killed for ended, took in zip(figures.ended, figures.latencies, strict=True) if ended - took > dead]
    return {
        "acknowledged": len(figures.ended),
        "not_2xx": len(figures.refused),
        "unanswered": figures.unanswered,
        "first_after_kill_ms": min(after, default=float("nan")) * 1000,
        "slots": sorted((round(slot * SLOT_SECONDS, 2), count) for slot, count in slots.items()),
    }
