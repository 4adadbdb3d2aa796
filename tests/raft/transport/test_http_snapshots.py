"""Snapshots over HTTP that break off, stop, are cancelled or compete."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest

from raft.testing.transport_doubles import MemorySource, bulk, control, snapshot_message, until
from raft.transport.limits import HttpLimits

OpenWorld = Callable[..., AbstractAsyncContextManager[Any]]


def test_stop_breaks_off_what_is_under_way(raw_peer: Any, single: Any) -> None:
    """Stopping ends a snapshot, a dial and unanswered requests at once: the snapshot's caller gets an OSError, no task is left."""

    async def scenario() -> None:
        async with raw_peer(None) as peer:
            transport, recorder = await single(peer.address)
            message = snapshot_message("a", "b")
            sending = asyncio.ensure_future(transport.send_snapshot(message, MemorySource(message.boundary, bytes(100_000))))
            transport.send((control("a", "b", 1), bulk("a", "b", 1)))
            await until(lambda: len(peer.requests) == 3, "all have been sent")
            await transport.stop()
            with pytest.raises(OSError, match="stopped"):
                await sending
            assert recorder.lost == []
            with pytest.raises(OSError, match=r"no address|stopped"):
                await transport.send_snapshot(message, MemorySource(message.boundary, b""))

    asyncio.run(scenario(), debug=True)


def test_snapshot_is_cancelled_with_its_caller(raw_peer: Any, single: Any) -> None:
    """A cancelled caller takes the connection with it."""

    async def scenario() -> None:
        async with raw_peer(None) as peer:
            transport, _ = await single(peer.address)
            message = snapshot_message("a", "b")
            sending = asyncio.ensure_future(transport.send_snapshot(message, MemorySource(message.boundary, bytes(100_000))))
            await until(lambda: peer.requests, "the first piece was sent")
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            assert transport._sender._tasks == set()
            await transport.stop()

    asyncio.run(scenario(), debug=True)


def test_half_received_snapshot_is_thrown_away(open_http_world: OpenWorld, impatient: HttpLimits) -> None:
    """A snapshot whose sender has gone is aborted after a while, and one of a later term replaces one that is not finished."""

    async def scenario() -> None:
        async with open_http_world(replace(impatient, snapshot_idle_seconds=0.2)) as world:
            recorder = world.recorder("b")

            async def begin(term: int) -> None:
                message = snapshot_message("a", "b", term=term)
                source = MemorySource(message.boundary, bytes(500_000))
                gate = asyncio.Event()
                loop = asyncio.get_running_loop()

                def open_gate(offset: int) -> None:
                    if offset >= 100_000:
                        loop.call_soon_threadsafe(gate.set)

                source.on_read = open_gate
                sending = asyncio.ensure_future(world.transport("a").send_snapshot(message, source))
                await gate.wait()
                sending.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await sending

            await begin(3)
            await begin(4)
            await until(lambda: len(recorder.sinks) == 2, "both have begun")
            await until(lambda: all(sink.aborted for sink in recorder.sinks), "both are thrown away")
            assert recorder.messages == []

    asyncio.run(scenario(), debug=True)


def test_older_snapshot_does_not_replace_a_newer_one(open_http_world: OpenWorld, impatient: HttpLimits) -> None:
    """While a snapshot of a later term is received, one of an earlier leader is refused and the first still arrives."""

    async def scenario() -> None:
        async with open_http_world(impatient) as world:
            newer, older = snapshot_message("a", "b", term=4), snapshot_message("a", "b", term=3)
            source = MemorySource(newer.boundary, bytes(300_000))
            loop = asyncio.get_running_loop()
            outcomes: list[BaseException | None] = []

            def try_older(offset: int) -> None:
                """In the sender's thread: the newer one does not go on before the older one is refused."""
                if offset == 100_000:
                    older_source = MemorySource(older.boundary, bytes(300_000))
                    attempt = asyncio.run_coroutine_threadsafe(world.transport("a").send_snapshot(older, older_source), loop)
                    outcomes.append(attempt.exception(timeout=30))

            source.on_read = try_older
            await world.transport("a").send_snapshot(newer, source)
            (outcome,) = outcomes
            assert isinstance(outcome, OSError)
            assert "409" in str(outcome)
            assert world.recorder("b").messages == [newer]
            assert len(world.recorder("b").sinks) == 1

    asyncio.run(scenario(), debug=True)
