"""HTTP between nodes when the network or the peer misbehaves: what is lost is reported, what is not is not doubled, nothing leaks."""

import asyncio
import gc
import os
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from raft.core.messages import AppendRequest, Heartbeat, ProposeRequest
from raft.testing.transport_doubles import append, bulk, control, until
from raft.transport.http_lane import Lane
from raft.transport.limits import HttpLimits, LaneLimits

OpenWorld = Callable[..., AbstractAsyncContextManager[Any]]


def open_files() -> int:
    """How many file descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def lane(world: Any, kind: str) -> Lane:
    """The lane from ``a`` to ``b``."""
    return cast("Lane", getattr(world.transports["a"]._peers["b"], kind))


def test_connections_are_kept_and_lanes_are_apart(open_http_world: OpenWorld) -> None:
    """Many messages use two connections, one a lane; after the peer's restart on the same port there are again two."""

    async def scenario() -> None:
        async with open_http_world() as world:
            for number in range(1, 101):
                world.transport("a").send((control("a", "b", number), bulk("a", "b", number)))
                await asyncio.sleep(0)
            await until(lambda: len(world.recorder("b").messages) == 200, "all arrive")
            assert len(world.servers["b"].connections) == 2
            await world.take_away("b")
            await until(lambda: not lane(world, "control")._connection and not lane(world, "bulk")._connection, "the loss is noticed")
            assert world.recorder("a").lost == [], "nothing was under way"
            await world.bring_back("b")
            world.transport("a").send((control("a", "b", 101), bulk("a", "b", 101)))
            await until(lambda: len(world.recorder("b").messages) == 2, "the next ones arrive")
            assert len(world.servers["b"].connections) == 2

    asyncio.run(scenario(), debug=True)


def test_frozen_peer_is_reported_and_left(open_http_world: OpenWorld, impatient: HttpLimits) -> None:
    """A peer that holds its connections and reads nothing is given up after the control lane's deadline, on both lanes, and met anew."""

    async def scenario() -> None:
        async with open_http_world(impatient) as world:
            world.transport("a").send((control("a", "b", 1), bulk("a", "b", 1)))
            await until(lambda: len(world.recorder("b").messages) == 2, "the first arrive")
            world.stall_all("b")
            frozen = set(world.servers["b"].connections)
            started = asyncio.get_running_loop().time()
            world.transport("a").send((control("a", "b", 2), bulk("a", "b", 2)))
            await until(lambda: world.recorder("a").lost, "the loss is reported")
            assert asyncio.get_running_loop().time() - started >= impatient.control.request_seconds
            assert lane(world, "bulk")._connection is None, "its own deadline is 30 s"
            world.transport("a").send((control("a", "b", 3), bulk("a", "b", 3)))
            await until(lambda: len(world.recorder("b").messages) == 4, "the next ones arrive on new connections")
            assert world.recorder("b").numbers(Heartbeat) == [1, 3]
            assert world.recorder("b").numbers(ProposeRequest) == [1, 3]
            for connection in frozen:
                connection.abort()

    asyncio.run(scenario(), debug=True)


