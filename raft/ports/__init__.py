"""The five ports that make a node: what the library asks of the world around it.

Each is a Protocol whose text states order, threads and durability. For each the library ships an adapter in memory and a
real one, and :mod:`raft.testing.conformance` holds one suite a port that every adapter must pass.
"""

from raft.ports.machine import Capture, StateMachine
from raft.ports.storage import LoadedLog, LogStore, SnapshotSink, SnapshotSource, SnapshotStore, StableStore, WriteBatch
from raft.ports.transport import Transport, TransportHandler

__all__ = [
    "Capture",
    "LoadedLog",
    "LogStore",
    "SnapshotSink",
    "SnapshotSource",
    "SnapshotStore",
    "StableStore",
    "StateMachine",
    "Transport",
    "TransportHandler",
    "WriteBatch",
]
