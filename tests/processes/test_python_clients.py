"""Two clients that Python programs use with Consul work unchanged: py-consul (``import consul``) and consul-kv (``import consul_kv``).

Each talks to three nodes, writes through one and reads through another.
"""

import base64
import threading
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import consul
import consul_kv
import pytest
import requests
from cluster import Cluster, Node

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """A leader, and its followers."""
    made = Cluster(Path(tmp_path_factory.mktemp("clients")))
    try:
        made.start_all()
        yield [made.leader(), *made.followers()]
    finally:
        made.stop_all()


@pytest.fixture
def clients(nodes: list[Node]) -> Iterator[list[Any]]:
    """A client of py-consul at each node."""
    made = [consul.Consul(host="127.0.0.1", port=int(node.url.rpartition(":")[2])) for node in nodes]
    yield made
    for client in made:
        client.http.close()


def test_keys_by_py_consul(clients: list[Any]) -> None:
    """Values, flags, conditions, listings and deletions mean at every node what they mean at the others."""
    first, second, third = clients
    assert first.kv.get("py/none")[1] is None
    assert first.kv.put("py/a", "blue", flags=7)
    index, entry = second.kv.get("py/a")
    assert (entry["Value"], entry["Flags"], entry["ModifyIndex"]) == (b"blue", 7, int(index))
    assert third.kv.put("py/a", b"\xff\x00", cas=entry["ModifyIndex"])
    assert not first.kv.put("py/a", "late", cas=entry["ModifyIndex"])
    assert second.kv.put("py/b/ü", "", cas=0)
    assert [(item["Key"], item["Value"]) for item in third.kv.get("py/", recurse=True)[1]] == [("py/a", b"\xff\x00"), ("py/b/ü", None)]
    assert first.kv.get("py/", keys=True, separator="/")[1] == ["py/a", "py/b/"]
    for consistency in ("default", "consistent", "stale"):
        assert first.kv.get("py/a", consistency=consistency)[1]["Value"] == b"\xff\x00"
    assert not second.kv.delete("py/a", cas=entry["ModifyIndex"])
    assert second.kv.delete("py/", recurse=True)
    assert third.kv.get("py/", recurse=True)[1] is None


def test_sessions_and_locks_by_py_consul(clients: list[Any]) -> None:
    """A lock has one holder; its session can be seen, renewed and ended at any node, and takes its keys along when it is told to."""
    first, second, third = clients
    holder = first.session.create(name="holder", behavior="delete", ttl=60, lock_delay=0)
    other = second.session.create(lock_delay=0)
    assert {holder, other} <= {session["ID"] for session in third.session.list()[1]}
    assert second.session.info(holder)[1]["Behavior"] == "delete"
    assert third.session.renew(holder)["TTL"] == "60s"
    assert first.kv.put("py/lock", "mine", acquire=holder)
    assert not second.kv.put("py/lock", "theirs", acquire=other)
    assert third.kv.get("py/lock")[1]["Session"] == holder
    assert not second.kv.put("py/lock", "", release=other)
    assert first.kv.put("py/lock", "free", release=holder)
    assert second.kv.put("py/lock", "theirs", acquire=other)
    assert second.session.destroy(other)
    assert third.kv.put("py/lock", "mine", acquire=holder)
    assert third.session.destroy(holder)
    assert first.kv.get("py/lock")[1] is None
    with pytest.raises(consul.NotFound):
        first.session.renew(holder)


def test_transactions_by_py_consul(clients: list[Any]) -> None:
    """All of a transaction happens or none of it, and the client's error says which operation failed."""
    first, second, _ = clients

    def operation(verb: str, key: str, **fields: Any) -> dict[str, Any]:
        return {"KV": {"Verb": verb, "Key": key, **fields}}

    value = base64.b64encode(b"in one go").decode()
    done = first.txn.put([operation("set", "py/t1", Value=value), operation("set", "py/t2", Value=value), operation("get", "py/t1")])
    assert [result["KV"]["Key"] for result in done["Results"]] == ["py/t1", "py/t2", "py/t1"]
    assert done["Results"][2]["KV"]["Value"] == value
    assert second.txn.put([operation("get", "py/t2")])["Results"][0]["KV"]["Value"] == value
    with pytest.raises(consul.ConsulException, match='"OpIndex":1'):
        second.txn.put([operation("delete", "py/t1"), operation("check-not-exists", "py/t2")])
    assert first.kv.get("py/t1")[1] is not None


def test_waiting_by_py_consul(clients: list[Any]) -> None:
    """A query that waits at one node answers when the key is written at another, with the new value; and unchanged when its time is up."""
    first, second, _ = clients
    assert first.kv.put("py/watched", "before")
    index, _entry = second.kv.get("py/watched")
    seen: list[Any] = []
    watcher = threading.Thread(target=lambda: seen.append(second.kv.get("py/watched", index=index, wait="60s")))
    watcher.start()
    assert first.kv.put("py/unrelated", "x")
    assert first.kv.put("py/watched", "after")
    watcher.join(50)
    assert seen[0][1]["Value"] == b"after"
    assert int(seen[0][0]) > int(index)
    assert second.kv.get("py/watched", index=seen[0][0], wait="10ms") == seen[0]


def test_consul_kv(nodes: list[Node]) -> None:
    """Its dictionaries are written as one transaction and read as one listing; a condition that does not hold is an error."""
    first, second, third = (consul_kv.Connection(endpoint=f"{node.url}/v1/", timeout=20) for node in nodes)
    first.put("ck/one", "blue")
    assert second.get("ck/one") == {"ck/one": "blue"}
    second.put_dict({"ck": {"deep": {"a": "1", "ü": "2"}, "b": "3"}})
    assert third.get_dict("ck") == {"ck": {"one": "blue", "deep": {"a": "1", "ü": "2"}, "b": "3"}}
    assert third.get_mapping("ck/deep") == {"ck/deep/a": "1", "ck/deep/ü": "2"}
    value, index = first.get_cas("ck/b")["ck/b"]
    assert (value, index) == ("3", requests.get(f"{nodes[1].url}/v1/kv/ck/b", timeout=15).json()[0]["ModifyIndex"])
    third.put_mapping({"ck/new": "", "ck/newer": ""}, verb="check-not-exists")
    third.put_mapping({"ck/new": "4"})
    with pytest.raises(urllib.error.HTTPError, match="409"):
        first.put_mapping({"ck/newer": "", "ck/new": ""}, verb="check-not-exists")
    assert second.get("ck/new") == {"ck/new": "4"}
    with pytest.raises(urllib.error.HTTPError, match="404"):
        second.get("ck/newer")
    first.delete("ck/new")
    third.delete("ck", recurse=True)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        second.get("ck", recurse=True)
