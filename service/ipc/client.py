"""The worker's end of the socket to the agent of its node, for gevent.

One socket a worker carries everything. Whatever requests hand over in one turn of the loop leaves in one frame, so that many writes become
one append and one sync. Barriers are shared: few are under way, and a read joins only one that is sent after the read arrived.

A socket that breaks makes every proposal that was sent on it unknown; a proposal is never sent twice. What had not been sent, and reads,
wait for the reconnection, as long as their own time lasts.

All methods belong to the thread of the hub. The waiting requests hold no timer each: one greenlet looks for the expired ones.
"""

import logging
import os
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import gevent.socket
import msgspec

from service.errors import BackendError, NoLeader, OutcomeUnknown, RequestRejected
from service.ipc import protocol
from service.ipc.page import LeaseView
from service.ipc.waiting import LATE, Barriers, Proposal, Question, wake

log = logging.getLogger(__name__)

REQUEST_SECONDS_MAX = 15.0
# As long as a request waits for a leader, so it waits for the agent.
UNREACHABLE_SECONDS_MAX = 7.0
CONNECT_SECONDS = 1.0
HANDSHAKE_SECONDS = 2.0
RECONNECT_SECONDS_MIN = 0.02
RECONNECT_SECONDS_MAX = 0.5
SWEEP_SECONDS = 0.25
SUSPICION_SECONDS = 10.0
RECEIVE_BYTES = 256 * 1024
FRAME_TARGET_BYTES = 1024 * 1024
IN_FLIGHT_BYTES_MAX = 128 * 1024 * 1024

UNREACHABLE = protocol.NodeState(False, False, 0.0, 0, 0, False, "the agent of this node can't be reached")


