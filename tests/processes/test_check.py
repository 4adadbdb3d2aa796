"""Real nodes compare their states while a client writes, and a node whose state was changed behind its back is found."""

import json
import subprocess
import sys
import threading
from typing import Any

import pytest
from cluster import Cluster, Node, wait_until
from pysqlite3 import dbapi2

from service.store import sums

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(180)]


def check(node: Node) -> tuple[int, dict[str, Any]]:
    """``kvorum check`` at a node: exit code and answer."""
    command = [sys.executable, "-P", "-m", "service.cli", "check", "--http-addr", node.url, "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_check_under_writes(cluster: Cluster) -> None:
    """Asked at any node, in the middle of a stream of writes, all digests are of one index and equal, and no write fails."""
    stop, refused, written = threading.Event(), [], 0

    def write() -> None:
        nonlocal written
        while not stop.is_set():
            if cluster.nodes[written % 3].put(f"k{written % 500}", b"%d" % written).text != "true":
                refused.append(written)
            written += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = []
        for node in cluster.nodes:
            before = written
            wait_until(lambda before=before: written > before + 10, "writes go on")
            code, found = check(node)
            assert (code, found["verdict"]) == (0, "equal"), found
            assert len({one["sha256"] for one in found["nodes"]}) == 1
            seen.append(found["index"])
    finally:
        stop.set()
        writer.join()
    assert refused == []
    assert seen == sorted(set(seen))


def test_difference_is_found(cluster: Cluster) -> None:
    """One value changed in the state file of a stopped follower, its sums too: exit code 1, and its digest is the one that differs. A dead node is no
    match.
    """
    follower, leader = cluster.followers()[0], cluster.leader()
    assert leader.put("colour", b"blue").text == "true"
    wait_until(lambda: follower.get("colour", "stale&raw").content == b"blue", "the follower has applied the write")
    assert follower.terminate() == 0
    code, found = check(leader)
    assert (code, found["verdict"]) == (1, "incomplete")

    state = follower.data_dir / "state-1.db"
    connection = dbapi2.connect(state, isolation_level=None)
    connection.execute("UPDATE kv SET value = x'00' WHERE key = CAST('colour' AS BLOB)")
    (applied,) = connection.execute("SELECT applied_index FROM meta").fetchone()
    connection.close()
    sums.seal(state, applied)
    follower.start()
    wait_until(follower.ready, "the follower is back")
    code, found = check(leader)
    assert (code, found["verdict"]) == (1, "different"), found
    digests = [one["sha256"] for one in found["nodes"]]
    assert [one["name"] for one in found["nodes"] if digests.count(one["sha256"]) == 1] == [follower.name]
