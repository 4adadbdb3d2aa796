"""Names, dials and single calls: addresses that move, hang, refuse or are none."""

import asyncio
import gc
import logging
import socket
from pathlib import Path
from typing import Any

import pytest

from raft.testing.transport_doubles import MemorySource, bulk, control, snapshot_message, until
from raft.transport.http_client import Caller, call
from raft.transport.http_server import MESSAGES_PATH
from raft.transport.resolver import Resolver


def open_files() -> int:
    """How many file descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_host_that_never_answers_a_dial(caplog: pytest.LogCaptureFixture, single: Any) -> None:
    """A dial that gets no answer ends in time, is reported, and leaves neither task nor socket; it is logged once as a warning."""

    async def scenario() -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            fillers = [socket.socket() for _ in range(3)]  # the queue of unaccepted connections is full: further ones hang
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            transport, recorder = await single(address)
            files = open_files()
            for losses in (1, 2, 3):
                transport.send((control("a", "b", 1),))
                await until(lambda losses=losses: len(recorder.lost) == losses, "the loss is reported")  # type: ignore[misc]  # mypy can't infer it
            await transport.stop()
            assert open_files() <= files
            for filler in fillers:
                filler.close()

    asyncio.run(scenario(), debug=True)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING and record.name.startswith("raft")]
    assert len(warnings) == 1
    assert "can't connect: 127.0.0.1:" in warnings[0].getMessage()
    assert "did not answer within 0.3 s" in warnings[0].getMessage()


@pytest.mark.parametrize("address", ["no-such-host.invalid:8300", "a..b:8300", "nonsense", "127.0.0.1:99999", "x" * 300 + ":1"])
def test_bad_addresses_are_reported(address: str, single: Any) -> None:
    """An address that can't be resolved or isn't one is a lost message, no exception."""

    async def scenario() -> None:
        transport, recorder = await single(address)
        transport.send((control("a", "b", 1), bulk("a", "b", 1)))
        await until(lambda: recorder.lost, "the loss is reported")
        with pytest.raises(OSError, match=r".+"):
            await transport.send_snapshot(snapshot_message("a", "b"), MemorySource(snapshot_message("a", "b").boundary, b"x"))
        await transport.stop()

    asyncio.run(scenario(), debug=True)


def test_call_reports_every_failure_as_oserror(raw_peer: Any) -> None:
    """Refused, silent, cut and nonsensical answers are OSErrors; the silent one takes as long as it was given."""

    async def scenario() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            with pytest.raises(ConnectionRefusedError):
                await call(f"127.0.0.1:{unused.getsockname()[1]}", "/", b"", 5.0)
        with pytest.raises(ConnectionError, match="no address"):
            await call("nonsense", "/", b"", 5.0)
        async with raw_peer(None) as peer:
            with pytest.raises(TimeoutError, match=r"did not answer within 0\.1 s"):
                await call(peer.address, "/", b"", 0.1)
        async with raw_peer(b"not http\r\n\r\n") as peer:
            with pytest.raises(ConnectionError, match="not HTTP"):
                await call(peer.address, "/", b"", 5.0)
        async with raw_peer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok") as peer:
            assert await call(peer.address, "/", b"", 5.0) == (200, b"ok")

    asyncio.run(scenario(), debug=True)


def test_caller_dials_anew_after_a_failure(raw_peer: Any) -> None:
    """A caller keeps its connection between calls and gets a new one after a broken call."""

    async def scenario() -> None:
        async with raw_peer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as peer:
            caller = Caller(peer.address, 1.0, Resolver())
            for _ in range(3):
                assert await caller.call(MESSAGES_PATH, b"x", 5.0) == (200, b"ok")
            assert peer.connections == 1
            peer.answer = None
            with pytest.raises(TimeoutError):
                await caller.call(MESSAGES_PATH, b"x", 0.05)
            peer.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            assert await caller.call(MESSAGES_PATH, b"x", 5.0) == (200, b"ok")
            assert peer.connections == 2
            await caller.close()
            with pytest.raises(ConnectionAbortedError):
                await caller.call(MESSAGES_PATH, b"x", 5.0)

    asyncio.run(scenario(), debug=True)


def test_names_are_resolved_at_each_dial(monkeypatch: pytest.MonkeyPatch, raw_peer: Any, single: Any) -> None:
    """A name that points elsewhere after a while, as in a container network, is followed without a new address book."""

    async def scenario() -> None:
        async with raw_peer(b"HTTP/1.1 204 No Content\r\n\r\n") as first, raw_peer(b"HTTP/1.1 204 No Content\r\n\r\n") as second:
            loop = asyncio.get_running_loop()
            present = first

            async def resolve(host: str, port: int, **_: object) -> list[Any]:
                assert (host, port) == ("node-b", 8300)
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", int(present.address.rpartition(":")[2])))]

            monkeypatch.setattr(loop, "getaddrinfo", resolve)
            transport, _ = await single("node-b:8300")
            transport.send((control("a", "b", 1),))
            await until(lambda: first.requests, "the first address is used")
            present = second
            for writer in first._writers:
                writer.transport.abort()
            await until(lambda: transport._peers["b"].control._connection is None, "the loss is noticed")
            transport.send((control("a", "b", 2),))
            await until(lambda: second.requests, "the second address is used")
            await transport.stop()

    asyncio.run(scenario(), debug=True)


def test_name_server_that_hangs_is_asked_once(monkeypatch: pytest.MonkeyPatch, raw_peer: Any, single: Any) -> None:
    """Dials to a name that nobody resolves share one question, end in time, and don't hold up another peer; stopping does not wait for it."""

    async def scenario() -> None:
        async with raw_peer(b"HTTP/1.1 204 No Content\r\n\r\n") as peer:
            questions: list[str] = []

            async def resolve(host: str, port: int, **_: object) -> list[Any]:
                questions.append(host)
                if host == "dead":
                    await asyncio.Event().wait()
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
            transport, recorder = await single("dead:8300")
            transport.connect({"b": "dead:8300", "c": peer.address.replace("127.0.0.1", "living")})
            for losses in (1, 3, 5):
                transport.send((control("a", "b", 1), bulk("a", "b", 1), control("a", "c", 1)))
                await until(lambda losses=losses: len(recorder.lost) >= losses, "the losses are reported")  # type: ignore[misc]  # mypy can't infer it
            assert questions == ["dead", "living"]
            assert len(peer.requests) == 3
            assert set(recorder.lost) == {"b"}
            await transport.stop()

    asyncio.run(scenario(), debug=True)