class AgentClient:
    """The agent as a request sees it. Create it in the worker process and call :meth:`start`.

    :param path: of the agent's Unix socket.
    :ivar connected: whether the handshake is done.
    :ivar connection: the number of the connection to the agent, from 1 on. Another one may be to another agent, with other files.
    :ivar met: whether it ever was. The agent listens only once it has compared the whole state with its checksums.
    :ivar on_changed: called with every :class:`~service.ipc.protocol.Changed`.
    :ivar on_state: called with every :class:`~service.ipc.protocol.NodeState`, and once when the socket breaks.
    :ivar on_logged: called with every :class:`~service.ipc.protocol.Logged`.
    :ivar on_configured: called with every :class:`~service.ipc.protocol.Configured`: before anything else from a new connection.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        self.connected = False
        self.connection = 0
        self.met = False
        self.on_changed: Callable[[protocol.Changed], None] = lambda _: None
        self.on_state: Callable[[protocol.NodeState], None] = lambda _: None
        self.on_logged: Callable[[protocol.Logged], None] = lambda _: None
        self.on_configured: Callable[[protocol.Configured], None] = lambda _: None
        self._configured = gevent.event.Event()
        self._state = UNREACHABLE
        self._numbers = count(1)
        self._proposals: dict[int, Proposal] = {}
        self._unsent: list[int] = []
        self._barriers = Barriers()
        self._asked: dict[int, Question] = {}
        self._lease: LeaseView | None = None
        self._frames: list[bytes] = []
        self._in_flight_bytes = 0
        self._watching = False
        self._monitored = 0
        self._resuming = 0
        self._suspected_at = -SUSPICION_SECONDS
        self._work = gevent.event.Event()
        self._greenlets: list[Any] = []
        self._closed = False

    @property
    def node_state(self) -> protocol.NodeState:
        """What the agent said last about itself; while it can't be reached, that it knows no leader."""
        return self._state

    def start(self) -> None:
        """Connect, and stay connected until :meth:`close`."""
        self._greenlets = [gevent.spawn(self._stay_connected), gevent.spawn(self._sweep)]

    def await_settings(self, timeout: float) -> bool:
        """Wait until the agent has told the settings in force; at most ``timeout`` seconds.

        :returns: whether it has.
        """
        return bool(self._configured.wait(timeout))

    def close(self) -> None:
        """Let go of the socket; what waits fails."""
        self._closed = True
        gevent.killall(self._greenlets, block=True, timeout=1)
        self._lost()
        for proposal in [self._proposals.pop(number) for number in list(self._proposals)]:
            wake(proposal.waiter, RequestRejected("the worker is stopping"))
        self._barriers.abandon(OutcomeUnknown("the worker is stopping"))

    # -- what requests call --

    def propose(self, command: bytes, timeout: float = REQUEST_SECONDS_MAX) -> bytes:
        """Replicate a command and return what the state machine answered.

        :param timeout: in seconds.
        :raises NoLeader: no leader was found in time; it was not submitted.
        :raises RequestRejected: it was refused before it had an effect.
        :raises OutcomeUnknown: it may have been carried out.
        """
        self._check_open()
        size = len(command)
        if self._in_flight_bytes + size > IN_FLIGHT_BYTES_MAX:
            raise RequestRejected(f"more than {IN_FLIGHT_BYTES_MAX} bytes of writes are under way in this worker")
        number = next(self._numbers)
        self._proposals[number] = proposal = Proposal(command, self._deadline(timeout), timeout)
        self._unsent.append(number)
        self._in_flight_bytes += size
        self._work.set()
        try:
            result: bytes = proposal.waiter.get()
            return result
        finally:
            self._in_flight_bytes -= size
            self._proposals.pop(number, None)

    def barrier(self, timeout: float = REQUEST_SECONDS_MAX, *, lease: bool = False) -> tuple[int, int]:
        """Wait until the local state holds everything that was acknowledged anywhere before this call.

        :param timeout: in seconds.
        :param lease: whether the lease will do where this node leads and has it; then no other node is asked.
        :returns: the index that the local state has reached, and the generation of its file.
        :raises NoLeader: no leader was found in time.
        """
        self._check_open()
        question = Question(self._deadline(timeout), lease=lease)
        self._barriers.join(question)
        self._work.set()
        passed: protocol.BarrierPassed = question.waiter.get()
        return passed.index, passed.generation

    def lease_index(self) -> int | None:
        """What the local state must have applied to hold all that was acknowledged before this call; None: only a :meth:`barrier` can tell."""
        return None if self._lease is None else self._lease.index()

    def suspect(self) -> None:
        """Tell the agent, now and then, that the state could not be read: it finds out whether the node may go on."""
        now = time.monotonic()
        if self.connected and now - self._suspected_at >= SUSPICION_SECONDS:
            self._suspected_at = now
            self._frames.append(protocol.frame(protocol.Suspect()))
            self._work.set()

    def status(self, timeout: float = 2.0) -> dict[str, Any]:
        """What the agent tells about the node and its peers (see :mod:`service.agent.report`)."""
        answer: protocol.Status = self._ask(protocol.AskStatus, timeout)
        return answer.fields

    def members(self, operation: bytes, timeout: float = REQUEST_SECONDS_MAX) -> tuple[int, bytes]:
        """Have something about the membership carried out (see :mod:`service.ipc.membership`).

        :returns: status and JSON.
        :raises NoLeader: the agent can't be reached.
        :raises OutcomeUnknown: it may have been carried out.
        """
        if not self.connected:
            raise NoLeader
        try:
            answer: protocol.Members = self._ask(lambda number: protocol.AskMembers(number, operation), timeout)
        except NoLeader as error:
            raise OutcomeUnknown("the connection to the agent broke before it answered") from error
        return answer.status, answer.body

    def check(self, index: int, timeout: float = REQUEST_SECONDS_MAX) -> dict[str, Any]:
        """How far all members are with the digest of their state at an index (see :mod:`service.agent.checks`)."""
        answer: protocol.Status = self._ask(lambda number: protocol.AskCheck(number, index), timeout)
        return answer.fields

    def reload(self, timeout: float = REQUEST_SECONDS_MAX) -> list[str]:
        """Have the node's settings read again.

        :returns: why nothing has changed; empty when what was read is in force.
        :raises RequestRejected: the agent can't be reached.
        :raises OutcomeUnknown: it may have been done, or may still be.
        """
        if not self.connected:
            raise RequestRejected(UNREACHABLE.reason)
        try:
            answer: protocol.Reloaded = self._ask(protocol.AskReload, timeout)
        except NoLeader as error:
            raise OutcomeUnknown("the connection to the agent broke before it answered") from error
        return answer.problems

    def watch(self, on: bool, timeout: float = REQUEST_SECONDS_MAX) -> int:
        """Ask for :class:`~service.ipc.protocol.Changed` frames, or for no more of them. It holds over reconnections.

        :returns: the index after which every change is announced.
        """
        self._watching = on
        answer: protocol.BarrierPassed = self._ask(lambda number: protocol.Watch(number, on), timeout)
        return answer.index

    def _check_open(self) -> None:
        """Nobody would wake a request that comes after :meth:`close`."""
        if self._closed:
            raise RequestRejected("the worker is stopping")

    def monitor(self, level: int) -> None:
        """Ask for the agent's log lines of a level of :mod:`logging` or above; 0 for no more of them. It holds over reconnections."""
        self._monitored = level
        if self.connected:
            self._frames.append(protocol.frame(protocol.Monitor(level)))
            self._work.set()

    def _deadline(self, timeout: float) -> float:
        return time.monotonic() + (timeout if self.connected else min(timeout, UNREACHABLE_SECONDS_MAX))

    def _ask(self, make: Callable[[int], protocol.FromWorker], timeout: float) -> Any:
        if not self.connected:
            raise NoLeader
        number = next(self._numbers)
        question = Question(time.monotonic() + timeout)
        self._asked[number] = question
        self._frames.append(protocol.frame(make(number)))
        self._work.set()
        try:
            return question.waiter.get()
        finally:
            self._asked.pop(number, None)

    # -- sending --

    def _stay_connected(self) -> None:
        pause = RECONNECT_SECONDS_MIN
        while not self._closed:
            try:
                sock, rest = self._shake_hands()
            except (OSError, msgspec.MsgspecError, EOFError) as error:
                log.debug("no connection to the agent at %s: %s", self._path, error)
                gevent.sleep(pause)
                pause = min(pause * 2, RECONNECT_SECONDS_MAX)
                continue
            pause = RECONNECT_SECONDS_MIN
            self._serve(sock, rest)

    def _shake_hands(self) -> tuple[Any, bytearray]:
        sock = gevent.socket.socket(gevent.socket.AF_UNIX, gevent.socket.SOCK_STREAM)
        try:
            sock.settimeout(CONNECT_SECONDS)
            sock.connect(self._path)
            sock.settimeout(HANDSHAKE_SECONDS)
            sock.sendall(protocol.frame(protocol.Hello(protocol.VERSION, os.getpid())))
            buffer = bytearray()
            while (body := _take_frame(buffer)) is None:
                _receive(sock, buffer)
            hello = protocol.from_agent.decode(body)
            if not isinstance(hello, protocol.Hello) or hello.version != protocol.VERSION:
                log.error("the agent at %s does not speak version %d of the protocol: %r", self._path, protocol.VERSION, hello)
                raise EOFError("another version")  # noqa: TRY301 - one place closes the socket for every failure
            sock.settimeout(None)
        except BaseException:
            sock.close()
            raise
        return sock, buffer

    def _serve(self, sock: Any, buffer: bytearray) -> None:
        self.connected = self.met = True
        self.connection += 1
        if self._watching:
            self._resume_watch()
        if self._monitored:
            self._frames.append(protocol.frame(protocol.Monitor(self._monitored)))
        self._work.set()
        writer = gevent.spawn(self._write, sock)
        try:
            self._read(sock, buffer)
        except (OSError, EOFError, msgspec.MsgspecError) as error:
            if not self._closed:
                log.warning("the connection to the agent broke: %s", error)
        finally:
            writer.kill(block=False)
            sock.close()
            self._lost()

    def _resume_watch(self) -> None:
        # Changes may have been missed while nobody listened: the answer to this wakes every waiter.
        self._resuming = next(self._numbers)
        self._frames.append(protocol.frame(protocol.Watch(self._resuming, on=True)))

    def _write(self, sock: Any) -> None:
        try:
            while True:
                self._work.wait()
                self._work.clear()
                while parts := self._collect():
                    sock.sendall(b"".join(parts))
        except OSError as error:
            log.debug("writing to the agent failed: %s", error)
            # The reading side must notice, too.
            try:
                sock.shutdown(gevent.socket.SHUT_RDWR)
            except OSError:
                return

    def _collect(self) -> list[bytes]:
        """Frames for all that waits, up to about a megabyte; the proposals among them count as sent from here on."""
        parts, self._frames = self._frames, []
        if self._barriers.due:
            number = next(self._numbers)
            parts.append(protocol.frame(protocol.Barrier(number, self._barriers.begin(number))))
        if self._unsent and (ids := self._take_unsent()):
            parts.append(protocol.frame(protocol.Propose(ids, [self._proposals[number].command for number in ids])))
        return parts

    def _take_unsent(self) -> list[int]:
        ids: list[int] = []
        size = taken = 0
        now = time.monotonic()
        for number in self._unsent:
            if size >= FRAME_TARGET_BYTES:
                break
            taken += 1
            if proposal := self._proposals.get(number):
                proposal.sent = True
                proposal.deadline = now + proposal.timeout
                ids.append(number)
                size += len(proposal.command)
        del self._unsent[:taken]
        return ids

    # -- receiving --

    def _read(self, sock: Any, buffer: bytearray) -> None:
        while True:
            while (body := _take_frame(buffer)) is not None:
                self._handle(protocol.from_agent.decode(body))
            _receive(sock, buffer)

    def _handle(self, message: protocol.FromAgent) -> None:
        match message:
            case protocol.Results():
                self._settle(message)
            case protocol.BarrierPassed():
                self._passed(message)
            case protocol.Changed():
                _tell(self.on_changed, message)
            case protocol.NodeState() | protocol.Logged():
                self._tell_of_node(message)
            case protocol.Failed():
                for number in message.ids:
                    self._fail(number, _error(message.kind, message.reason))
            case protocol.Configured():
                _tell(self.on_configured, message)
                self._configured.set()
            case protocol.Lease(path):
                self._see_lease(path)
            case protocol.Status() | protocol.Members() | protocol.Reloaded():
                if message.id in self._asked:
                    wake(self._asked.pop(message.id).waiter, message)
            case protocol.Hello():
                log.warning("the agent said hello twice")

    def _tell_of_node(self, message: protocol.NodeState | protocol.Logged) -> None:
        if isinstance(message, protocol.Logged):
            _tell(self.on_logged, message)
        else:
            self._state = message
            _tell(self.on_state, message)

    def _see_lease(self, path: str) -> None:
        try:
            self._lease = LeaseView(path)
        except OSError as error:
            log.warning("the lease can't be seen, so every read asks the agent: %s", error)

    def _settle(self, message: protocol.Results) -> None:
        for number, result in zip(message.ids, message.results, strict=True):
            if number in self._proposals:
                wake(self._proposals.pop(number).waiter, result)

    def _passed(self, message: protocol.BarrierPassed) -> None:
        if self._barriers.settle(message.id, message):
            self._work.set()
        elif message.id == self._resuming:
            self._resuming = 0
            _tell(self.on_changed, protocol.Changed(message.index, [], [], everything=True))
        elif message.id in self._asked:
            wake(self._asked.pop(message.id).waiter, message)

    def _fail(self, number: int, error: BackendError) -> None:
        if number in self._proposals:
            wake(self._proposals.pop(number).waiter, error)
        elif self._barriers.settle(number, error):
            self._work.set()
        elif number == self._resuming:
            self._resume_watch()
            self._work.set()
        elif number in self._asked:
            wake(self._asked.pop(number).waiter, error)

    def _lost(self) -> None:
        """Settle what depended on the socket that is gone."""
        self.connected = False
        self._lease = None
        self._frames.clear()
        self._resuming = 0
        for number, proposal in list(self._proposals.items()):
            if proposal.sent:
                del self._proposals[number]
                wake(proposal.waiter, OutcomeUnknown("the connection to the agent broke before it answered"))
        for question in self._asked.values():
            wake(question.waiter, NoLeader())
        self._asked.clear()
        self._barriers.lost()
        self._state = msgspec.structs.replace(self._state, leader_known=False, leading=False, reason=UNREACHABLE.reason)
        _tell(self.on_state, self._state)

    # -- time --

    def _sweep(self) -> None:
        while True:
            gevent.sleep(SWEEP_SECONDS)
            self._expire(time.monotonic())

    def _expire(self, now: float) -> None:
        for number, proposal in [(n, p) for n, p in self._proposals.items() if p.deadline <= now]:
            del self._proposals[number]
            wake(proposal.waiter, OutcomeUnknown(LATE) if proposal.sent else RequestRejected(UNREACHABLE.reason))
        for number, question in [(n, q) for n, q in self._asked.items() if q.deadline <= now]:
            del self._asked[number]
            wake(question.waiter, OutcomeUnknown(LATE))
        self._barriers.expire(now)
        if self._barriers.due:
            self._work.set()


def _tell(listener: Callable[[Any], None], message: Any) -> None:
    """Call a listener; one that fails must not cost the connection."""
    try:
        listener(message)
    except Exception:
        log.exception("a listener failed on %r", message)


def _error(kind: str, reason: str) -> BackendError:
    if kind == "no-leader":
        return NoLeader()
    return RequestRejected(reason) if kind == "rejected" else OutcomeUnknown(reason)


def _take_frame(buffer: bytearray) -> bytes | None:
    """Cut the first whole frame's body out of the buffer, or None while it is not complete."""
    start = protocol.HEADER_BYTES
    if len(buffer) < start:
        return None
    end = start + int.from_bytes(buffer[:start], "big")
    if end - start > protocol.FRAME_BYTES_MAX:
        raise EOFError(f"a frame of {end - start} bytes; at most {protocol.FRAME_BYTES_MAX} are allowed")
    if len(buffer) < end:
        return None
    body = bytes(memoryview(buffer)[start:end])
    del buffer[:end]
    return body


def _receive(sock: Any, buffer: bytearray) -> None:
    data = sock.recv(RECEIVE_BYTES)
    if not data:
        raise EOFError("the agent closed it")
    buffer += data
