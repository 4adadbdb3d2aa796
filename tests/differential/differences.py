"""The differences that are meant, by name. ``docs/consul-compatibility.md`` lists them; any other fails the test."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.differential.compare import INSIDE_DELETED
from tests.differential.operations import Operation
from tests.differential.wire import Reply

Replies = tuple[Reply, Reply]
Messages = Sequence[str]


@dataclass(frozen=True, slots=True)
class Difference:
    """One of them.

    :ivar name: what it is counted as.
    :ivar consul: what Consul does.
    :ivar kvorum: what kvorum does instead.
    :ivar reason: why.
    :ivar ends: the two have different state afterwards, so the sequence ends here.
    """

    name: str
    consul: str
    kvorum: str
    reason: str
    applies: Callable[[Operation, Replies, Messages], bool]
    ends: bool = False


PANIC = "panic of Consul"


def _never(_operation: Operation, _replies: Replies, _messages: Messages) -> bool:
    return False


def _inside_deleted(_operation: Operation, _replies: Replies, messages: Messages) -> bool:
    return len(messages) == 1 and messages[0].startswith(INSIDE_DELETED)


def _head_with_a_body(operation: Operation, _replies: Replies, _messages: Messages) -> bool:
    return operation.method == "HEAD" and operation.body is not None


def _two_mistakes(_operation: Operation, replies: Replies, _messages: Messages) -> bool:
    texts = {reply.body for reply in replies}
    return replies[1].status == 400 and len(texts) == 2 and texts - {b"Invalid index", b"Invalid wait time"} == {b"Invalid Cache-Control header."}


def _star(operation: Operation, replies: Replies, _messages: Messages) -> bool:
    return operation.target.startswith("*") and replies[0].status == replies[1].status == 400


def _null_operation(operation: Operation, replies: Replies, _messages: Messages) -> bool:
    return replies[0].status == 0 and replies[1].status > 0 and b"null" in (operation.body or b"")


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "index inside of a deleted prefix",
        "the `X-Consul-Index` of a listing below a prefix that was deleted as a whole is that of the whole table, which moves with every other write,"
        " or an older one than before",
        "it is that of the deletion",
        "a deletion is news to whoever watches any part of what was deleted, and other keys are none",
        _inside_deleted,
    ),
    Difference(
        PANIC,
        "the server ends with `panic: close of closed channel` in its radix tree, now and then, and at each start again: the write is in its log",
        "goes on",
        "nothing that a client sends may end a node; the sequence ends there, and both servers are made anew",
        _never,  # it is seen at the process, not in an answer
        ends=True,
    ),
    Difference(
        "HEAD with a body",
        "400, as for a request that can't be read",
        "what any other HEAD gets",
        "nothing is lost by reading it",
        _head_with_a_body,
    ),
    Difference(
        "`null` for an operation of a transaction",
        "its handler panics and the connection is closed without an answer",
        "it is left out, as `{}` is",
        "every request gets an answer",
        _null_operation,
    ),
    Difference(
        "two mistakes in one request",
        "a bad `Cache-Control` is told before a bad `index` or `wait`",
        "after it",
        "each is told once the other is mended",
        _two_mistakes,
    ),
    Difference(
        "target `*`",
        "400 without a body for methods other than OPTIONS",
        "400 with the body `400 Bad Request`",
        "the request is refused before it is known to be one of the API",
        _star,
    ),
)


def named(operation: Operation, replies: Replies, messages: Messages) -> Difference | None:
    """The difference that this is, if it is one that is meant."""
    return next((difference for difference in DIFFERENCES if difference.applies(operation, replies, messages)), None)
