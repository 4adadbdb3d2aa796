"""Thousands of blocking queries on one node: what each costs, and how a change reaches those who wait for it. ``make bench-waiters``.

Three nodes on loopback; all queries go to one follower. First ``--idle`` of them wait, each for a key of its own: the memory of the node's processes
(proportional set size) before and after tells what one costs. Then ``--hot`` more wait for one key, which gets a new value: when do the first, the
median and the last of them have it, counted from the moment in which the write is sent? Meanwhile other keys are written and ``/livez`` is asked, one
request at a time: how long do these take? Then the same for as many listings of one prefix.

Ends with 1 when a waiter got a wrong answer or none.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "processes"))

from cluster import Cluster, Node, command_line

WAIT = "10m"
AT_ONCE = 100
"""How many connections are being opened at the same time."""
ANSWER_SECONDS = 60.0
SETTLE_SECONDS = 3.0
RUNS = 5


class Waiter:
    """One connection with a blocking query on it.

    :ivar answered: when its answer came, on the monotonic clock.
    """

    def __init__(self, address: tuple[str, int], target: str, index: int) -> None:
        self._address = address
        self._request = f"GET /v1/kv/{target}index={index}&wait={WAIT} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.answered = 0.0

    async def ask(self) -> None:
        """Connect and send the query."""
        self._streams = await asyncio.open_connection(*self._address)
        self._streams[1].write(self._request)
        await self._streams[1].drain()

    async def answer(self) -> bytes:
        """Wait for the answer's head."""
        assert self._streams is not None
        head = await self._streams[0].readuntil(b"\r\n\r\n")
        self.answered = time.monotonic()
        return head

    def close(self) -> None:
        """Let go."""
        if self._streams is not None:
            self._streams[1].close()


async def ask_all(waiters: list[Waiter]) -> None:
    """Send all queries, some at a time, and let them come to rest."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(waiter: Waiter) -> None:
        async with gate:
            await waiter.ask()

    await asyncio.gather(*(ask(waiter) for waiter in waiters))
    await asyncio.sleep(SETTLE_SECONDS)


async def call(address: tuple[str, int], method: str, target: str, body: bytes = b"") -> tuple[int, dict[str, str]]:
    """One request on a connection of its own: status and headers."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        return int(head[0].split()[1]), {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    finally:
        writer.close()


class Probe:
    """Repeats a request until told to stop, and notes how long each took."""

    def __init__(self, address: tuple[str, int], method: str, target: str) -> None:
        self._request = (address, method, target, b"v" if method == "PUT" else b"")
        self.seconds: list[float] = []
        self.failures = 0
        self.stopping = False

    async def run(self) -> None:
        """Ask again and again."""
        self.stopping = False
        while not self.stopping:
            began = time.monotonic()
            status, _ = await call(*self._request)
            self.seconds.append(time.monotonic() - began)
            self.failures += status != 200

    def told(self) -> str:
        """Median and worst, in milliseconds."""
        return (
            f"{statistics.median(self.seconds) * 1000:.1f} / {max(self.seconds) * 1000:.1f} ms ({len(self.seconds)} requests, {self.failures} failed)"
        )


def memory(node: Node) -> dict[str, int]:
    """Proportional set size of each process of a node, in KiB, by what it is."""
    found: dict[str, int] = {}
    workers = node.worker_pids()
    for pid in node.pids():
        line = command_line(pid)
        name = "worker" if pid in workers else "agent" if "service.agent" in line else "gunicorn" if "gunicorn" in line else "supervisor"
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        found[name] = found.get(name, 0) + int(rollup.partition("\nPss:")[2].split()[0])
    return found


