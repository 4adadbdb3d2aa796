"""The contract of the transport port as a suite of tests: whoever writes an adapter subclasses it and runs pytest.

::

    class TestMyTransport(TransportContract):
        def make_world(self) -> MyWorld: ...     # a TransportWorld

The class imports no test framework; each test runs an event loop of its own (:meth:`TransportContract.run` may be replaced to run
another kind). Every wait is for a condition and has a deadline.
"""

import asyncio
import hashlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from raft.core.messages import AppendRequest, Heartbeat, ProposeRequest, VoteRequest
from raft.core.model import NodeId
from raft.errors import StorageFailed
from raft.ports.transport import Transport
from raft.testing.transport_doubles import MemorySource, Recorder, append, bulk, control, snapshot_message, until


class TransportWorld(Protocol):
    """The adapter under test with the means to disturb it. Nodes are called ``a`` and ``b`` and know each other."""

    async def open(self) -> None:
        """Start both nodes."""
        ...

    async def close(self) -> None:
        """Stop everything."""
        ...

    def transport(self, node: NodeId) -> Transport:
        """A node's present transport."""
        ...

    def recorder(self, node: NodeId) -> Recorder:
        """The handler of a node's present transport."""
        ...

    async def take_away(self, node: NodeId) -> None:
        """The node ends, like a process that is killed."""
        ...

    async def bring_back(self, node: NodeId) -> None:
        """It begins anew at the same address, with a new transport and a new recorder."""
        ...

    async def stall_bulk(self, sender: NodeId, to: NodeId) -> None:
        """``to`` reads no bulk messages of ``sender`` any more, while control messages still pass. Nothing was sent before."""
        ...

    def cut_connections(self, sender: NodeId, to: NodeId) -> None:
        """Break what connects the two at the moment; they may connect again at once."""
        ...


