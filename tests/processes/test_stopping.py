"""A node that is told to stop answers every request that it may have carried out: no client is left with a write of which it knows nothing."""

import http.client
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from cluster import Cluster, Node, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

CLIENTS = 10


def connection(node: Node) -> http.client.HTTPConnection:
    """Open a connection."""
    host, _, port = node.url.removeprefix("http://").partition(":")
    made = http.client.HTTPConnection(host, int(port), timeout=30)
    made.connect()
    return made


class Client(threading.Thread):
    """Writes to one node until that refuses connections.

    :param keeps: whether it uses a connection as long as the node allows.
    :ivar unanswered: what happened to requests that may have been sent and were not answered.
    """

    def __init__(self, node: Node, number: int, pause_seconds: float, *, keeps: bool) -> None:
        super().__init__(daemon=True)
        self.answered = 0
        self.last_answers = 0
        self.unanswered: list[str] = []
        self._node, self._number, self._pause_seconds, self._keeps = node, number, pause_seconds, keeps

    def run(self) -> None:
        """Write."""
        while True:
            try:
                connected = connection(self._node)
            except ConnectionRefusedError:
                return
            with_answer = True
            while with_answer and not self.unanswered:
                with_answer = self._write(connected)
            connected.close()
            if self.unanswered:
                return

    def _write(self, connected: http.client.HTTPConnection) -> bool:
        """Write once; whether the connection may be used again."""
        try:
            connected.request("PUT", f"/v1/kv/stopping/{self._number}", body=b"x", headers={} if self._keeps else {"Connection": "close"})
            answer = connected.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.unanswered.append(repr(error))
            return False
        self.answered += 1
        last = answer.getheader("Connection") == "close"
        self.last_answers += last and self._keeps
        time.sleep(self._pause_seconds)
        return not last


@pytest.mark.slow
@pytest.mark.parametrize("stopped", ["leader", "follower"])
def test_no_request_goes_unanswered_when_a_node_stops(cluster: Cluster, stopped: str) -> None:
    """SIGTERM under clients that keep their connections, and others that open one for each request: each request is answered, or nobody let in."""
    for _round in range(3):
        node = cluster.leader() if stopped == "leader" else cluster.followers()[0]
        clients = [Client(node, number, 0.05 * (number % 3), keeps=number % 2 == 0) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        wait_until(lambda clients=clients: all(client.answered > 5 for client in clients), "all clients write")  # type: ignore[misc]  # mypy knows no default here
        assert node.terminate() == 0
        for client in clients:
            client.join()
        assert [text for client in clients for text in client.unanswered] == []
        assert all(client.last_answers for client in clients if client._keeps), "who keeps a connection is told when it ends"
        node.start()
        cluster.wait_ready()


def test_idle_connections(cluster: Cluster) -> None:
    """A request that comes on an idle connection while the node stops is answered, as the last; one that stays idle does not hold the node up."""
    node = cluster.followers()[0]
    with closing(connection(node)) as watching, closing(connection(node)) as used, closing(connection(node)) as unused, ThreadPoolExecutor(1) as pool:
        for one in (used, unused):
            assert exchange(one, "GET", "/livez")[0] == 200
        ending = pool.submit(node.terminate)
        while exchange(watching, "GET", "/livez")[2] != "close":
            time.sleep(0.01)
        assert exchange(used, "PUT", "/v1/kv/late") == (200, b"true", "close")
        assert ending.result() == 0
        assert unused.sock is not None
        assert unused.sock.recv(1) == b""
    assert "are cut" not in node.log()
    assert cluster.leader().get("late").status_code == 200


def exchange(one: http.client.HTTPConnection, method: str, path: str) -> tuple[int, bytes, str | None]:
    """One request: status, body and the Connection header of the answer."""
    one.request(method, path, body=b"x" if method == "PUT" else None)
    answer = one.getresponse()
    return answer.status, answer.read(), answer.getheader("Connection")


@pytest.mark.parametrize(("method", "outcomes"), [("PUT", {"unknown", "rejected"}), ("GET", {None})])
def test_who_waits_for_a_leader_is_answered(cluster: Cluster, method: str, outcomes: set[str | None]) -> None:
    """Without a leader requests wait; when the node stops meanwhile they are answered all the same, a write with its outcome."""
    node = cluster.followers()[0]
    for other in cluster.nodes:
        if other is not node:
            other.kill()
    wait_until(lambda: "no leader" in node.unready(), "the node knows no leader")
    with closing(connection(node)) as waiting:
        waiting.request(method, "/v1/kv/held", body=b"x" if method == "PUT" else None)
        assert node.terminate() == 0
        answer = waiting.getresponse()
        assert answer.read()
        assert (answer.status, answer.getheader("Connection")) == (500, "close")
        assert answer.getheader("X-Kvorum-Outcome") in outcomes
