"""What a worker and the agent of its node say to each other, over one Unix socket a worker.

A frame is a length of four bytes (big-endian) and that many bytes of msgpack: one of the classes below. Both sides begin with
:class:`Hello`; a version that the other does not speak ends the connection with a log line, not with a guess. What a worker had sent when
the socket breaks has an unknown outcome.

Everything that gathered in one turn of a loop travels in one frame: commands of many requests become one append and one sync.
"""

from typing import Any

import msgspec

VERSION = 4
FRAME_BYTES_MAX = 64 * 1024 * 1024
HEADER_BYTES = 4


class Hello(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """The first frame of either side."""

    version: int
    pid: int


class Propose(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """Worker: commands to replicate. ``ids`` name them on this socket, in the same order."""

    ids: list[int]
    commands: list[bytes]


class Barrier(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """Worker: answer once the local state holds everything that was acknowledged anywhere before this frame was sent.

    :param lease: whether the leader may answer under its lease, where it has one; otherwise a quorum is asked.
    """

    id: int
    lease: bool = False


class AskStatus(msgspec.Struct, array_like=True, frozen=True, tag=4):
    """Worker: describe the node and its peers."""

    id: int


class Watch(msgspec.Struct, array_like=True, frozen=True, tag=5):
    """Worker: whether anybody waits for changes here. While ``on``, every applied batch is announced by :class:`Changed`."""

    id: int
    on: bool


class AskMembers(msgspec.Struct, array_like=True, frozen=True, tag=6):
    """Worker: carry out what is asked about the membership; see :mod:`service.ipc.membership`."""

    id: int
    operation: bytes


class AskCheck(msgspec.Struct, array_like=True, frozen=True, tag=7):
    """Worker: ask every member for the digest of its state at an index. The answer is a :class:`Status`."""

    id: int
    index: int


class Suspect(msgspec.Struct, array_like=True, frozen=True, tag=8):
    """Worker: the state could not be read; look at all of it. There is no answer."""


class AskReload(msgspec.Struct, array_like=True, frozen=True, tag=20):
    """Worker: read the settings again. The answer is :class:`Reloaded`."""

    id: int


class Monitor(msgspec.Struct, array_like=True, frozen=True, tag=9):
    """Worker: which log lines of the agent are wanted here from now on. There is no answer but :class:`Logged`.

    :param level: of :mod:`logging`, the lowest that is wanted; 0 for none.
    """

    level: int


class Results(msgspec.Struct, array_like=True, frozen=True, tag=10):
    """Agent: what the state machine answered, as :mod:`service.domain.results`. Parallel lists."""

    ids: list[int]
    results: list[bytes]


class Failed(msgspec.Struct, array_like=True, frozen=True, tag=11):
    """Agent: requests (of any kind) that were not carried out.

    :param kind: ``no-leader``, ``rejected`` or ``unknown``.
    """

    ids: list[int]
    kind: str
    reason: str


class BarrierPassed(msgspec.Struct, array_like=True, frozen=True, tag=12):
    """Agent: read now; the state file of ``generation`` holds everything up to ``index``. Also answers :class:`Watch`."""

    id: int
    index: int
    generation: int


class Status(msgspec.Struct, array_like=True, frozen=True, tag=13):
    """Agent: the answer to :class:`AskStatus` or :class:`AskCheck`; for the fields see :mod:`service.agent.report`, :mod:`service.agent.checks`."""

    id: int
    fields: dict[str, Any]


class Changed(msgspec.Struct, array_like=True, frozen=True, tag=14):
    """Agent: entries up to ``index`` were applied and can be read. Sent after COMMIT, in order of index.

    :param keys: keys that were set or deleted one by one.
    :param prefixes: prefixes that were deleted whole.
    :param everything: anything may have changed (a snapshot was installed, or there were too many to name).
    :param tables: other tables in which something changed.
    :param sessions: ids of those that were created or destroyed.
    """

    index: int
    keys: list[bytes]
    prefixes: list[bytes]
    everything: bool = False
    tables: list[str] = []
    sessions: tuple[str, ...] = ()


class NodeState(msgspec.Struct, array_like=True, frozen=True, tag=15):
    """Agent: sent at the start, at every change and every 100 ms.

    :param leader_known: whether this node knows a leader.
    :param leading: whether it is the leader.
    :param contact: ``time.clock_gettime(CLOCK_BOOTTIME)`` in seconds when it last heard from a leader; 0.0 for never.
    :param applied: the last applied index.
    :param generation: of the state file.
    :param quitting: the node is stopping: answer the waiting ones.
    :param reason: why ``/readyz`` says no; empty when it says yes.
    """

    leader_known: bool
    leading: bool
    contact: float
    applied: int
    generation: int
    quitting: bool
    reason: str


class Members(msgspec.Struct, array_like=True, frozen=True, tag=16):
    """Agent: the answer to :class:`AskMembers`, a status of HTTP and an object in JSON."""

    id: int
    status: int
    body: bytes


class Logged(msgspec.Struct, array_like=True, frozen=True, tag=17):
    """Agent: one line of its log.

    :param level: of :mod:`logging`.
    :param milliseconds: since 1970.
    """

    level: int
    milliseconds: int
    logger: str
    message: str


class Configured(msgspec.Struct, array_like=True, frozen=True, tag=18):
    """Agent: the settings in force, sent first of all and at every change.

    :param values: those that may change while the node runs, by name; see :func:`service.reloading.reloadable_values`.
    """

    values: dict[str, int | float | str]


class Lease(msgspec.Struct, array_like=True, frozen=True, tag=20):
    """Agent: where to see until when local reads need nobody; see :mod:`service.ipc.page`."""

    path: str


class Reloaded(msgspec.Struct, array_like=True, frozen=True, tag=19):
    """Agent: the answer to :class:`AskReload`; every worker has been sent :class:`Configured` before.

    :param problems: why nothing has changed; empty when what was read is in force.
    """

    id: int
    problems: list[str]


FromWorker = Hello | Propose | Barrier | AskStatus | Watch | AskMembers | AskCheck | Suspect | AskReload | Monitor
FromAgent = Hello | Results | Failed | BarrierPassed | Status | Changed | NodeState | Members | Logged | Configured | Reloaded | Lease

_encoder = msgspec.msgpack.Encoder()
from_worker = msgspec.msgpack.Decoder(FromWorker)
from_agent = msgspec.msgpack.Decoder(FromAgent)


def frame(message: FromWorker | FromAgent) -> bytes:
    """The bytes of one frame."""
    body = _encoder.encode(message)
    return len(body).to_bytes(HEADER_BYTES, "big") + body
