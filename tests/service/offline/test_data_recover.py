"""``kvorum data recover``: what it shows, what it writes, and everything it refuses without changing a byte."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest
from data_directories import cluster_of, contents, data_directory, member
from pysqlite3 import dbapi2

from raft.core.membership import decode_configuration
from raft.core.model import Boundary, Configuration, EntryKind
from raft.storage.directory import DirectoryLock
from raft.storage.inspection import inspect_log
from raft.storage.snapshots import FileSnapshots
from raft.storage.sqlite import SqliteLog
from service.agent.formation import Hello
from service.agent.identity import Cluster, load_cluster, load_identity
from service.cli.main import run
from service.offline.directory import inspect
from service.offline.survivors import best, check_comparable, lacks


@contextmanager
def peer(name: str, cluster: Cluster | None, incarnation: str = "") -> Iterator[str]:
    """A node that answers who it is; its address."""
    hello = Hello(1, name, incarnation or member(name).id, [], cluster)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = msgspec.json.encode(hello)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Stay silent."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def recover(*arguments: str | Path) -> int:
    """Run the command; the exit code."""
    return run(["data", "recover", *map(str, arguments)])


def unchanged(before: dict[str, str], directory: Path) -> bool:
    """Whether all is what it was, but for the text of the lock."""
    return {**contents(directory), "LOCK": ""} == {**before, "LOCK": ""}


def test_recovered_directory(directory: Path) -> None:
    """All entries stay; a configuration of this node alone follows them in a new term; cluster id and mark are new; the log as it was lies aside."""
    before = (directory / "log.db").read_bytes()
    assert recover(directory, "--yes") == 0
    log = SqliteLog(directory)
    loaded, hard_state, cluster = log.load(), log.hard_state(), load_cluster(log)
    assert load_identity(log, "n1").incarnation == "id-of-n1"
    log.close()
    assert [entry.index for entry in loaded.entries] == [1, 2, 3, 4, 5, 6]
    last = loaded.entries[-1]
    assert (last.kind, last.term, hard_state.term, hard_state.vote, hard_state.commit) == (EntryKind.CONFIGURATION, 3, 3, None, 3)
    assert decode_configuration(last.data) == Configuration((member("n1"),))
    assert cluster is not None
    assert cluster.cluster_id != "c1"
    assert [one.incarnation for one in cluster.members] == ["id-of-n1"]
    found = inspect(directory)
    assert found.damages == []
    assert found.mark is not None
    assert (found.mark.from_cluster, found.mark.index, found.mark.term, found.mark.left_out) == ("c1", 6, 3, ["id-of-n2", "id-of-n3"])
    assert (directory / f"before-recovery-{cluster.cluster_id}" / "log.db").read_bytes() == before


def test_put_back(directory: Path) -> None:
    """The copy, put back, undoes the recovery."""
    before = inspect(directory)
    assert recover(directory, "--yes") == 0
    (copy,) = directory.glob("before-recovery-*")
    (copy / "log.db").replace(directory / "log.db")
    assert inspect(directory) == before


def test_shown_first(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --yes and without a terminal it tells what is kept, uncertain, lost and left out, and changes nothing."""
    before = contents(directory)
    assert recover(directory) == 3
    told = capsys.readouterr().err
    for text in ("up to 3 it is known", "Whether 4 to 5 were", "after index 5", "n2 (127.0.0.1:9), n3 (127.0.0.1:9)", "does not answer", "--yes"):
        assert text in told, text
    assert unchanged(before, directory)


def test_new_address(directory: Path) -> None:
    """A node that moves is written down at its new address; one that can't be used is refused with exit code 2."""
    assert recover(directory, "--yes", "--address", "node1.example:0") == 2
    assert recover(directory, "--yes", "--address", "node1.example:8301") == 0
    assert inspect(directory).log.configuration.voters[0].address == "node1.example:8301"


