"""Who a node is, kept in a real ``log.db``."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from raft.core.model import Boundary, HardState
from raft.ports.storage import WriteBatch
from raft.storage.sqlite import SqliteLog
from service.agent.identity import (
    FORMAT,
    Cluster,
    FormedMember,
    Identity,
    join,
    join_later,
    keep_removal,
    load_addresses,
    load_cluster,
    load_identity,
    was_removed,
)
from service.errors import ForeignDirectory

MEMBERS = [FormedMember("n1", "i1", "h1:8300"), FormedMember("n2", "i2", "h2:8300")]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    """An empty log."""
    made = SqliteLog(tmp_path)
    yield made
    made.close()


def test_a_fresh_directory_gets_an_incarnation(log: SqliteLog, tmp_path: Path) -> None:
    """A fresh directory gets a random incarnation, which is kept; another directory gets another."""
    fresh = load_identity(log, "n1")
    assert (fresh.name, fresh.format) == ("n1", FORMAT)
    assert load_identity(log, "n1") == fresh
    log.close()
    reopened = SqliteLog(tmp_path)
    assert load_identity(reopened, "n1") == fresh
    reopened.close()
    (tmp_path / "other").mkdir()
    other = SqliteLog(tmp_path / "other")
    assert load_identity(other, "n1").incarnation != fresh.incarnation
    other.close()


def test_another_name_is_refused(log: SqliteLog) -> None:
    """A directory of another node is refused; the text names both, and the directory stays what it was."""
    fresh = load_identity(log, "n1")
    with pytest.raises(ForeignDirectory, match=r"belongs to node 'n1'; this node is 'n2'"):
        load_identity(log, "n2")
    assert load_identity(log, "n1") == fresh


def test_a_newer_format_is_refused(log: SqliteLog) -> None:
    """A directory of a newer version is refused with both formats; older fields alone are not looked at."""
    log.put("identity", msgspec.json.encode(Identity(FORMAT + 1, "n1", "i1")))
    with pytest.raises(ForeignDirectory, match=f"has format {FORMAT + 1}; this version knows formats up to {FORMAT}"):
        load_identity(log, "n1")
    assert ForeignDirectory.exit_code == 3


def test_the_record_of_a_formation(log: SqliteLog) -> None:
    """A node belongs to no cluster before it joined one; then its log begins with the members as voters, and the record is kept."""
    assert load_cluster(log) is None
    cluster = Cluster("c1", MEMBERS)
    join(log, cluster)
    assert load_cluster(log) == cluster
    boundary = log.load().boundary
    assert (boundary.index, boundary.term) == (0, 0)
    assert [(member.id, member.name, member.address) for member in boundary.configuration.voters] == [
        ("i1", "n1", "h1:8300"),
        ("i2", "n2", "h2:8300"),
    ]


def test_a_crash_while_joining_leaves_a_node_that_is_not_formed(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the record can't be kept the node is not formed yet, and may join again, another cluster, too."""
    with monkeypatch.context() as patch:
        patch.setattr(log, "put", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            join(log, Cluster("lost", MEMBERS))
    assert load_cluster(log) is None
    join(log, Cluster("c2", MEMBERS[:1]))
    assert load_cluster(log) == Cluster("c2", MEMBERS[:1])
    assert [member.id for member in log.load().boundary.configuration.voters] == ["i1"]


def test_joining_forgets_what_an_earlier_attempt_left(log: SqliteLog) -> None:
    """Joining starts from an empty log without a vote."""
    log.write(WriteBatch(hard_state=HardState(term=3, vote="i9")))
    join(log, Cluster("c1", MEMBERS))
    loaded = log.load()
    assert (list(loaded.entries), log.hard_state()) == ([], HardState())
    assert loaded.boundary == Boundary(0, 0, Cluster("c1", MEMBERS).configuration())


def test_members_are_found_by_incarnation() -> None:
    """The record knows its members by incarnation, not by name."""
    cluster = Cluster("c1", MEMBERS)
    assert cluster.member("i2") == MEMBERS[1]
    assert cluster.member("n2") is None


def test_a_node_that_is_added_later(log: SqliteLog) -> None:
    """It begins with an empty log and without a configuration, and keeps where the members are; one that was formed with has none to keep."""
    assert load_addresses(log) == {}
    join_later(log, "c1", {"i1": "h1:8300"})
    assert load_cluster(log) == Cluster("c1", [])
    assert log.load().boundary == Boundary()
    assert load_addresses(log) == {"i1": "h1:8300"}


def test_a_removal_is_kept(log: SqliteLog, tmp_path: Path) -> None:
    """That a node was removed outlives its process."""
    assert not was_removed(log)
    keep_removal(log)
    log.close()
    reopened = SqliteLog(tmp_path)
    assert was_removed(reopened)
    reopened.close()
