"""One node of PySyncObj with a replicated dictionary, behind the smallest HTTP that the load speaks: a program of its own, started by ``systems``.

    python pysyncobj_node.py PORT RAFT_ADDRESS JOURNAL OTHER_ADDRESS ...

``PUT /v1/kv/KEY`` is answered when the library reports the value as replicated and applied, ``GET /v1/kv/KEY`` at once from this node's dictionary:
the library has no read that asks anybody else. ``GET /status`` tells who leads. The library ticks in a thread of its own, as it does by default; its
journal is kept in a file, which it does not sync.
"""

import asyncio
import json
import sys
from collections import deque
from functools import partial
from importlib.metadata import version
from typing import cast

import uvloop
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.batteries import ReplDict

ANSWERS = {True: b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue", False: b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"}
MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class Store:
    """The replicated dictionary; outcomes come back from the library's thread in batches, with one waking of the loop for many."""

    def __init__(self, own: str, others: list[str], journal: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._dictionary = ReplDict()
        self._cluster = SyncObj(own, others, conf=SyncObjConf(journalFile=journal), consumers=[self._dictionary])
        self._outcomes: deque[tuple[asyncio.Transport, bool]] = deque()
        self._woken = False

    def put(self, key: str, value: bytes, client: asyncio.Transport) -> None:
        """Replicate, and answer the client later."""
        self._dictionary.set(key, value, callback=partial(self._done, client))

    def get(self, key: str) -> bytes | None:
        """What this node has."""
        found: bytes | None = self._dictionary.get(key)
        return found

    def status(self) -> bytes:
        """Who leads, as this node knows it."""
        leader = self._cluster._getLeader()  # noqa: SLF001  (the library offers no other way)
        return json.dumps({"leader": str(leader) if leader else "", "ready": self._cluster.isReady(), "version": version("pysyncobj")}).encode()

    def _done(self, client: asyncio.Transport, _result: object, reason: int) -> None:
        self._outcomes.append((client, reason == 0))
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        self._woken = False  # before looking: what is added from now on wakes again
        while self._outcomes:
            client, good = self._outcomes.popleft()
            client.write(ANSWERS[good])


class Client(asyncio.Protocol):
    """One connection: a request, its answer, and the next."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class, of no kin

    def data_received(self, data: bytes) -> None:
        """Answer as soon as a request is whole."""
        self._rest += data
        head, found, body = self._rest.partition(b"\r\n\r\n")
        at = head.find(b"Content-Length: ")
        if not found or (at >= 0 and len(body) < int(head[at + 16 :].partition(b"\r")[0])):
            return
        self._rest = b""
        method, target = head.split(b" ", 2)[:2]
        key = target.partition(b"?")[0].removeprefix(b"/v1/kv/").decode()
        if method == b"PUT":
            self._store.put(key, body, self._transport)
            return
        value = self._store.status() if target == b"/status" else self._store.get(key)
        self._transport.write(MISSING if value is None else b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(value), value))


async def serve(port: int, own: str, journal: str, others: list[str]) -> None:
    """Serve until the process ends."""
    store = Store(own, others, journal)
    server = await asyncio.get_running_loop().create_server(lambda: Client(store), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]))
