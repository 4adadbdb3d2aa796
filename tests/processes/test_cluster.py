"""A cluster of real processes under kills, stops and missing quorums."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from cluster import Cluster, Node, alive, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


def test_any_node_takes_any_request(cluster: Cluster) -> None:
    """What is put at one node is read at once at every other, by default and consistent reads."""
    for number, node in enumerate(cluster.nodes):
        assert node.put(f"from/{node.name}", b"value %d" % number).text == "true"
        for other in cluster.nodes:
            assert other.get(f"from/{node.name}").content == b"value %d" % number
            assert other.get(f"from/{node.name}", "raw&consistent").content == b"value %d" % number


def test_acknowledged_writes_survive_the_kill_of_everything(cluster: Cluster) -> None:
    """Kill -9 of all processes of all nodes at once, amid writes: every acknowledged value, or a later attempt of its writer, is there afterwards."""
    acknowledged: dict[str, int] = {}
    attempted: dict[str, int] = {}
    stopping = threading.Event()

    def write(number: int) -> None:
        node, key = cluster.nodes[number % 3], f"writer/{number}"
        for value in range(1, 100_000):
            if stopping.is_set():
                return
            attempted[key] = value
            try:
                if node.put(key, b"%d" % value).status_code == 200:
                    acknowledged[key] = value
            except requests.RequestException:
                return

    with ThreadPoolExecutor(8) as pool:
        for number in range(8):
            pool.submit(write, number)
        wait_until(lambda: len(acknowledged) == 8 and min(acknowledged.values()) > 20, "every writer has written")
        for node in cluster.nodes:
            node.kill()
        stopping.set()
    cluster.start_all()
    for key, value in acknowledged.items():
        for node in cluster.nodes:
            found = int(node.get(key).text)
            assert value <= found <= attempted[key], f"{key} at {node.name}: {found}, {value} was acknowledged"


def test_minority_says_no_leader_and_serves_stale_reads(cluster: Cluster) -> None:
    """A node without a quorum refuses writes and default reads within about seven seconds, says why at /readyz, and still answers ?stale."""
    node = cluster.followers()[0]
    assert node.put("kept", b"before").text == "true"
    wait_until(lambda: node.get("kept", "raw&stale").content == b"before", "the follower has applied the write")
    for other in cluster.nodes:
        if other is not node:
            other.kill()
    wait_until(lambda: requests.get(f"{node.url}/readyz", timeout=5).status_code == 503, "the node says that it is not ready")
    assert "no leader" in requests.get(f"{node.url}/readyz", timeout=5).text
    assert requests.get(f"{node.url}/livez", timeout=5).status_code == 200
    stale = node.get("kept", "raw&stale")
    assert (stale.status_code, stale.content, stale.headers["X-Consul-KnownLeader"]) == (200, b"before", "false")
    assert int(stale.headers["X-Consul-LastContact"]) > 0
    with ThreadPoolExecutor(2) as pool:
        read, write = pool.submit(node.get, "kept"), pool.submit(node.put, "kept", b"after")
        assert (read.result().status_code, read.result().text) == (500, "No cluster leader")
        assert (write.result().status_code, write.result().text) == (500, "No cluster leader")
        assert write.result().headers["X-Kvorum-Outcome"] == "rejected"
    assert node.get("kept", "raw&stale").content == b"before"


def test_stop_answers_waiting_queries_and_hands_over(cluster: Cluster) -> None:
    """SIGTERM at the leader: a blocking query is answered, the exit code is 0, and the others have a leader of a later term."""
    leader = cluster.leader()
    index = leader.put("watched", b"1") and leader.get("watched").headers["X-Consul-Index"]
    before = leader.status()["node"]["term"]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(leader.get, "watched", f"index={index}&wait=60s", 90)
        wait_until(lambda: _blocking_queries(leader) == 1, "the query waits")
        assert leader.terminate() == 0
        assert waiting.result().status_code == 200
        assert waiting.result().headers["Connection"] == "close"
    other = cluster.followers()[0]
    assert other.put("after", b"x").text == "true"
    assert other.status()["node"]["term"] > before


def _blocking_queries(node: Node) -> float:
    lines = requests.get(f"{node.url}/metrics", timeout=5).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("kvorum_worker_blocking_queries"))


def test_workers_are_replaced(cluster: Cluster) -> None:
    """A web worker that is killed is replaced; the agent and the cluster notice nothing."""
    node = cluster.leader()
    term = node.status()["node"]["term"]
    [worker] = node.worker_pids()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: node.worker_pids() and worker not in node.worker_pids() and node.ready(), "another worker serves")
    assert node.put("after", b"x").text == "true"
    assert node.status()["node"]["term"] == term


def test_agents_interrupt_nobody(cluster: Cluster) -> None:
    """All threads of an agent have the policy that takes the processor from nobody; web workers have the usual one."""
    node = cluster.leader()
    threads = [int(path.name) for path in Path(f"/proc/{node.agent_pid()}/task").iterdir()]
    assert len(threads) >= 3
    assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}
    assert {os.sched_getscheduler(worker) for worker in node.worker_pids()} == {os.SCHED_OTHER}


def test_dead_agent_ends_the_node(cluster: Cluster) -> None:
    """An agent that is killed takes its node down with exit code 5, and leaves no process."""
    node = cluster.followers()[0]
    pids = node.pids()
    os.kill(node.agent_pid(), signal.SIGKILL)
    assert node.wait() == 5
    wait_until(lambda: not any(map(alive, pids)), "no process of the node is left")


def test_killed_supervisor_leaves_no_process(cluster: Cluster) -> None:
    """Kill -9 of the supervisor: the kernel ends everything below it."""
    node = cluster.followers()[0]
    pids = node.pids()
    assert len(pids) >= 4
    assert node.process is not None
    node.process.send_signal(signal.SIGKILL)
    node.wait()
    wait_until(lambda: not any(map(alive, pids)), "no process of the node is left")


def test_follower_far_behind_catches_up(tmp_path: Path) -> None:
    """A node that was away while the log was compacted gets the state as a snapshot, deletions included, and serves the same bytes."""
    settings = {"KVORUM_RAFT_SNAPSHOT_THRESHOLD_ENTRIES": "200", "KVORUM_RAFT_TRAILING_ENTRIES": "20"}
    cluster = Cluster(tmp_path, settings=settings)
    try:
        cluster.start_all()
        away = cluster.followers()[0]
        assert away.put("gone", b"x").text == "true"
        away.kill()
        leader = cluster.leader()
        with ThreadPoolExecutor(8) as pool:
            assert all(answer.text == "true" for answer in pool.map(lambda n: leader.put(f"k/{n}", b"%d" % n), range(1_000)))
        requests.delete(f"{leader.url}/v1/kv/gone", timeout=10)
        wait_until(lambda: leader.status()["node"]["first_index"] > 500, "the leader has compacted its log")
        away.start()
        cluster.wait_ready()
        wait_until(lambda: away.get("k/999", "raw&stale").content == b"999", "the node has caught up")
        for number in range(0, 1_000, 50):
            assert away.get(f"k/{number}", "raw&stale").content == b"%d" % number
        assert away.get("gone", "raw&stale").status_code == 404
        assert away.status()["node"]["generation"] > 1
    finally:
        cluster.stop_all()


def _reason(node: Node, text: str) -> str:
    answer = requests.get(f"{node.url}/readyz", timeout=5)
    return answer.text if answer.status_code == 503 and text in answer.text else ""


def test_cluster_forms_only_when_all_are_there(tmp_path: Path) -> None:
    """Two of three initial members don't form a cluster, and say whom they wait for; the third completes it."""
    cluster = Cluster(tmp_path)
    try:
        for node in cluster.nodes[:2]:
            node.start()
        assert "n3" in wait_until(lambda: _reason(cluster.nodes[0], "waiting for n3"), "n1 waits for n3")
        assert cluster.nodes[0].get("x", "raw&stale").status_code == 404
        cluster.nodes[2].start()
        cluster.wait_ready()
        ids = {node.status()["node"]["cluster_id"] for node in cluster.nodes}
        assert len(ids) == 1
        assert ids != {""}
    finally:
        cluster.stop_all()


def test_no_elections_under_load(cluster: Cluster) -> None:
    """Large and small writes from many clients depose nobody: the term is the same afterwards."""
    before = cluster.leader().status()["node"]["term"]
    deadline = time.monotonic() + 5

    def write(number: int) -> int:
        done = 0
        session = requests.Session()
        while time.monotonic() < deadline:
            size = 400_000 if number == 0 else 100
            answer = session.put(f"{cluster.nodes[number % 3].url}/v1/kv/load/{number}-{done % 50}", data=b"x" * size, timeout=20)
            assert answer.status_code == 200, answer.text
            done += 1
        return done

    with ThreadPoolExecutor(24) as pool:
        written = sum(pool.map(write, range(24)))
    assert written > 100
    assert cluster.leader().status()["node"]["term"] == before