def test_twice(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was recovered is a quorum by itself: a second time is refused."""
    assert recover(directory, "--yes") == 0
    before = contents(directory)
    assert recover(directory, "--yes") == 3
    assert "a quorum by itself" in capsys.readouterr().err
    assert unchanged(before, directory)


def test_quorum_that_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One answering member of three is a quorum together with this node: refused, saying who answered."""
    with peer("n2", cluster_of()) as address:
        path = data_directory(tmp_path / "n1", cluster=cluster_of(addresses=("127.0.0.1:9", address)))
        before = contents(path)
        assert recover(path, "--yes") == 3
        told = capsys.readouterr().err
        assert "the quorum is not lost" in told
        assert f"{address} answers as n2 of cluster c1" in told
        assert unchanged(before, path)


@pytest.mark.parametrize("cluster", [None, cluster_of(cluster_id="c2")], ids=["empty", "another cluster"])
def test_answers_that_do_not_count(tmp_path: Path, cluster: Cluster | None) -> None:
    """Who answers at a member's address, but is empty or of another cluster, is no part of a quorum."""
    with peer("n2", cluster) as address:
        path = data_directory(tmp_path / "n1", cluster=cluster_of(addresses=("127.0.0.1:9", address)))
        assert recover(path, "--yes") == 0


def test_two_of_five(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of five, one that answers and this one are no quorum; of a joint change both halves count."""
    names = ("n1", "n2", "n3", "n4", "n5")
    with peer("n2", cluster_of(names)) as address:
        path = data_directory(tmp_path / "n1", cluster=cluster_of(names, ("127.0.0.1:9", address)))
        assert recover(path, "--yes") == 0
        half = Configuration(voters=(member("n1"), member("n2", address), member("n3")), outgoing=(member("n1"), member("n4"), member("n5")))
        joint = data_directory(tmp_path / "joint", cluster=cluster_of(names), configurations={5: half})
        assert recover(joint, "--yes") == 0
        whole = Configuration(voters=half.voters, outgoing=(member("n1"), member("n2", address), member("n5")))
        joint = data_directory(tmp_path / "whole", cluster=cluster_of(names), configurations={5: whole})
        assert recover(joint, "--yes") == 3
        assert "the quorum is not lost" in capsys.readouterr().err


def test_membership_that_moved_on(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A node of this cluster that the log does not know proves that the log is out of date: refused, naming it."""
    with peer("n4", cluster_of()) as address:
        assert recover(directory, "--yes", "--ask", address) == 3
    assert "n4 of cluster c1, but is no member" in capsys.readouterr().err
    with peer("n1", cluster_of()) as address:
        assert recover(directory, "--yes", "--ask", address) == 3
    assert "runs already, on another copy" in capsys.readouterr().err


def test_refused_directories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Running, damaged, half-installed, never formed, foreign and absent: each is refused by name and left as it is."""
    absent = tmp_path / "absent"
    assert recover(absent, "--yes") == 3
    assert not absent.exists()
    running = data_directory(tmp_path / "running")
    with DirectoryLock(running):
        assert recover(running, "--yes") == 3
    damaged = data_directory(tmp_path / "damaged")
    connection = dbapi2.connect(damaged / "log.db", isolation_level=None)
    connection.execute("UPDATE entries SET data = x'00' WHERE log_index = 4")
    connection.close()
    half = data_directory(tmp_path / "half", terms=(), commit=0)
    FileSnapshots(half / "snapshots").create(Boundary(7, 2, Configuration())).commit()
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    store = SqliteLog(fresh)
    load_identity(store, "n1")
    store.close()
    capsys.readouterr()
    for path, due in ((damaged, "entry 4"), (half, "installing a snapshot"), (fresh, "belongs to no cluster")):
        before = contents(path)
        assert recover(path, "--yes") == 3
        assert due in capsys.readouterr().err
        assert unchanged(before, path)


def test_node_that_was_added_or_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A node that was added later forgets where the others were; one that the cluster has removed is no survivor."""
    path = data_directory(tmp_path / "n1", cluster=Cluster("c1", []), configurations={1: cluster_of().configuration()})
    store = SqliteLog(path)
    store.put("addresses", b'{"id-of-n2": "127.0.0.1:9"}')
    store.close()
    assert recover(path, "--yes") == 0
    assert inspect_log(path).records["addresses"] == b"{}"
    removed = data_directory(tmp_path / "removed")
    store = SqliteLog(removed)
    store.put("removed", b"true")
    store.close()
    before = contents(removed)
    assert recover(removed, "--yes") == 3
    assert "has removed n1" in capsys.readouterr().err
    assert unchanged(before, removed)


def test_compared_directories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The directory that loses less is named and the other refused; of two clusters or twice one node nothing is compared."""
    short = data_directory(tmp_path / "n1", terms=(1, 1, 1, 2))
    long = data_directory(tmp_path / "n2", "n2", terms=(1, 1, 1, 2, 2), commit=4)
    assert recover(short, "--yes", "--compare", long) == 3
    assert f"{long} is to be recovered, not {short}" in capsys.readouterr().err
    foreign = data_directory(tmp_path / "foreign", "n3", cluster=cluster_of(cluster_id="c2"))
    assert recover(long, "--yes", "--compare", foreign) == 3
    assert "of cluster c2" in capsys.readouterr().err
    twin = data_directory(tmp_path / "twin", "n2")
    assert recover(long, "--yes", "--compare", twin) == 3
    assert "both of node n2" in capsys.readouterr().err
    assert recover(long, "--yes", "--compare", short) == 0


def test_a_later_term_is_not_enough(tmp_path: Path) -> None:
    """Figure 8 of the paper: the log with the later last term lacks an entry that the other one knows to be committed, so the other one is best."""
    later = inspect(data_directory(tmp_path / "n1", terms=(1, 3), commit=1))
    knowing = inspect(data_directory(tmp_path / "n2", "n2", terms=(1, 2), commit=2))
    check_comparable([later, knowing])
    assert best([later, knowing]) is knowing
    assert lacks(later, [later, knowing]) == ["n2 knows index 2 of term 2 to be committed, which n1 does not hold"]
    unknowing = inspect(data_directory(tmp_path / "n3", "n3", terms=(1, 2), commit=1))
    assert best([later, unknowing]) is later


def test_equal_directories(tmp_path: Path) -> None:
    """Among equals the one that was named first is as good as any."""
    first, second = (inspect(data_directory(tmp_path / name, name)) for name in ("n1", "n2"))
    assert best([first, second]) is first
    assert best([second, first]) is second


def test_mark_is_told(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An inspection tells later that and from what the node was recovered."""
    assert recover(directory, "--yes") == 0
    capsys.readouterr()
    assert run(["data", "inspect", str(directory), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["recovery"]["from_cluster"] == "c1"
    assert inspect_log(directory).damages == []