def test_slow_peer_is_not_given_up(raw_peer: Any, single: Any, impatient: HttpLimits) -> None:
    """A peer that answers one request after the other, each in time, keeps its connection, however long the last one waits in all."""

    async def scenario() -> None:
        async with raw_peer(None) as peer:
            transport, recorder = await single(peer.address)
            for number in range(8):
                transport.send((control("a", "b", number),))
                await until(lambda number=number: len(peer.requests) == number + 1, "the request arrives")  # type: ignore[misc]  # mypy can't infer it
            started = asyncio.get_running_loop().time()
            for _ in range(8):
                await asyncio.sleep(impatient.control.request_seconds / 3)
                peer._writers[0].write(b"HTTP/1.1 204 No Content\r\n\r\n")
            assert asyncio.get_running_loop().time() - started > 2 * impatient.control.request_seconds
            assert recorder.lost == []
            assert peer.connections == 1
            await transport.stop()

    asyncio.run(scenario(), debug=True)


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_ten_thousand_failures_leak_nothing(factory: Callable[[], asyncio.AbstractEventLoop], single: Any, impatient: HttpLimits) -> None:
    """Ten thousand failed dials and broken connections leave the number of tasks and of open files where it was."""
    rude = LaneLimits(
        queue_messages_max=8, queue_bytes_max=1_000, drop_oldest=True, request_seconds=1.0, redial_seconds_min=0.0, redial_seconds_max=0.0
    )

    async def scenario() -> None:
        async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()

        rude_server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            refusing = f"127.0.0.1:{unused.getsockname()[1]}"
            hanging_up = f"127.0.0.1:{rude_server.sockets[0].getsockname()[1]}"
            transport, recorder = await single(refusing, replace(impatient, control=rude, bulk=rude))
            transport.connect({"b": refusing, "c": hanging_up})
            files, tasks = open_files(), len(asyncio.all_tasks())
            while len(recorder.lost) < 10_000:
                transport.send((control("a", "b", 1), bulk("a", "b", 1), control("a", "c", 1), bulk("a", "c", 1)))
                await asyncio.sleep(0)
            assert set(recorder.lost) == {"b", "c"}
            assert len(transport._tasks) <= 4
            transport.connect({})
            await until(lambda: len(asyncio.all_tasks()) <= tasks, "the tasks end")
            await until(lambda: open_files() <= files, "the sockets are closed")
            await transport.stop()
        rude_server.close()
        await rude_server.wait_closed()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(scenario())
    gc.collect()


def test_each_append_has_a_request_of_its_own(raw_peer: Any, single: Any) -> None:
    """What is sent in one turn of the loop shares a request, appends apart; control and bulk never share one."""

    async def scenario() -> None:
        async with raw_peer(b"HTTP/1.1 204 No Content\r\n\r\n") as peer:
            transport, _ = await single(peer.address)
            transport.send((bulk("a", "b", 1), append("a", "b", 1), bulk("a", "b", 2), append("a", "b", 2), bulk("a", "b", 3)))
            await until(lambda: len(peer.requests) == 2, "two requests arrive")
            transport.send(tuple(control("a", "b", number) for number in range(5)))
            await until(lambda: len(peer.requests) >= 3, "a third arrives")
            assert peer.connections == 2
            assert all(request.startswith(b"POST /raft/v1/messages HTTP/1.1\r\nHost: " + peer.address.encode()) for request in peer.requests)
            await transport.stop()

    asyncio.run(scenario(), debug=True)


def test_window_and_queue_are_bounded(raw_peer: Any, single: Any, impatient: HttpLimits) -> None:
    """A peer that takes requests and never answers gets a window's worth; behind it the oldest control and the newest bulk messages go."""
    small = replace(
        impatient,
        control=replace(impatient.control, window_requests_max=3, request_seconds=30.0),
        bulk=replace(impatient.bulk, window_requests_max=3),
    )

    async def scenario() -> None:
        async with raw_peer(None) as peer:
            transport, recorder = await single(peer.address, small)
            transport.send((control("a", "b", 0), bulk("a", "b", 0)))
            await until(lambda: len(peer.requests) == 2, "both lanes are up")
            for number in range(1, 31):
                transport.send((control("a", "b", number), bulk("a", "b", number)))
                await asyncio.sleep(0.001)
            await until(lambda: len(peer.requests) == 6, "three requests a lane arrive")
            lanes = transport._peers["b"]
            assert len(lanes.control._queue) == len(lanes.bulk._queue) == 8
            assert lanes.control._queue_bytes == sum(len(encoded) for encoded, _ in lanes.control._queue)
            assert lanes.control._queue[-1][0][-1] == 30, "the newest heartbeat is kept"
            assert lanes.bulk._queue[0][0][3] == 3, "the bulk messages that came first are kept"
            assert recorder.lost
            await transport.stop()

    asyncio.run(scenario(), debug=True)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 421 Misdirected Request\r\nContent-Length: 3\r\n\r\nwho",
        b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + bytes(2_000_000),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_odd_answers_are_losses(answer: bytes, raw_peer: Any, single: Any) -> None:
    """A refusal, an answer without a question, one without end, and what is no HTTP: reported, and the lane goes on."""

    async def scenario() -> None:
        async with raw_peer(answer) as peer:
            transport, recorder = await single(peer.address)
            transport.send((control("a", "b", 1),))
            if answer.startswith(b"HTTP/1.1 204"):
                await until(lambda: transport._peers["b"].control._connection is None and peer.requests, "the connection is left")
            else:
                await until(lambda: recorder.lost, "the loss is reported")
            peer.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
            requests = len(peer.requests)
            transport.send((control("a", "b", 2),))
            await until(lambda: len(peer.requests) == requests + 1, "the next one is sent")
            await transport.stop()

    asyncio.run(scenario(), debug=True)


