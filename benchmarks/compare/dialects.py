"""The same requests in the words of each server: whole bytes, ready to be sent. Every write carries a value that was never written before.

A repeated value would be a write that changes nothing, which some servers answer sooner. All reads ask for keys that are there (``fill``).
"""

import base64
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator

KEYS = 10_000
LISTED_KEYS = 1_000
VALUE_BYTES = 128
TRANSACTION_OPERATIONS = 64
MIXED_WRITES_EVERY = 10
DRAWS = 100_000
SEED = 1
STRIDE = 7_919
"""Coprime to ``KEYS``: steps of this size come by every key, in an order that looks like none, without repeating one in a transaction."""

Requests = Iterator[bytes]


def names() -> list[str]:
    """The keys that are read and written."""
    return [f"bench/k{number}" for number in range(1, KEYS + 1)]


def listed_names() -> list[str]:
    """The keys that are listed."""
    return [f"list/k{number:04}" for number in range(LISTED_KEYS)]


def values() -> Iterator[bytes]:
    """Values of 128 bytes, each new, in the next run too: they count from the nanosecond in which they are asked for."""
    pad = b"x" * (VALUE_BYTES - 16)
    return (b"%016x" % number + pad for number in itertools.count(time.time_ns()))


def drawn(things: list[bytes]) -> Iterator[bytes]:
    """One of them, each time drawn anew; the same draws in each run. Who asked in turn would ask for what a cache has just dropped."""
    return itertools.cycle(random.Random(SEED).choices(things, k=DRAWS))


def in_turn(things: list[bytes]) -> Iterator[bytes]:
    """All of them again and again, in the same order that looks like none."""
    return itertools.cycle([things[number * STRIDE % len(things)] for number in range(len(things))])


def batches(heads: list[bytes], tail: bytes) -> Iterator[bytes]:
    """64 operations of JSON at a time, each a head, a new value in base64 and the tail. An encoder would take a fifth of a processor."""
    operations = (head + base64.b64encode(value) + tail for head, value in zip(in_turn(heads), values(), strict=False))
    while True:
        yield b",".join(itertools.islice(operations, TRANSACTION_OPERATIONS))


def text(value: bytes) -> str:
    """A value as JSON carries it."""
    return base64.b64encode(value).decode()


class Consul:
    """The paths of Consul, which are kvorum's; the small front of PySyncObj knows the first two.

    :param token: sent with each request; none when empty.
    """

    def __init__(self, token: str = "") -> None:
        self._headers = b" HTTP/1.1\r\nHost: bench\r\n" + (f"X-Consul-Token: {token}\r\n".encode() if token else b"")

    def fill(self) -> Requests:
        """Every key once."""
        return (self._put(name, value) for name, value in zip([*names(), *listed_names()], values(), strict=False))

    def put(self, query: str) -> Requests:
        """A new value for one key."""
        del query
        heads = drawn([b"PUT /v1/kv/" + name.encode() + self._headers + b"Content-Length: %d\r\n\r\n" % VALUE_BYTES for name in names()])
        return map(bytes.__add__, heads, values())

    def get(self, query: str) -> Requests:
        """One key."""
        return drawn([b"GET /v1/kv/" + name.encode() + query.encode() + self._headers + b"\r\n" for name in names()])

    def mixed(self, query: str) -> Requests:
        """One write among nine reads."""
        return mix(self.put(query), self.get(query))

    def txn(self, query: str) -> Requests:
        """64 writes in one transaction."""
        del query
        operations = batches([b'{"KV":{"Verb":"set","Key":"%s","Value":"' % name.encode() for name in names()], b'"}}')
        return (self._with_body(b"PUT /v1/txn", b"[%s]" % some) for some in operations)

    def list(self, query: str) -> Requests:
        """The thousand keys below one prefix, with their values."""
        del query
        return itertools.repeat(b"GET /v1/kv/list/?recurse" + self._headers + b"\r\n")

    def _put(self, name: str, value: bytes) -> bytes:
        return self._with_body(b"PUT /v1/kv/" + name.encode(), value)

    def _with_body(self, line: bytes, body: bytes) -> bytes:
        return line + self._headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


class Etcd:
    """The JSON gateway that every etcd has, the only way to it without gRPC: keys and values in base64."""

    def __init__(self, token: str = "") -> None:
        if token:
            raise ValueError("etcd is measured without tokens")

    def fill(self) -> Requests:
        """Every key once."""
        return (
            _post("put", {"key": text(name.encode()), "value": text(value)})
            for name, value in zip([*names(), *listed_names()], values(), strict=False)
        )

    def put(self, query: str) -> Requests:
        """A new value for one key."""
        del query
        length = len(_body({"key": "", "value": text(b"x" * VALUE_BYTES)}))
        heads = []
        for name in names():
            key = text(name.encode())
            heads.append(_head("put", length + len(key)) + b'{"key":"%s","value":"' % key.encode())
        return (head + base64.b64encode(value) + b'"}' for head, value in zip(drawn(heads), values(), strict=False))

    def get(self, query: str) -> Requests:
        """One key; as every member has it when the query is ``?stale``, else agreed by a quorum, whatever the query."""
        more = {"serializable": True} if query == "?stale" else {}
        return drawn([_post("range", {"key": text(name.encode()), **more}) for name in names()])

    def mixed(self, query: str) -> Requests:
        """One write among nine reads."""
        return mix(self.put(query), self.get(query))

    def txn(self, query: str) -> Requests:
        """64 writes in one transaction."""
        del query
        puts = batches([b'{"requestPut":{"key":"%s","value":"' % text(name.encode()).encode() for name in names()], b'"}}')
        return (_with_body("txn", b'{"success":[%s]}' % some) for some in puts)

    def list(self, query: str) -> Requests:
        """The thousand keys below one prefix, with their values."""
        del query
        return itertools.repeat(_post("range", {"key": text(b"list/"), "range_end": text(b"list0")}))


def mix(writes: Requests, reads: Requests) -> Requests:
    """One of the first, then nine of the second, and so on."""
    while True:
        yield next(writes)
        yield from itertools.islice(reads, MIXED_WRITES_EVERY - 1)


def _body(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _head(method: str, length: int) -> bytes:
    return f"POST /v3/kv/{method} HTTP/1.1\r\nHost: bench\r\nContent-Length: {length}\r\n\r\n".encode()


def _post(method: str, content: object) -> bytes:
    return _with_body(method, _body(content))


def _with_body(method: str, body: bytes) -> bytes:
    return _head(method, len(body)) + body


DIALECTS: dict[str, Callable[[str], Consul | Etcd]] = {"consul": Consul, "etcd": Etcd}
