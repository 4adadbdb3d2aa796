"""Replies that ride on the answers to a peer's requests: when they do, when they go the other way, and what is never waited for."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import pytest

from raft.core.messages import (
    AppendAccepted,
    AppendRejected,
    HeartbeatResponse,
    Message,
    PreVoteResponse,
    ProposeResponse,
    ReadIndexResponse,
    VoteResponse,
)
from raft.core.model import NodeId
from raft.testing.transport_doubles import CLUSTER, append, bulk, control, until
from raft.transport.codec import KINDS, decode, encode
from raft.transport.http_replies import BYTES_MAX, HELD_MAX, QUESTIONS, REPLIES
from raft.transport.http_server import MESSAGES_PATH

OpenWorld = Callable[..., AbstractAsyncContextManager[Any]]
Run = Callable[[Awaitable[None]], None]

EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
ACCEPTS = b"Accept: application/msgpack\r\n"


def accepted(index: int) -> AppendAccepted:
    """What ``b`` replies to an append of ``a``."""
    return AppendAccepted("b", "a", 1, index)


def proposed(number: int, size: int = 0) -> ProposeResponse:
    """What ``b`` replies to a batch of ``a``."""
    return ProposeResponse("b", "a", 1, number, (bytes(size),), "", False, False)


def request(*messages: Message, headers: bytes = ACCEPTS) -> bytes:
    """A request that carries messages, from who reads messages in answers."""
    body = encode(CLUSTER, messages)
    return b"POST %b HTTP/1.1\r\nHost: b\r\n%bContent-Length: %d\r\n\r\n%b" % (MESSAGES_PATH.encode(), headers, len(body), body)


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, tuple[Message, ...]]:
    """Status and messages of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    status = head.split()[1]
    if status != b"200":
        return status, ()
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    return status, decode(await reader.readexactly(length), CLUSTER, "a", 1_000_000)


async def quiet(reader: asyncio.StreamReader) -> bool:
    """Whether nothing comes for a moment."""
    try:
        async with asyncio.timeout(0.05):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


