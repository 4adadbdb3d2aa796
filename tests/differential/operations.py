"""What one request of a sequence is, before it is known to which server it goes.

What differs between two servers that behave alike (ids of sessions, indexes) stands in a request as a reference, which each server's own
:class:`Memory` resolves: ``<S2>`` is the third session that was made, ``<M1>`` the index of the second key as it was last read, ``<I>`` the index
of the last read, ``<P>`` the prefix of this run of the sequence.
"""

import json
import re
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from tests.differential.wire import Reply, Request

NOBODY = "01234567-89ab-cdef-0123-456789abcdef"
"""The id of no session."""
REFERENCE = re.compile(rb"<(P|S|I|M)([0-9]*)>")
_LEARNED_BYTES_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Operation:
    """One request.

    :ivar kind: what it is counted as.
    :ivar target: with references; encoded as UTF-8, bytes that are none as surrogates.
    :ivar body: with references.
    """

    kind: str
    method: str
    target: str
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    chunked: bool = False

    def __str__(self) -> str:
        body = "" if self.body is None else f" {self.body!r}" if len(self.body) < 2000 else f" ({len(self.body)} bytes)"
        more = [" chunked"] * self.chunked + [f" {name}: {value}" for name, value in self.headers]
        return f"{self.method} {self.target!r}{body}" + "".join(more)


@dataclass(frozen=True, slots=True)
class Sequence:
    """Requests that belong together.

    :ivar keys: those that are asked about, with the reference to the prefix.
    """

    keys: tuple[str, ...]
    operations: tuple[Operation, ...]


@dataclass
class Memory:
    """What one server has told during a sequence.

    :ivar prefix: the first part of most keys.
    :ivar sessions: ids, in the order in which they were made.
    :ivar indexes: of keys, as last read.
    :ivar index: of the last read.
    :ivar trees: prefixes that were deleted.
    :ivar resolved: what the references of the last request stood for.
    """

    prefix: str
    keys: tuple[str, ...]
    sessions: list[str] = field(default_factory=list)
    indexes: dict[str, str] = field(default_factory=dict)
    index: str = "0"
    resolved: dict[str, str] = field(default_factory=dict)
    trees: list[bytes] = field(default_factory=list)

    def request(self, operation: Operation) -> Request:
        """What this server is sent."""
        self.resolved = {}
        target = REFERENCE.sub(self._resolve, operation.target.encode("utf-8", "surrogateescape"))
        body = None if operation.body is None else REFERENCE.sub(self._resolve, operation.body)
        return Request(operation.method, target, body, operation.headers, operation.chunked)

    def _resolve(self, match: re.Match[bytes]) -> bytes:
        kind, number = match[1], int(match[2] or b"0")
        if kind == b"P":
            return self.prefix.encode()
        if kind == b"S":
            return (self.sessions[number % len(self.sessions)] if self.sessions else NOBODY).encode()
        found = self.index if kind == b"I" else self.indexes.get(self.keys[number % len(self.keys)].replace("<P>", self.prefix), "0")
        if found != "0":
            self.resolved[found] = match[0].decode()
        return found.encode()

    def is_inside_deleted(self, operation: Operation) -> bool:
        """Whether it lists a prefix that is longer than one that was deleted."""
        if not operation.kind.startswith("get ") or not self.trees:
            return False
        prefix = self._key(operation)
        return any(prefix.startswith(tree) and len(prefix) > len(tree) for tree in self.trees)

    def _key(self, operation: Operation) -> bytes:
        path = operation.target.partition("?")[0].replace("<P>", self.prefix).removeprefix("/v1/kv/")
        return unquote_to_bytes(path.encode("utf-8", "surrogateescape"))

    def _deleted_trees(self, operation: Operation) -> list[bytes]:
        if operation.kind == "delete recurse":
            return [self._key(operation)]
        if operation.kind.startswith("txn") and operation.body and b"delete-tree" in operation.body:
            if operation.kind != "txn":
                return [b""]  # its body is not quite what was meant: it may have been any
            found = json.loads(REFERENCE.sub(self._resolve, operation.body))
            return [item["KV"]["Key"].encode() for item in found if item["KV"]["Verb"] == "delete-tree"]
        return []

    def learn(self, operation: Operation, reply: Reply) -> None:
        """Remember what an answer says."""
        if index := reply.headers.get("x-consul-index"):
            self.index = index
        if reply.status == 200:
            self.trees += self._deleted_trees(operation)
        if reply.status != 200 or reply.headers.get("content-type") != "application/json" or len(reply.body) > _LEARNED_BYTES_MAX:
            return
        if operation.method == "PUT" and operation.target.startswith("/v1/session/create"):
            self.sessions.append(json.loads(reply.body)["ID"])
        elif operation.kind.startswith(("get", "txn")):
            found = json.loads(reply.body)
            for item in (found["Results"] or []) if isinstance(found, dict) else found:
                entry = item.get("KV", item) if isinstance(item, dict) else {}
                if "Key" in entry:
                    self.indexes[entry["Key"]] = str(entry["ModifyIndex"])
