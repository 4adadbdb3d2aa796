"""Blocking queries on real processes, by the numbers of the catalogue. WA-02 forces its interleavings inside a worker (``tests/service/api``)."""

import asyncio
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import requests
from cluster import Cluster, Node, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

WATCHERS, SLOW = 1000, 100
WRITES = 400
VALUE_BYTES = 256 * 1024
"""Of the value that slow readers wait for: more than the buffers of a socket hold, so that the worker can't be rid of it."""
WORKER_BYTES_MAX = 400 * 1024 * 1024
SEEN_SECONDS = 90.0


@pytest.mark.parametrize(("target", "key"), [("k?", "k"), ("t/?recurse&", "t/leaf"), ("t/?keys&", "t/leaf"), ("none?", "none")])
def test_wa_01_a_change_ends_the_wait(cluster: Cluster, target: str, key: str) -> None:
    """At each node a query with the last index waits; a write at another node ends it with a later index, else its time does, with the same one."""
    first, second, third = cluster.nodes
    if key != "none":
        assert first.put(key, b"1").text == "true"
    path = f"/v1/kv/{target}"
    index = int(requests.get(f"{second.url}{path}consistent", timeout=15).headers["X-Consul-Index"])
    idle = requests.get(f"{second.url}{path}index={index}&wait=1s", timeout=15)
    assert int(idle.headers["X-Consul-Index"]) == index
    answers: dict[str, requests.Response] = {}

    def wait(node: Node) -> None:
        answers[node.name] = requests.get(f"{node.url}{path}index={index}&wait=120s", timeout=150)

    threads = [threading.Thread(target=wait, args=(node,)) for node in cluster.nodes]
    for thread in threads:
        thread.start()
    for node in cluster.nodes:
        wait_until(lambda node=node: waiting(node) == 1, f"the query waits at {node.name}")
    assert first.put("elsewhere", b"x").text == "true"
    for node in cluster.nodes:  # a round of waiting at each node, during which those that wait stay where they are
        assert requests.get(f"{node.url}/v1/kv/idle?index=1000000&wait=1s", timeout=15).status_code == 404
    assert answers == {}
    assert third.put(key, b"2").text == "true"
    for thread in threads:
        thread.join(60)
    assert {name: answer.status_code for name, answer in answers.items()} == {"n1": 200, "n2": 200, "n3": 200}
    assert all(int(answer.headers["X-Consul-Index"]) > index for answer in answers.values())


def waiting(node: Node) -> float:
    """How many blocking queries wait at a node; it has one worker."""
    lines = requests.get(f"{node.url}/metrics", timeout=15).text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith("kvorum_worker_blocking_queries{"))


class Reader:
    """A watcher on a bare connection.

    :ivar value: the last that it has read.
    """

    def __init__(self, node: Node, key: str, gate: asyncio.Event) -> None:
        self._port = int(node.url.rpartition(":")[2])
        self._key, self._gate = key, gate
        self._read = asyncio.Event()
        self.value = b""
        self.index = 0

    async def run(self) -> None:
        """Ask for the next change, again and again; read an answer only when the gate is open."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1024)
        try:
            while True:
                writer.write(f"GET /v1/kv/{self._key}?raw&index={self.index}&wait=280s HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                await self._gate.wait()
                headers = dict(line.lower().split(b": ", 1) for line in (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[1:] if line)
                self.index = int(headers[b"x-consul-index"])
                self.value = await reader.readexactly(int(headers[b"content-length"]))
                self._read.set()
        finally:
            writer.close()

    async def until(self, value: bytes) -> None:
        """Wait until it has read a value."""
        while self.value != value:
            self._read.clear()
            await self._read.wait()


def memory_bytes(node: Node) -> int:
    """What the workers of a node hold in memory."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in node.worker_pids())


async def write_many(node: Node, key: str, count: int, make: Callable[[int], bytes]) -> list[float]:
    """Write one value after the other.

    :returns: how long each took, in seconds.
    """
    took = []
    session = requests.Session()
    for number in range(count):
        began = time.monotonic()
        answer = await asyncio.to_thread(session.put, f"{node.url}/v1/kv/{key}", data=make(number), timeout=30)
        assert answer.text == "true"
        took.append(time.monotonic() - began)
    return took


def small(number: int) -> bytes:
    """A value."""
    return b"%d" % number


def large(number: int) -> bytes:
    """A value that a slow reader does not take in at once."""
    return b"%-*d" % (VALUE_BYTES, number)


@pytest.mark.slow
def test_wa_07_many_watchers_and_slow_ones(cluster: Cluster) -> None:
    """A thousand watchers, a tenth of whom do not read: each sees the last value, and a worker's memory stays bounded. Prints what writes cost."""

    async def scenario() -> None:
        writer, watched = cluster.nodes[0], cluster.nodes[1]
        alone = await write_many(writer, "fast", 100, small)
        await write_many(writer, "large", 1, large)
        opened, closed = asyncio.Event(), asyncio.Event()
        opened.set()
        quick = [Reader(watched, "fast", opened) for _ in range(WATCHERS - SLOW)]
        slow = [Reader(watched, "large", closed) for _ in range(SLOW)]
        tasks = [asyncio.create_task(one.run()) for one in (*quick, *slow)]
        before = memory_bytes(watched)
        beside = await write_many(writer, "fast", WRITES, small)
        for number in range(5):
            await write_many(writer, "large", 1, lambda _, number=number: large(number))
        held = memory_bytes(watched)
        closed.set()
        try:
            await asyncio.wait_for(asyncio.gather(*(one.until(small(WRITES - 1)) for one in quick)), SEEN_SECONDS)
            await asyncio.wait_for(asyncio.gather(*(one.until(large(4)) for one in slow)), SEEN_SECONDS)
        finally:
            for task in tasks:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks, return_exceptions=True)
        print(f"\nmemory of the workers: {before >> 20} MiB before, {held >> 20} MiB with {SLOW} answers of {VALUE_BYTES >> 10} KiB unread")  # noqa: T201 - figures
        print(f"a write took {figures(alone)} alone, {figures(beside)} beside {WATCHERS} watchers, {WATCHERS - SLOW} of them of its key")  # noqa: T201 - likewise
        assert held < WORKER_BYTES_MAX

    asyncio.run(scenario())


def figures(seconds: list[float]) -> str:
    """Median and 99th percentile."""
    cuts = statistics.quantiles(seconds, n=100)
    return f"{cuts[49] * 1000:.1f} ms (p99 {cuts[98] * 1000:.1f})"
