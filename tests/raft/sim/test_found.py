"""One small test for each fault that a schedule has found: it does not depend on what a seed draws."""

from raft.config import RaftConfig
from raft.core.messages import AppendRequest, InstallSnapshot
from raft.core.model import Boundary, Configuration, Entry, EntryKind, HardState, Member
from raft.core.node import RaftNode

MEMBERS = Configuration(voters=tuple(Member(name, name, f"{name}:8300") for name in ("n1", "n2", "n3")))


def test_entries_are_still_being_applied_when_a_snapshot_arrives() -> None:
    """Reports of the state machine from before an install are taken, and the applied index is the snapshot's only once that is in place."""
    node = RaftNode(
        node_id="n1",
        config=RaftConfig(),
        boundary=Boundary(0, 0, MEMBERS),
        entries=(),
        hard_state=HardState(),
        applied=0,
        jitter=lambda _: 0,
    )
    entries = tuple(Entry(index, 1, EntryKind.COMMAND, b"x") for index in (1, 2, 3))
    node.step(AppendRequest("n2", "n1", 1, 0, 0, entries, 3))
    written = node.ready()
    assert written is not None
    node.advance(written.number)
    applied = node.ready()
    assert applied is not None
    assert [entry.index for entry in applied.committed] == [1, 2, 3]
    node.step(InstallSnapshot("n2", "n1", 1, Boundary(30, 1, MEMBERS)))
    install = node.ready()
    assert install is not None
    assert install.snapshot == Boundary(30, 1, MEMBERS)
    node.applied_to(2)
    assert node.status().applied_index == 2
    node.advance(install.number)
    assert node.status().applied_index == 30
