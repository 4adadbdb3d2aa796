"""What may be done about damage: when the others are asked, what they must answer, and what is moved."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from raft.core.model import Boundary
from raft.errors import StorageCorrupt, StorageFailed
from raft.storage.sqlite import SqliteLog
from service.agent import aside, identity, repair
from service.agent.identity import Cluster, FormedMember
from service.agent.machine import StateCorrupt
from service.agent.repair import REPAIRS_MAX, Repair, RepairRefused
from service.agent.stores import open_stores
from service.settings import load

PEERS = "n1=http://h1:8300,n2=http://h2:8300,n3=http://h3:8300"
LOG_DAMAGE = StorageCorrupt("read the log", "the checksum of entry 7 is wrong", "restore a backup")
STATE_DAMAGE = StateCorrupt("apply from index 7", "database disk image is malformed")
ANSWER = {"cluster_id": "c1", "committed": True, "members": [{"name": "n1"}, {"name": "n2"}, {"name": "n3"}]}


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data of n1, a member of cluster c1; nobody has patience."""
    monkeypatch.setattr(repair, "PATIENCE_SECONDS", 0.0)
    make(tmp_path)
    return tmp_path


def make(path: Path, boundary: int = 0) -> None:
    """Make the data directory of a member."""
    stores = open_stores(path, "n1")
    members = [FormedMember(name, f"i-{name}", f"{name}:8300") for name in ("n1", "n2", "n3")]
    identity.join(stores.log, Cluster("c1", members))
    if boundary:
        stores.log.reset(Boundary(boundary, 1, Cluster("c1", members).configuration()), stores.log.hard_state())
    stores.log.close()
    stores.state.close()
    (path / "snapshots").mkdir(exist_ok=True)
    (path / "unrelated").write_text("kept")


class Peers:
    """Answer to whoever asks for the members."""

    def __init__(self, status: int = 200, **changes: Any) -> None:
        self.status, self.answer = status, ANSWER | changes
        self.asked: list[str] = []

    async def call(self, address: str, _path: str, _body: bytes, _seconds: float) -> tuple[int, bytes]:
        """See :data:`service.agent.formation.Call`."""
        self.asked.append(address)
        return self.status, json.dumps(self.answer).encode()


def heal(directory: Path, damage: StorageCorrupt, peers: Peers, **settings: str) -> Repair:
    """Have a directory repaired."""
    environ = {"KVORUM_NAME": "n1", "KVORUM_DATA_DIR": str(directory), "KVORUM_INITIAL_CLUSTER": PEERS, **settings}
    made = Repair(load(environ), peers.call)
    asyncio.run(made.heal(damage))
    return made


def names(directory: Path) -> set[str]:
    """What lies in a directory, but for what has been set aside."""
    return {path.name for path in directory.iterdir() if not path.name.startswith("damaged")}


def test_the_whole_directory_is_set_aside(directory: Path) -> None:
    """With a leader's answer everything of the node moves, durably, and a new node can begin; what is not the node's stays."""
    before = names(directory)
    heal(directory, LOG_DAMAGE, Peers())
    assert names(directory) == {"unrelated"}
    place = next(directory.glob("damaged-*"))
    assert {path.name for path in place.iterdir()} == before - {"unrelated"}
    stores = open_stores(directory, "n1", 8)
    assert identity.load_cluster(stores.log) is None
    assert stores.state.generation == 8
    stores.log.close()
    stores.state.close()


