"""Whether two servers gave the same answer, but for the names that each gives to what it made.

Ids of sessions must stand for the same session. Indexes are numbers of each server's own: whatever is less, equal or greater on one must be so on
the other, over everything that was seen.
"""

import json
import re
from bisect import bisect_left

from tests.differential.operations import Memory, Operation
from tests.differential.wire import Reply

IGNORED_HEADERS = frozenset({"date", "server", "connection", "keep-alive", "vary", "content-length", "transfer-encoding"}) | frozenset(
    {"etag", "x-kvorum-consistency", "x-kvorum-index", "x-kvorum-outcome"}
)
"""What says nothing of the answer, and our own additions, which Consul's clients pass over (docs/http-extensions.md)."""

_UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_INDEXED = re.compile(rb'("(?:Create|Modify)Index": ?|current modify index )([0-9]+)')
_ECHOED = re.compile(rb"Conflicting flags|current modify index")


INSIDE_DELETED = "X-Consul-Index inside of a deleted prefix: "


class Order:
    """The pairs of indexes seen so far; one server's must stand in the order of the other's."""

    def __init__(self) -> None:
        self._left: list[int] = []
        self._right: list[int] = []

    def add(self, left: int, right: int, *, keep: bool = True) -> str:
        """Another pair.

        :param keep: later pairs are held against this one, too.
        :returns: what contradicts it; empty when nothing does.
        """
        at = bisect_left(self._left, left)
        if at < len(self._left) and self._left[at] == left:
            return "" if self._right[at] == right else f"index {left} was {self._right[at]} there before, now {right}"
        if at and self._right[at - 1] >= right:
            return f"index {left} is newer than {self._left[at - 1]}, but {right} there is not newer than {self._right[at - 1]}"
        if at < len(self._right) and self._right[at] <= right:
            return f"index {left} is older than {self._left[at]}, but {right} there is not older than {self._right[at]}"
        if keep:
            self._left.insert(at, left)
            self._right.insert(at, right)
        return ""


def compare(operation: Operation, memories: tuple[Memory, Memory], replies: tuple[Reply, Reply], order: Order) -> list[str]:
    """What differs in the answers of Consul (first) and kvorum."""
    left, right = replies
    if left.status != right.status:
        return [f"status: {left.status} {left.body[:300]!r}, but {right.status} {right.body[:300]!r}"]
    found = _headers(left, right)
    shown = [_body(operation, memory, reply) for memory, reply in zip(memories, replies, strict=True)]
    (left_body, left_indexes), (right_body, right_indexes) = shown
    if left_body != right_body:
        return [*found, f"body: {_cut(left_body, right_body)}"]
    if len(left_indexes) != len(right_indexes):
        return [*found, f"{len(left_indexes)} indexes, but {len(right_indexes)}"]
    pairs = list(zip(left_indexes, right_indexes, strict=True))
    found += [message for one, other in pairs if (message := order.add(one, other))]
    if "x-consul-index" in left.headers and "x-consul-index" in right.headers:
        whole = not memories[0].is_inside_deleted(operation)
        message = order.add(int(left.headers["x-consul-index"]), int(right.headers["x-consul-index"]), keep=whole)
        found += [(INSIDE_DELETED if not whole else "X-Consul-Index: ") + message] if message else []
    return found


def _headers(left: Reply, right: Reply) -> list[str]:
    found = []
    for name in sorted((left.headers.keys() | right.headers.keys()) - IGNORED_HEADERS):
        one, other = left.headers.get(name), right.headers.get(name)
        if one != other and (name != "x-consul-index" or one is None or other is None):
            found.append(f"header {name}: {one!r}, but {other!r}")
    return found


def _body(operation: Operation, memory: Memory, reply: Reply) -> tuple[bytes, list[int]]:
    """A body with names that both servers share, and the indexes that stood in it."""
    body = reply.body
    if _ECHOED.search(body):
        for number, reference in memory.resolved.items():
            body = re.sub(rb"(=|!= )%b\b" % number.encode(), rb"\1" + reference.encode(), body)
    indexes: list[int] = []

    def collect(match: re.Match[bytes]) -> bytes:
        indexes.append(int(match[2]))
        return match[1] + b"#"

    known = {session.encode(): b"<S%d>" % number for number, session in enumerate(memory.sessions)}
    if operation.target.startswith(("/v1/session/list", "/v1/session/node/")) and body.startswith(b"[") and reply.status == 200:
        body = _sorted(body, known)
    body = _UUID.sub(lambda match: known.get(match[0], match[0]), body)
    return _INDEXED.sub(collect, body), indexes


def _sorted(body: bytes, known: dict[bytes, bytes]) -> bytes:
    """A list of sessions in the order in which they were made; each server lists them by their ids, which are random."""
    entries = json.loads(body)
    ids = [entry["ID"] for entry in entries]
    if ids != sorted(ids):
        return b"the sessions are not in the order of their ids"
    entries.sort(key=lambda entry: known.get(entry["ID"].encode(), b"unknown"))
    return json.dumps(entries).encode() + (b" and a line" if body.endswith(b"\n") else b"")


def _cut(left: bytes, right: bytes) -> str:
    """The two from shortly before they differ."""
    at = next((number for number, (one, other) in enumerate(zip(left, right, strict=False)) if one != other), min(len(left), len(right)))
    start = max(0, at - 60)
    return f"{left[start : start + 300]!r}, but {right[start : start + 300]!r}"
