"""Bounds of the HTTP transport: sizes, counts and times, each with its default.

What depends on the settings of the node follows from them: :meth:`HttpLimits.for_config`. The defaults here are those of the default settings.
"""

from dataclasses import dataclass, replace
from typing import Self

from raft.config import RaftConfig

KIB = 1024
MIB = 1024 * KIB

ENTRY_BYTES = 64
"""More than index, term, kind and length of one entry take in a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLimits:
    """Bounds of one connection to one peer.

    :param queue_messages_max: messages that wait to be sent; beyond it some are dropped.
    :param queue_bytes_max: their encoded length; one message is always taken when none waits.
    :param drop_oldest: whether the oldest waiting message is dropped for a new one, rather than the new one.
    :param batch_bytes_max: messages are merged into one request up to this length.
    :param window_requests_max: requests on their way that are not yet answered.
    :param request_seconds: a peer that owes answers and gives none for so long means that the connection is dead.
    :param redial_seconds_min: pause after the first failed dial; it doubles with each further one.
    :param redial_seconds_max: longest pause between two dials.
    """

    queue_messages_max: int
    queue_bytes_max: int
    drop_oldest: bool
    request_seconds: float
    batch_bytes_max: int = 256 * KIB
    window_requests_max: int = 32
    redial_seconds_min: float = 0.02
    redial_seconds_max: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Bounds of the whole transport of one node.

    :param body_bytes_max: longest body, sent or received. A message that is longer is dropped, so it must exceed the largest append.
    :param head_bytes_max: longest request line with headers that is received.
    :param connections_max: connections that peers may hold open to this node.
    :param receive_seconds: how long the rest of a begun request, or the reading of an answer, may take a peer.
    :param server_idle_seconds: a connection without a request is closed after this time; longer than ``client_idle_seconds``, so
        that it is the sender who closes, at a time when nothing is on its way.
    :param client_idle_seconds: a connection that was not needed for so long is closed.
    :param connect_seconds: longest dial, name resolution included.
    :param sweep_seconds: how often deadlines are looked at.
    :param snapshot_chunk_bytes: length of one piece of a snapshot.
    :param snapshot_request_seconds: longest answer to one piece; the last is answered when the whole is durable.
    :param snapshot_attempts_max: attempts without progress before a snapshot is given up.
    :param snapshot_idle_seconds: a half-received snapshot of which nothing more arrives is thrown away after this time.
    :param control: the lane for messages of :data:`raft.core.messages.CONTROL`.
    :param bulk: the lane for all others.
    """

    body_bytes_max: int = 66 * MIB
    head_bytes_max: int = 16 * KIB
    connections_max: int = 1_024
    receive_seconds: float = 10.0
    server_idle_seconds: float = 600.0
    client_idle_seconds: float = 60.0
    connect_seconds: float = 1.0
    sweep_seconds: float = 0.1
    snapshot_chunk_bytes: int = MIB
    snapshot_request_seconds: float = 30.0
    snapshot_attempts_max: int = 4
    snapshot_idle_seconds: float = 60.0
    control: LaneLimits = LaneLimits(queue_messages_max=256, queue_bytes_max=MIB, drop_oldest=True, request_seconds=1.0)
    bulk: LaneLimits = LaneLimits(queue_messages_max=4_096, queue_bytes_max=32 * MIB, drop_oldest=False, request_seconds=5.0)

    @classmethod
    def for_config(cls, config: RaftConfig) -> Self:
        """The limits that go with a node's settings.

        * ``body_bytes_max``: what may be appended or forwarded at once, of as many entries as a log holds.
        * A peer counts as silent after two election timeouts: before that its followers have given it up anyway. Bulk has ten, for a slow line.
        * The pauses between dials lie between a fifth of a heartbeat and two: a peer that comes back hears the next heartbeat but one.
        """
        heartbeat, timeout = config.heartbeat_ms / 1000, config.election_timeout_ms / 1000
        payload = max(config.append_bytes_max, config.uncommitted_bytes_max)
        base = cls()

        def lane(limits: LaneLimits, request_seconds: float) -> LaneLimits:
            return replace(limits, request_seconds=request_seconds, redial_seconds_min=heartbeat / 5, redial_seconds_max=2 * heartbeat)

        return replace(
            base,
            body_bytes_max=payload + ENTRY_BYTES * config.snapshot_threshold_entries + MIB,
            connect_seconds=2 * timeout,
            sweep_seconds=heartbeat,
            snapshot_chunk_bytes=config.snapshot_chunk_bytes,
            control=lane(base.control, 2 * timeout),
            bulk=lane(replace(base.bulk, queue_bytes_max=max(base.bulk.queue_bytes_max, 4 * config.append_bytes_max)), 10 * timeout),
        )
