"""Writers that ask for every kind of write, possible and impossible, through any node, and note what they were told; and readers."""

import base64
import json
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from links import Connection, Reply
from write_log import DONE, REJECTED, UNKNOWN, UNMET, Attempt, Row

PREFIX = "writes/"
KEYS = tuple(f"{PREFIX}{number}" for number in range(12))
TREE = f"{PREFIX}tree/"
TOO_LONG = 512 * 1024 + 1
"""Bytes of a value that no node takes."""
OPERATIONS_TOO_MANY = 65
ATTEMPTS_MAX = 6
PATIENT_SECONDS, IMPATIENT_SECONDS = 4.0, 0.05
"""How long a client waits for its answer before it goes away; and now and then."""
PAUSE_SECONDS = 0.02
NOBODY = "00000000-0000-4000-8000-000000000000"
"""A session that does not exist."""


class Request(NamedTuple):
    """A write as it is asked for. ``values`` is what it would bring."""

    method: str
    path: str
    body: bytes = b""
    values: tuple[bytes, ...] = ()
    headers: Mapping[str, str] = {}


class Writer(threading.Thread):
    """Makes one write after the other.

    :ivar attempts: what it asked and was told.
    :ivar stopping: when it is set the writer ends.
    :ivar dice: its own.
    """

    def __init__(self, number: int, ports: Sequence[int], seed: int) -> None:
        super().__init__(daemon=True, name=f"writer {number}")
        self.attempts: list[Attempt] = []
        self.stopping = threading.Event()
        self._number = number
        self.dice = random.Random(f"{seed} writer {number}")
        self._links = [Connection([port], 0) for port in ports]
        self._count = 0
        self._written = 0
        self._indexes: dict[str, int] = {}
        self._used_key = ""

    def run(self) -> None:
        """Write until told to stop."""
        kinds, weights = zip(*((kind, weight) for kind, (_, weight) in KINDS.items()), strict=True)
        while not self.stopping.is_set():
            [kind] = self.dice.choices(kinds, weights)
            self._written += 1
            self._write(kind, KINDS[kind][0](self, self.dice.choice(KEYS)))
            self.stopping.wait(self.dice.uniform(0, 2 * PAUSE_SECONDS))
        for link in self._links:
            link.close()

    def value(self, part: int = 0) -> bytes:
        """A value of this write, which no other write has."""
        return b"%d-%d-%d" % (self._number, self._written, part)

    def known(self, key: str) -> int:
        """The index of a key as this writer knows it, which may be long past; or that of a key that does not exist."""
        return self._indexes.get(key, 0) if self.dice.random() < 0.9 else 0

    @property
    def used_key(self) -> str:
        """An Idempotency-Key that stands for something else already, if this writer has used one."""
        return self._used_key or "never used"

    def _write(self, kind: str, request: Request) -> None:
        """Ask once; with a key ask again, at any node, as long as nobody knows what became of it."""
        name, headers, attempts = f"{self._number}-{self._written}", dict(request.headers), 1
        if "Idempotency-Key" not in headers and self.dice.random() < 0.4:
            self._used_key = headers["Idempotency-Key"] = f"key {name}"
            attempts = ATTEMPTS_MAX
        for _ in range(attempts):
            if self._attempt(name, kind, request, headers, self.dice.choice(self._links)) != UNKNOWN or self.stopping.wait(PAUSE_SECONDS):
                return

    def put(self, node: int) -> str:
        """Set a key at a certain node, in the caller's thread; the writer must not run.

        :returns: what it was told.
        """
        self._written += 1
        return self._attempt(f"{self._number}-{self._written}", "put", _put(self, self.dice.choice(KEYS)), {}, self._links[node])

    def _attempt(self, name: str, kind: str, request: Request, headers: Mapping[str, str], link: Connection) -> str:
        self._count += 1
        id_ = f"{self._number}.{self._count}"
        seconds = IMPATIENT_SECONDS if self.dice.random() < 0.02 else PATIENT_SECONDS
        reply = link.ask(request.method, request.path, request.body, seconds, {**headers, "X-Request-Id": id_})
        told = outcome(reply)
        if told == DONE:
            self._indexes.update({key: reply.written for key in KEYS if key in request.path})
        self.attempts.append(Attempt(id_, name, kind, request.values, told, reply.status, reply.written))
        return told


def outcome(reply: Reply) -> str:
    """What a client may conclude from an answer."""
    if reply.outcome == UNKNOWN:
        return UNKNOWN
    if reply.status == 200:
        return UNMET if reply.body.strip() == b"false" else DONE
    if reply.status in {409, 412}:  # a transaction that failed, a condition that did not hold
        return UNMET
    return REJECTED if reply.outcome == REJECTED or 400 <= reply.status < 500 else UNKNOWN


def _put(writer: Writer, key: str) -> Request:
    return Request("PUT", f"/v1/kv/{key}", writer.value(), (writer.value(),))


def _cas(writer: Writer, key: str) -> Request:
    return Request("PUT", f"/v1/kv/{key}?cas={writer.known(key)}", writer.value(), (writer.value(),))


def _guarded(writer: Writer, key: str) -> Request:
    return Request("PUT", f"/v1/kv/{key}", writer.value(), (writer.value(),), {"If-Match": f'"{writer.known(key)}"'})