@pytest.mark.parametrize(
    ("peers", "settings", "why"),
    [
        (Peers(503, detail="no leader is known"), {}, "no leader is known"),
        (Peers(committed=False), {}, "a change of its members is under way"),
        (Peers(members=[{"name": "n2"}, {"name": "n3"}]), {}, "has no member n1"),
        (Peers(cluster_id="c2"), {}, "belong to cluster c1, the others to c2"),
        (Peers(), {"KVORUM_REPAIR": "refuse"}, "the setting repair is 'refuse'"),
        (Peers(), {"KVORUM_INITIAL_CLUSTER": ""}, "knows no peers"),
        (Peers(), {"KVORUM_NAME": "n2"}, "belongs to node 'n1'; this node is 'n2'"),
    ],
    ids=["no leader", "uncommitted", "no member", "other cluster", "switched off", "no peers", "other node"],
)
def test_refusals(directory: Path, peers: Peers, settings: dict[str, str], why: str) -> None:
    """Whatever is not certain is refused by name, with the damage, and nothing moves."""
    before = names(directory)
    with pytest.raises(RepairRefused, match="entry 7") as caught:
        heal(directory, LOG_DAMAGE, peers, **settings)
    assert why in str(caught.value)
    assert names(directory) == before
    assert not list(directory.glob("damaged*"))


def test_a_removed_node_is_not_repaired(directory: Path) -> None:
    """Who was removed does not come back by way of a damage."""
    store = SqliteLog(directory)
    identity.keep_removal(store)
    store.close()
    with pytest.raises(RepairRefused, match="has removed this node"):
        heal(directory, LOG_DAMAGE, Peers())


def test_a_state_follows_from_a_whole_log(directory: Path) -> None:
    """Nobody is asked, the log stays and the state goes."""
    peers = Peers(503)
    heal(directory, STATE_DAMAGE, peers)
    assert peers.asked == []
    assert {"log.db", "log.witness", "snapshots"} <= names(directory)
    assert not {"CURRENT", "state-1.db"} & names(directory)
    assert {path.name for path in next(directory.glob("damaged-state-*")).iterdir()} >= {"CURRENT", "state-1.db"}


@pytest.mark.parametrize("short", [True, False], ids=["short log", "damaged log"])
def test_a_state_does_not_follow_from_half_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, short: bool) -> None:
    """A log that begins later, without a snapshot, or is damaged itself, can't rebuild the state: the others are asked."""
    monkeypatch.setattr(repair, "PATIENCE_SECONDS", 0.0)
    make(tmp_path, boundary=5 if short else 0)
    if not short:
        (tmp_path / "log.db").write_bytes(b"\x55" * 8192)
    peers = Peers(503, detail="no leader is known")
    with pytest.raises(RepairRefused, match="no leader is known"):
        heal(tmp_path, STATE_DAMAGE, peers)
    assert peers.asked
    assert "CURRENT" in names(tmp_path)


def test_one_of_a_kind_is_kept(directory: Path) -> None:
    """The newest directory of each kind stays; an older one goes when a newer is there."""
    heal(directory, STATE_DAMAGE, Peers())
    for _ in range(2):
        make(directory)
        heal(directory, LOG_DAMAGE, Peers())
    kept = sorted(path.name for path in directory.glob("damaged-*"))
    assert len(kept) == 2
    assert kept[1].startswith("damaged-state-")


def test_a_crash_while_files_move(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the moment, the next start finishes: nothing of the old node is left behind beside the new one."""
    before = names(directory) - {"unrelated"}
    rename, moved = Path.rename, 0

    def stop_at_three(path: Path, target: Path) -> Path:
        nonlocal moved
        moved += 1
        if moved == 3:
            raise OSError(5, "power is gone")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stop_at_three)
    with pytest.raises(StorageFailed):
        heal(directory, LOG_DAMAGE, Peers())
    monkeypatch.setattr(Path, "rename", rename)
    assert len(list(directory.glob("damaged-*.unfinished"))) == 1
    aside.finish(directory)
    assert names(directory) == {"unrelated"}
    assert {path.name for path in next(directory.glob("damaged-*Z")).iterdir()} == before
    aside.finish(directory)
    assert len(list(directory.iterdir())) == 2


def test_a_disk_that_damages_again_and_again(directory: Path) -> None:
    """After so many repairs within the hour the node refuses: the disk is not to be trusted."""
    made = heal(directory, LOG_DAMAGE, Peers())
    for _ in range(REPAIRS_MAX - 1):
        asyncio.run(made.heal(LOG_DAMAGE))
    with pytest.raises(RepairRefused, match="not to be trusted"):
        asyncio.run(made.heal(LOG_DAMAGE))