def test_second_address_of_a_host_is_tried(monkeypatch: pytest.MonkeyPatch, raw_peer: Any) -> None:
    """A name with several addresses is reached when the first of them refuses."""

    async def scenario() -> None:
        async with raw_peer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as peer:
            own = ("127.0.0.1", int(peer.address.rpartition(":")[2]))

            async def resolve(_host: str, port: int, **_: object) -> list[Any]:
                return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)), (socket.AF_INET, socket.SOCK_STREAM, 6, "", own)]

            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
            assert await call(f"both:{own[1]}", "/", b"", 5.0) == (200, b"ok")

    asyncio.run(scenario(), debug=True)


def test_nobody_hears_of_a_name_that_nobody_asks_for_any_more() -> None:
    """When everybody has given up before the name server answers, its error is not reported as one that was forgotten."""

    async def scenario() -> list[dict[str, Any]]:
        unheard: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: unheard.append(context))
        answer: asyncio.Future[Any] = loop.create_future()
        resolver = Resolver()
        resolver._ask = lambda _host, _port: asyncio.wait_for(answer, 30)  # type: ignore[method-assign]  # stands in for a slow name server
        asking = asyncio.create_task(resolver.resolve("n2", 8300))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        answer.set_exception(socket.gaierror(-2, "Name or service not known"))
        while resolver._questions:  # noqa: ASYNC110 - the question's own task ends meanwhile
            await asyncio.sleep(0)
        gc.collect()
        await asyncio.sleep(0)
        return unheard

    assert asyncio.run(scenario()) == []