def _delete(_writer: Writer, key: str) -> Request:
    return Request("DELETE", f"/v1/kv/{key}")


def _delete_cas(writer: Writer, key: str) -> Request:
    return Request("DELETE", f"/v1/kv/{key}?cas={writer.known(key)}")


def _leaf(writer: Writer, key: str) -> Request:
    return Request("PUT", f"/v1/kv/{TREE}{key.rpartition('/')[2]}", writer.value(), (writer.value(),))


def _delete_tree(_writer: Writer, _key: str) -> Request:
    return Request("DELETE", f"/v1/kv/{TREE}?recurse")


def _transaction(writer: Writer, key: str) -> Request:
    """Two keys at once, one of a known index; now and then only when a third one does not exist."""
    other = KEYS[(KEYS.index(key) + 1) % len(KEYS)]
    third = KEYS[(KEYS.index(key) + 2) % len(KEYS)]
    first, second = writer.value(0), writer.value(1)
    operations = [_operation("set", key, first), _operation("cas", other, second, writer.known(other)), _operation("check-not-exists", third)]
    return _transacted(operations[: writer.dice.choice((2, 3))], (first, second))


def _both(writer: Writer, key: str) -> Request:
    """Two keys set, one deleted, without a condition."""
    other, third = (KEYS[(KEYS.index(key) + step) % len(KEYS)] for step in (1, 2))
    first, second = writer.value(0), writer.value(1)
    return _transacted([_operation("set", key, first), _operation("set", other, second), _operation("delete", third)], (first, second))


def _operation(verb: str, key: str, value: bytes = b"", index: int = 0) -> dict[str, object]:
    return {"KV": {"Verb": verb, "Key": key, "Value": base64.b64encode(value).decode(), "Index": index}}


def _transacted(operations: Sequence[object], values: tuple[bytes, ...]) -> Request:
    return Request("PUT", "/v1/txn", json.dumps(operations).encode(), values)


def _too_long(writer: Writer, key: str) -> Request:
    value = writer.value()
    return Request("PUT", f"/v1/kv/{key}", value.ljust(TOO_LONG), (value.ljust(TOO_LONG),))


def _no_index(writer: Writer, key: str) -> Request:
    return Request("PUT", f"/v1/kv/{key}?cas=soon", writer.value(), (writer.value(),))


def _no_session(writer: Writer, key: str) -> Request:
    return Request("PUT", f"/v1/kv/{key}?acquire={NOBODY}", writer.value(), (writer.value(),))


def _no_verb(writer: Writer, key: str) -> Request:
    return _transacted([_operation("set", key, writer.value()), _operation("explode", key)], (writer.value(),))


def _too_many(writer: Writer, key: str) -> Request:
    return _transacted([_operation("set", key, writer.value())] * OPERATIONS_TOO_MANY, (writer.value(),))


def _no_json(writer: Writer, key: str) -> Request:
    whole = _transacted([_operation("set", key, writer.value())], (writer.value(),))
    return whole._replace(body=whole.body[:-1])


def _other_request(writer: Writer, key: str) -> Request:
    """Under a key that stands for another write."""
    return Request("PUT", f"/v1/kv/{key}", writer.value(), (writer.value(),), {"Idempotency-Key": writer.used_key})


KINDS: dict[str, tuple[Callable[[Writer, str], Request], float]] = {
    "put": (_put, 30),
    "cas": (_cas, 20),
    "guarded put": (_guarded, 6),
    "delete": (_delete, 6),
    "delete cas": (_delete_cas, 6),
    "put below": (_leaf, 6),
    "delete tree": (_delete_tree, 2),
    "transaction": (_transaction, 10),
    "plain transaction": (_both, 6),
    "too long": (_too_long, 0.5),
    "cas without an index": (_no_index, 2),
    "lock without a session": (_no_session, 2),
    "transaction with a wrong verb": (_no_verb, 2),
    "transaction of too many": (_too_many, 1),
    "transaction cut off": (_no_json, 1),
    "key of another request": (_other_request, 2),
}
"""The kinds of request, and how often each is made."""


class Reader(threading.Thread):
    """Reads keys and the whole tree at any node, in every consistency.

    :ivar seen: all that it was answered.
    """

    def __init__(self, number: int, ports: Sequence[int], seed: int) -> None:
        super().__init__(daemon=True, name=f"reader {number}")
        self.seen: set[Row] = set()
        self.stopping = threading.Event()
        self._dice = random.Random(f"{seed} reader {number}")
        self._links = [Connection([port], 0) for port in ports]

    def run(self) -> None:
        """Read until told to stop."""
        while not self.stopping.is_set():
            consistency = self._dice.choice(("", "stale", "consistent"))
            target = f"{PREFIX}?recurse&{consistency}" if self._dice.random() < 0.3 else f"{self._dice.choice(KEYS)}?{consistency}"
            self.seen.update(rows(self._dice.choice(self._links).ask("GET", f"/v1/kv/{target}")))
            self.stopping.wait(self._dice.uniform(0, 2 * PAUSE_SECONDS))
        for link in self._links:
            link.close()


def rows(reply: Reply) -> list[Row]:
    """The keys in an answer; none when it is no success."""
    listed = json.loads(reply.body) if reply.status == 200 else []
    return [Row(row["Key"], base64.b64decode(row["Value"] or ""), row["ModifyIndex"]) for row in listed]