def test_changed_address_closes_old_connections(open_http_world: OpenWorld, raw_peer: Any) -> None:
    """A new address book closes connections to peers that left or moved, keeps the others, and the new address is used."""

    async def scenario() -> None:
        async with open_http_world() as world, raw_peer(b"HTTP/1.1 204 No Content\r\n\r\n") as peer:
            world.transport("a").send((control("a", "b", 1),))
            await until(lambda: world.recorder("b").messages, "the first arrives")
            (kept,) = world.servers["b"].connections
            world.transport("a").connect({**world.addresses, "c": "127.0.0.1:1"})
            world.transport("a").send((control("a", "b", 2),))
            await until(lambda: len(world.recorder("b").messages) == 2, "the second arrives")
            assert world.servers["b"].connections == {kept}
            world.transport("a").connect({"b": peer.address})
            await until(lambda: not world.servers["b"].connections, "the old connection is closed")
            world.transport("a").send((control("a", "b", 3),))
            await until(lambda: peer.requests, "the third arrives at the new address")
            assert len(world.recorder("b").messages) == 2
            assert world.recorder("a").lost == []

    asyncio.run(scenario(), debug=True)


def test_idle_connections_are_closed_by_the_sender(open_http_world: OpenWorld, impatient: HttpLimits) -> None:
    """A connection without traffic is closed and silently dialled again when it is needed; that loses nothing."""

    async def scenario() -> None:
        async with open_http_world(replace(impatient, client_idle_seconds=0.1)) as world:
            for number in (1, 2):
                world.transport("a").send((bulk("a", "b", number),))
                await until(lambda number=number: world.recorder("b").numbers(ProposeRequest)[-1:] == [number], "the message arrives")  # type: ignore[misc]  # mypy can't infer it
                await until(lambda: not world.servers["b"].connections, "the connection is closed")
            assert world.recorder("a").lost == []

    asyncio.run(scenario(), debug=True)


def test_message_over_the_limit_is_dropped(open_http_world: OpenWorld, impatient: HttpLimits) -> None:
    """A message that no peer would take is dropped at once, and those around it arrive."""

    async def scenario() -> None:
        async with open_http_world(replace(impatient, body_bytes_max=100_000)) as world:
            world.transport("a").send((append("a", "b", 1), append("a", "b", 2, 100_000), append("a", "b", 3, 90_000)))
            await until(lambda: world.recorder("b").numbers(AppendRequest) == [1, 3], "the others arrive")

    asyncio.run(scenario(), debug=True)


def test_no_descriptor_is_inherited(single: Any) -> None:
    """Sockets are not handed to child processes."""

    async def scenario() -> None:
        transport, _ = await single("127.0.0.1:1")
        server = transport._server._server
        assert server is not None
        assert not any(os.get_inheritable(listener.fileno()) for listener in server.sockets)
        await transport.stop()

    asyncio.run(scenario(), debug=True)