async def connect(world: Any, node: NodeId) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A plain connection, on which a test speaks for the other node."""
    host, _, port = world.addresses[node].rpartition(":")
    return await asyncio.open_connection(host, int(port))


def test_every_message_is_a_question_a_reply_or_neither() -> None:
    """A new message must be thought of here: what asks may hold an answer back, what replies may ride on one."""
    neither = {message.__name__ for message in KINDS.values() if message not in QUESTIONS | REPLIES}
    assert neither == {"InstallSnapshot", "TimeoutNow"}
    assert not QUESTIONS & REPLIES
    assert {VoteResponse, PreVoteResponse, AppendRejected, HeartbeatResponse, ReadIndexResponse} <= REPLIES


def test_replies_need_no_connection_of_their_own(open_http_world: OpenWorld) -> None:
    """Who only replies opens no connection: one exchange for an append and its acceptance, one for a heartbeat and its answer."""

    async def scenario() -> None:
        async with open_http_world() as world:
            for number in range(1, 51):
                world.transport("a").send((control("a", "b", number), append("a", "b", number)))
                await until(lambda number=number: len(world.recorder("b").messages) == 2 * number, "both arrive")  # type: ignore[misc]  # mypy can't infer it
                replies = (HeartbeatResponse("b", "a", 1, number), accepted(number))
                world.transport("b").send(replies)
                await until(lambda number=number: len(world.recorder("a").messages) == 2 * number, "both replies arrive")  # type: ignore[misc]  # mypy can't infer it
                assert set(world.recorder("a").messages[-2:]) == set(replies)
            assert len(world.servers["b"].connections) == 2
            assert not world.servers["a"].connections
            assert world.recorder("a").lost == world.recorder("b").lost == []

    asyncio.run(scenario(), debug=True)


def test_other_messages_do_not_ride(open_http_world: OpenWorld) -> None:
    """Appends, heartbeats and batches keep to their lanes, where their order is kept; what is held back waits for a reply."""

    async def scenario() -> None:
        async with open_http_world() as world:
            reader, writer = await connect(world, "b")
            writer.write(request(append("a", "b", 1)))
            await until(lambda: world.recorder("b").messages, "the request arrives")
            world.transport("b").send((append("b", "a", 1), bulk("b", "a", 2)))
            await until(lambda: len(world.recorder("a").messages) == 2, "they arrive")
            assert await quiet(reader)
            world.transport("b").send((accepted(1),))
            assert await read_answer(reader) == (b"200", (accepted(1),))
            writer.transport.abort()

    asyncio.run(scenario(), debug=True)


def test_answers_leave_together_and_in_order(open_http_world: OpenWorld, run: Run) -> None:
    """As many answers are given as there are replies; the first carries them all, the next requests are answered by later replies."""

    async def scenario() -> None:
        async with open_http_world() as world:
            reader, writer = await connect(world, "b")
            writer.write(b"".join(request(append("a", "b", index)) for index in (1, 2, 3)))
            await until(lambda: len(world.recorder("b").messages) == 3, "the requests arrive")
            world.transport("b").send((accepted(1),))
            world.transport("b").send((accepted(2),))
            assert await read_answer(reader) == (b"200", (accepted(1), accepted(2)))
            assert await read_answer(reader) == (b"204", ())
            assert await quiet(reader)
            world.transport("b").send((accepted(3), accepted(4)))
            assert await read_answer(reader) == (b"200", (accepted(3), accepted(4)))
            writer.transport.abort()

    run(scenario())


@pytest.mark.parametrize(
    ("messages", "headers"),
    [((append("a", "b", 1),), b""), ((append("a", "b", 1),), b"Accept: text/plain\r\n"), ((AppendAccepted("a", "b", 1, 1),), ACCEPTS)],
    ids=["who reads no messages", "who reads something else", "nothing to reply to"],
)
def test_what_is_not_held_back(open_http_world: OpenWorld, messages: tuple[Message, ...], headers: bytes) -> None:
    """Who does not say that it reads messages in answers gets the answer at once, and so does who asks nothing; replies go over the lane."""

    async def scenario() -> None:
        async with open_http_world() as world:
            reader, writer = await connect(world, "b")
            writer.write(request(*messages, headers=headers))
            assert await reader.readuntil(b"\r\n\r\n") == EMPTY
            world.transport("b").send((accepted(1),))
            await until(lambda: world.recorder("a").messages == [accepted(1)], "the reply arrives")
            assert await quiet(reader)
            writer.transport.abort()

    asyncio.run(scenario(), debug=True)


def test_stranger_is_answered_at_once(open_http_world: OpenWorld) -> None:
    """Nothing rides on the answers to one whose address is not known: it may be a candidate that was removed."""

    async def scenario() -> None:
        async with open_http_world() as world:
            reader, writer = await connect(world, "b")
            writer.write(request(append("c", "b", 1)))
            assert await reader.readuntil(b"\r\n\r\n") == EMPTY
            writer.transport.abort()

    asyncio.run(scenario(), debug=True)


def test_no_answer_is_held_back_for_long(open_http_world: OpenWorld, impatient: Any, run: Run) -> None:
    """A request that nobody replies to is answered long before its sender takes the silence for an end; a later reply goes over the lane."""

    async def scenario() -> None:
        async with open_http_world(impatient) as world:
            reader, writer = await connect(world, "b")
            loop = asyncio.get_running_loop()
            began = loop.time()
            writer.write(request(control("a", "b", 1)))
            assert await read_answer(reader) == (b"204", ())
            assert loop.time() - began < impatient.control.request_seconds
            world.transport("b").send((HeartbeatResponse("b", "a", 1, 1),))
            await until(lambda: world.recorder("a").messages, "the reply arrives")
            writer.transport.abort()

    run(scenario())


def test_few_answers_are_held_back(open_http_world: OpenWorld) -> None:
    """Behind so many the oldest is given: a peer that asks much must not wait for its window."""

    async def scenario() -> None:
        async with open_http_world() as world:
            reader, writer = await connect(world, "b")
            writer.write(b"".join(request(bulk("a", "b", number)) for number in range(HELD_MAX + 3)))
            assert [await read_answer(reader) for _ in range(3)] == [(b"204", ())] * 3
            assert await quiet(reader)
            world.transport("b").send((proposed(0),))
            assert await read_answer(reader) == (b"200", (proposed(0),))
            writer.transport.abort()

    asyncio.run(scenario(), debug=True)


def test_long_replies_take_the_lane(open_http_world: OpenWorld) -> None:
    """What is longer than a caller reads of an answer goes over the lane, and so does what does not fit behind others."""

    async def scenario() -> None:
        async with open_http_world() as world:
            reader, writer = await connect(world, "b")
            writer.write(request(bulk("a", "b", 1)))
            await until(lambda: world.recorder("b").messages, "the request arrives")
            replies = (proposed(1, BYTES_MAX - 100), proposed(2, 200), proposed(3, BYTES_MAX + 1))
            world.transport("b").send(replies)
            assert await read_answer(reader) == (b"200", replies[:1])
            await until(lambda: world.recorder("a").messages == list(replies[1:]), "the others arrive")
            writer.transport.abort()

    asyncio.run(scenario(), debug=True)


@pytest.mark.parametrize(
    ("behind", "status"),
    [(b"POST /nowhere HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n", b"404"), (b"nonsense\r\n\r\n", b"400")],
    ids=["another route", "not HTTP"],
)
def test_nobody_waits_for_a_reply_behind_which_others_are(open_http_world: OpenWorld, run: Run, behind: bytes, status: bytes) -> None:
    """Another request on the connection is answered at once, and so is what was held back before it."""

    async def scenario() -> None:
        async with open_http_world() as world:
            reader, writer = await connect(world, "b")
            writer.write(request(append("a", "b", 1)) + request(append("a", "b", 2)) + behind)
            assert [(await read_answer(reader))[0] for _ in range(3)] == [b"204", b"204", status]
            world.transport("b").send((accepted(2),))
            await until(lambda: world.recorder("a").messages == [accepted(2)], "the reply takes the lane")
            writer.transport.abort()

    run(scenario())


def test_request_that_ends_its_connection_is_answered(open_http_world: OpenWorld, run: Run) -> None:
    """``Connection: close`` leaves no time for a reply."""

    async def scenario() -> None:
        async with open_http_world() as world:
            reader, writer = await connect(world, "b")
            writer.write(request(append("a", "b", 1), headers=ACCEPTS + b"Connection: close\r\n"))
            assert (await reader.read()).startswith(b"HTTP/1.1 204 ")
            writer.transport.abort()

    run(scenario())


def test_reply_finds_its_way_when_the_connection_is_gone(open_http_world: OpenWorld) -> None:
    """An answer that can't be given any more takes no message with it."""

    async def scenario() -> None:
        async with open_http_world() as world:
            _, writer = await connect(world, "b")
            writer.write(request(append("a", "b", 1)))
            await until(lambda: world.recorder("b").messages, "the request arrives")
            writer.transport.abort()
            await until(lambda: not world.servers["b"].connections, "the end is noticed")
            world.transport("b").send((accepted(1),))
            await until(lambda: world.recorder("a").messages == [accepted(1)], "the reply arrives")

    asyncio.run(scenario(), debug=True)