class TransportContract:
    """Every transport passes these."""

    def make_world(self) -> TransportWorld:
        """Two nodes, not started yet."""
        raise NotImplementedError

    def run(self, scenario: Coroutine[Any, Any, None]) -> None:
        """Run one scenario on an event loop of its own."""
        asyncio.run(scenario, debug=True)

    def check(self, scenario: Callable[[TransportWorld], Coroutine[Any, Any, None]]) -> None:
        """Run one scenario in a world of its own, and see that it leaves no task behind."""

        async def whole() -> None:
            world = self.make_world()
            await world.open()
            try:
                await scenario(world)
            finally:
                await world.close()
            mine = asyncio.current_task()
            left = [task for task in asyncio.all_tasks() if task is not mine]
            assert not left, f"tasks left behind: {left}"

        self.run(whole())

    def test_messages_arrive_unchanged(self) -> None:
        """What is received equals what was sent, in the thread of the loop."""

        async def scenario(world: TransportWorld) -> None:
            sent = (control("a", "b", 1), VoteRequest("a", "b", 4, 10, 3, transfer=True), bulk("a", "b", 2, 1000), append("a", "b", 5, 70_000))
            world.transport("a").send(sent)
            received = world.recorder("b").messages
            await until(lambda: len(received) >= len(sent), "all messages arrive")
            assert {repr(message) for message in received} == {repr(message) for message in sent}
            assert world.recorder("b").threads == {threading.get_ident()}

        self.check(scenario)

    def test_order_within_a_lane_is_kept(self) -> None:
        """Messages of one kind of traffic arrive in the order of sending, also when they are sent in many turns of the loop."""

        async def scenario(world: TransportWorld) -> None:
            count = 600
            for number in range(1, count + 1):
                world.transport("a").send((bulk("a", "b", number, number * 37 % 4000), control("a", "b", number), append("a", "b", number, number)))
                if number % 7 == 0:
                    await asyncio.sleep(0)
                if number % 100 == 0:
                    await until(lambda number=number: len(world.recorder("b").messages) == 3 * number, "what was sent so far arrives")  # type: ignore[misc]  # mypy can't infer it
            for kind in (ProposeRequest, Heartbeat, AppendRequest):
                assert world.recorder("b").numbers(kind) == list(range(1, count + 1))
            bulk_order = [type(message) for message in world.recorder("b").messages if not isinstance(message, Heartbeat)]
            assert bulk_order == [ProposeRequest, AppendRequest] * count

        self.check(scenario)

    def test_both_directions_at_once(self) -> None:
        """Each node sends to the other while it receives."""

        async def scenario(world: TransportWorld) -> None:
            for number in range(50):
                world.transport("a").send((bulk("a", "b", number),))
                world.transport("b").send((bulk("b", "a", number),))
                await asyncio.sleep(0)
            for node in ("a", "b"):
                await until(lambda node=node: world.recorder(node).numbers(ProposeRequest) == list(range(50)), f"all arrive at {node}")  # type: ignore[misc]  # mypy can't infer it

        self.check(scenario)

    def test_send_drops_what_has_no_address(self) -> None:
        """Messages to unknown nodes and to oneself are dropped without an error, and others still arrive."""

        async def scenario(world: TransportWorld) -> None:
            world.transport("a").send((bulk("a", "nobody", 1), bulk("a", "b", 2), control("a", "nobody", 3)))
            await until(lambda: world.recorder("b").messages, "the message to a known node arrives")
            world.transport("a").connect({})
            world.transport("a").send((bulk("a", "b", 4),))
            await asyncio.sleep(0.05)
            assert world.recorder("b").numbers(ProposeRequest) == [2]

        self.check(scenario)

    def test_stuck_bulk_does_not_delay_control(self) -> None:
        """A peer that reads no bulk messages still gets every heartbeat, and sending to it never blocks."""

        async def scenario(world: TransportWorld) -> None:
            await world.stall_bulk("a", "b")
            for number in range(200):
                world.transport("a").send((bulk("a", "b", number, 200_000),))
                await asyncio.sleep(0)
            for number in range(1, 51):
                world.transport("a").send((control("a", "b", number),))
                await until(lambda number=number: world.recorder("b").numbers(Heartbeat)[-1:] == [number], f"heartbeat {number} arrives")  # type: ignore[misc]  # mypy can't infer it
            assert len(world.recorder("b").numbers(ProposeRequest)) < 200

        self.check(scenario)

    def test_absent_peer_is_reported_and_comes_back(self) -> None:
        """Messages to a peer that is away are dropped and reported; once it is back, new ones arrive without any help, and old ones don't."""

        async def scenario(world: TransportWorld) -> None:
            world.transport("a").send((control("a", "b", 1), bulk("a", "b", 1)))
            await until(lambda: len(world.recorder("b").messages) == 2, "the peer is reached at first")
            await world.take_away("b")
            number = 1
            while not world.recorder("a").lost:
                number += 1
                world.transport("a").send((control("a", "b", number), bulk("a", "b", number)))
                await asyncio.sleep(0.01)
                assert number < 1_500, "the loss is never reported"
            assert set(world.recorder("a").lost) == {"b"}
            await world.bring_back("b")
            first_new = number + 1
            while not (world.recorder("b").numbers(Heartbeat) and world.recorder("b").numbers(ProposeRequest)):
                number += 1
                world.transport("a").send((control("a", "b", number), bulk("a", "b", number)))
                await asyncio.sleep(0.01)
                assert number < 3_000, "the peer is never reached again"
            for kind in (Heartbeat, ProposeRequest):
                assert world.recorder("b").numbers(kind)[-1] >= first_new
                assert world.recorder("b").numbers(kind) == sorted(set(world.recorder("b").numbers(kind))), "nothing is doubled or reordered"

        self.check(scenario)

    def test_nothing_is_sent_twice(self) -> None:
        """Connections that break under load lose messages and double none."""

        async def scenario(world: TransportWorld) -> None:
            sent = 0
            for _ in range(20):
                for _ in range(20):
                    sent += 1
                    world.transport("a").send((bulk("a", "b", sent, 500),))
                    await asyncio.sleep(0)
                world.cut_connections("a", "b")
                await asyncio.sleep(0.01)
            last = sent
            while not any(number > last for number in world.recorder("b").numbers(ProposeRequest)):
                sent += 1
                assert sent < last + 1_500, "the peer is never reached again"
                world.transport("a").send((bulk("a", "b", sent),))
                await asyncio.sleep(0.01)
            numbers = world.recorder("b").numbers(ProposeRequest)
            assert len(numbers) == len(set(numbers))

        self.check(scenario)

    def test_snapshot_arrives_whole(self) -> None:
        """Bytes and message arrive, the message after the commit, and the disk work is not done in the loop's thread."""

        async def scenario(world: TransportWorld) -> None:
            for size in (0, 1, 300_000):
                message = snapshot_message("a", "b", index=size + 7)
                source = MemorySource(message.boundary, bytes(number % 251 for number in range(size)))
                await world.transport("a").send_snapshot(message, source)
                await until(lambda message=message: message in world.recorder("b").messages, "the message arrives")  # type: ignore[misc]  # mypy can't infer it
                sink = world.recorder("b").sinks[-1]
                assert sink.committed
                assert bytes(sink.data) == source.data
                assert sink.message == message
                assert threading.get_ident() not in sink.threads
            assert len(world.recorder("b").sinks) == 3

        self.check(scenario)

    def test_snapshot_goes_on_after_a_cut(self) -> None:
        """Connections that break while a snapshot is sent cost no more than a piece: it arrives whole, in the sink where it began."""

        async def scenario(world: TransportWorld) -> None:
            message = snapshot_message("a", "b")
            source = MemorySource(message.boundary, bytes(number % 253 for number in range(700_000)))
            loop = asyncio.get_running_loop()
            cuts = [600_000, 300_000, 100_000]

            def cut_sometimes(offset: int) -> None:
                if cuts and offset >= cuts[-1]:
                    cuts.pop()
                    loop.call_soon_threadsafe(world.cut_connections, "a", "b")

            source.on_read = cut_sometimes
            await world.transport("a").send_snapshot(message, source)
            await until(lambda: message in world.recorder("b").messages, "the message arrives")
            (sink,) = world.recorder("b").sinks
            assert sink.committed
            assert bytes(sink.data) == source.data
            assert not cuts
            assert source.offsets.count(0) <= 1

        self.check(scenario)

    def test_snapshot_goes_on_where_a_failed_attempt_stopped(self) -> None:
        """A sender that had to give up in the middle and is asked once more for the same snapshot goes on where it stopped, in the same sink."""

        async def scenario(world: TransportWorld) -> None:
            message, content = snapshot_message("a", "b"), bytes(number % 249 for number in range(700_000))
            first, again = MemorySource(message.boundary, content), MemorySource(message.boundary, content)
            first.on_read = _fail_from(300_000)
            assert await _fails(world.transport("a").send_snapshot(message, first))
            assert message not in world.recorder("b").messages
            await world.transport("a").send_snapshot(message, again)
            await until(lambda: message in world.recorder("b").messages, "the message arrives")
            (sink,) = world.recorder("b").sinks
            assert sink.committed
            assert bytes(sink.data) == content
            assert min(again.offsets) == max(first.offsets) >= 300_000

        self.check(scenario)

    def test_another_snapshot_begins_anew(self) -> None:
        """What has arrived of one snapshot is no part of another: of another index, or of other bytes under the same one."""

        async def scenario(world: TransportWorld) -> None:
            half = snapshot_message("a", "b")
            for message, byte in ((half, b"y"), (snapshot_message("a", "b", index=8), b"x")):
                broken, source = MemorySource(half.boundary, b"x" * 500_000), MemorySource(message.boundary, byte * 500_000)
                broken.on_read = _fail_from(200_000)
                assert await _fails(world.transport("a").send_snapshot(half, broken))
                await world.transport("a").send_snapshot(message, source)
                await until(lambda message=message: message in world.recorder("b").messages, "the message arrives")  # type: ignore[misc]  # mypy can't infer it
                thrown_away, kept = world.recorder("b").sinks[-2:]
                assert (thrown_away.aborted, thrown_away.committed, kept.committed) == (True, False, True)
                assert bytes(kept.data) == source.data
                assert source.offsets[0] == 0

        self.check(scenario)

    def test_snapshot_with_wrong_bytes_never_exists(self) -> None:
        """A snapshot that is not what its checksum says is not committed, the message is not delivered, and the sender learns it."""

        async def scenario(world: TransportWorld) -> None:
            message = snapshot_message("a", "b")
            source = MemorySource(message.boundary, bytes(100_000))
            source.checksum = hashlib.sha256(b"other").hexdigest()
            assert await _fails(world.transport("a").send_snapshot(message, source))
            assert not any(sink.committed for sink in world.recorder("b").sinks)
            assert all(sink.aborted for sink in world.recorder("b").sinks)
            assert message not in world.recorder("b").messages

        self.check(scenario)

    def test_snapshot_fails_when_the_receiver_can_not_write(self) -> None:
        """A full disk at the receiver: the sender gets an OSError, nothing is delivered, and a later attempt works."""

        async def scenario(world: TransportWorld) -> None:
            message = snapshot_message("a", "b")
            source = MemorySource(message.boundary, bytes(200_000))
            world.recorder("b").fail_at = 0
            assert await _fails(world.transport("a").send_snapshot(message, source))
            assert message not in world.recorder("b").messages
            assert world.recorder("b").sinks[-1].aborted
            world.recorder("b").fail_at = -1
            await world.transport("a").send_snapshot(message, source)
            await until(lambda: message in world.recorder("b").messages, "the message arrives")

        self.check(scenario)

    def test_snapshot_to_an_absent_peer_fails(self) -> None:
        """The sender gets an OSError, for a peer that is away and for one that was never known."""

        async def scenario(world: TransportWorld) -> None:
            await world.take_away("b")
            for to in ("b", "nobody"):
                message = snapshot_message("a", to)
                assert await _fails(world.transport("a").send_snapshot(message, MemorySource(message.boundary, b"data")))

        self.check(scenario)

    def test_heartbeats_pass_while_a_snapshot_is_sent(self) -> None:
        """Each heartbeat arrives soon although a large snapshot is on its way to the same peer."""

        async def scenario(world: TransportWorld) -> None:
            message = snapshot_message("a", "b")
            source = MemorySource(message.boundary, bytes(8 * 1024 * 1024))
            sending = asyncio.ensure_future(world.transport("a").send_snapshot(message, source))
            number = 0
            while not sending.done() or number == 0:
                number += 1
                world.transport("a").send((control("a", "b", number),))
                await until(lambda number=number: world.recorder("b").numbers(Heartbeat)[-1:] == [number], "the heartbeat arrives")  # type: ignore[misc]  # mypy can't infer it
            await sending
            assert bytes(world.recorder("b").sinks[-1].data) == source.data

        self.check(scenario)

    def test_stopped_transport_is_silent(self) -> None:
        """After ``stop`` nothing is received or reported, ``send`` does nothing, and a second ``stop`` is harmless."""

        async def scenario(world: TransportWorld) -> None:
            transport, recorder = world.transport("a"), world.recorder("a")
            world.transport("b").send((bulk("b", "a", 1),))
            await until(lambda: recorder.messages, "the node is reached at first")
            transport.send((bulk("a", "b", 1),))
            await transport.stop()
            received, lost = len(recorder.messages), len(recorder.lost)
            transport.send((bulk("a", "b", 2), control("a", "b", 2)))
            world.transport("b").send((bulk("b", "a", 2), control("b", "a", 2)))
            await until(lambda: world.recorder("b").lost, "the other one notices")
            assert (len(recorder.messages), len(recorder.lost)) == (received, lost)
            await transport.stop()

        self.check(scenario)


async def _fails(sending: Coroutine[Any, Any, None]) -> bool:
    try:
        await sending
    except OSError:
        return True
    return False


def _fail_from(first: int) -> Callable[[int], None]:
    """Lets a source fail to read at and behind an offset."""

    def read(offset: int) -> None:
        if offset >= first:
            raise StorageFailed("read a snapshot", "input/output error")

    return read