async def wake(node: tuple[str, int], leader: tuple[str, int], target: str, key: str, count: int) -> bool:
    """Let many wait for one change, make it, and print when it reached them; whether all had it."""
    times: list[tuple[float, float, float]] = []
    good = True
    probes = Probe(leader, "PUT", "/v1/kv/beside"), Probe(node, "GET", "/livez")
    for run in range(RUNS):
        _, headers = await call(node, "GET", f"/v1/kv/{target}")
        waiters = [Waiter(node, target, int(headers["x-consul-index"])) for _ in range(count)]
        await ask_all(waiters)
        answers = [asyncio.create_task(waiter.answer()) for waiter in waiters]
        probing = [asyncio.create_task(probe.run()) for probe in probes]
        await asyncio.sleep(0.2)
        sent = time.monotonic()
        await call(leader, "PUT", f"/v1/kv/{key}", b"run %d" % run)
        heads = await asyncio.wait_for(asyncio.gather(*answers), ANSWER_SECONDS)
        for probe in probes:
            probe.stopping = True
        await asyncio.gather(*probing)
        wrong = Counter(head.split(b"\r\n", 1)[0].decode() for head in heads if not head.startswith(b"HTTP/1.1 200"))
        if wrong:
            print(f"  WRONG: {dict(wrong)}")
        good = good and not wrong
        after = sorted(waiter.answered - sent for waiter in waiters)
        times.append((after[0], statistics.median(after), after[-1]))
        for waiter in waiters:
            waiter.close()
    first, median, last = (statistics.median(column) * 1000 for column in zip(*times, strict=True))
    print(f"{count} at /v1/kv/{target:<16} first {first:.1f}, median {median:.1f}, last {last:.1f} ms (medians of {RUNS} runs)")
    for name, probe in zip(("PUT at the leader", "/livez"), probes, strict=True):
        print(f"  meanwhile {name}: median / worst {probe.told()}")
    return good and not any(probe.failures for probe in probes)


async def measure(cluster: Cluster, idle: int, hot: int) -> bool:
    """The whole run; whether every answer was right."""
    follower = cluster.followers()[0]
    node, leader = _address(follower), _address(cluster.leader())
    for key in ("hot", "tree/a"):
        await call(leader, "PUT", f"/v1/kv/{key}", b"0")
    _, headers = await call(node, "GET", "/v1/kv/idle/0?consistent")
    index = int(headers["x-consul-index"])
    warm = [Waiter(node, "warm?", index) for _ in range(AT_ONCE)]
    await ask_all(warm)
    before, began = memory(follower), time.monotonic()
    waiters = [Waiter(node, f"idle/{number}?", index) for number in range(idle)]
    await ask_all(waiters)
    seconds, after = time.monotonic() - began - SETTLE_SECONDS, memory(follower)
    for waiter in warm:
        waiter.close()
    grown = sum(after.values()) - sum(before.values())
    print(f"{idle} blocking queries began within {seconds:.1f} s; KiB each: {grown / idle:.1f}")
    print("  PSS in MiB, before and after: " + ", ".join(f"{name} {before[name] / 1024:.0f} {after[name] / 1024:.0f}" for name in after))
    good = await wake(node, leader, "hot?", "hot", hot)
    good = await wake(node, leader, "tree/?recurse&", "tree/a", hot) and good
    await call(leader, "PUT", "/v1/kv/idle/7", b"x")
    answered = await asyncio.wait_for(waiters[7].answer(), ANSWER_SECONDS)
    for waiter in waiters:
        waiter.close()
    return good and answered.startswith(b"HTTP/1.1 200")


def _address(node: Node) -> tuple[str, int]:
    parts = urlsplit(node.url)
    return parts.hostname or "", parts.port or 0


def main() -> int:
    """Run it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--idle", type=int, default=10_000)
    arguments.add_argument("--hot", type=int, default=2_000)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="kvorum-waiters-") as directory:
        cluster = Cluster(Path(directory))
        try:
            cluster.start_all()
            good = asyncio.run(measure(cluster, options.idle, options.hot))
        finally:
            cluster.stop_all()
    print("every answer was right" if good else "WRONG: an answer was not 200, or none came")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