@pytest.mark.parametrize("how", ["the connection ends", "others ask", "the time is up"])
def test_reply_whose_answer_is_given_in_the_same_turn(open_http_world: OpenWorld, how: str) -> None:
    """Between the moment in which a message is put on an answer and the end of the turn the answer may be given: no message is lost by that."""

    async def scenario() -> None:
        async with open_http_world() as world:
            reader, writer = await connect(world, "b")
            writer.write(request(bulk("a", "b", 1)))
            await until(lambda: world.recorder("b").messages, "the request arrives")
            replies = world.transports["b"]._peers["a"]._bulk_replies
            world.transport("b").send((proposed(1), proposed(2)))
            if how == "the connection ends":
                for connection in tuple(world.servers["b"].connections):
                    connection._give_pending()
            elif how == "others ask":
                for number in range(HELD_MAX):
                    replies.hold((bulk("a", "b", number),))
                replies.close()
            else:
                replies.sweep(asyncio.get_running_loop().time() + 3600)
            await until(lambda: world.recorder("a").messages == [proposed(1), proposed(2)], "the replies arrive over the lane")
            del reader
            writer.transport.abort()

    asyncio.run(scenario())


def test_peer_that_left_is_answered(open_http_world: OpenWorld) -> None:
    """What was held back for one who is no peer any more is given."""

    async def scenario() -> None:
        async with open_http_world() as world:
            reader, writer = await connect(world, "b")
            writer.write(request(append("a", "b", 1)))
            await until(lambda: world.recorder("b").messages, "the request arrives")
            world.transport("b").connect({"b": world.addresses["b"]})
            assert await read_answer(reader) == (b"204", ())
            writer.transport.abort()

    asyncio.run(scenario(), debug=True)


@pytest.mark.parametrize(
    "body",
    [b"nonsense", b"", encode(CLUSTER, [AppendAccepted("c", "a", 1, 1)]), encode("other", [accepted(1)]), encode(CLUSTER, [append("b", "c", 1)])],
    ids=["not a body", "nothing", "of another node", "of another cluster", "for another node"],
)
def test_answer_that_makes_no_sense_is_told_and_dropped(raw_peer: Any, single: Any, caplog: pytest.LogCaptureFixture, body: bytes) -> None:
    """Nothing of it is handed on, the log says why, and the next request is answered as if nothing had been."""

    async def scenario() -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        async with raw_peer(answer) as peer:
            transport, recorder = await single(peer.address)
            async with aclosing(_Stopped(transport)):
                transport.send((append("a", "b", 1),))
                await until(lambda: "refused what the answer brought" in caplog.text, "it is told")
                assert recorder.messages == []
                good = encode(CLUSTER, [accepted(1)])
                peer.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(good), good)
                transport.send((append("a", "b", 2),))
                await until(lambda: recorder.messages == [accepted(1)], "the next answer is taken")
                assert peer.connections == 1
                assert all(ACCEPTS in request for request in peer.requests)

    asyncio.run(scenario(), debug=True)


class _Stopped:
    """Stops a transport at the end of a block."""

    def __init__(self, transport: Any) -> None:
        self.aclose = transport.stop
