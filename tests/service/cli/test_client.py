"""The client library: what it sends, and what its errors say about the outcome."""

import socket
from typing import Any

import pytest

from service.client import AddressInvalid, Client, ClientError, Entry, Once, base_url

HARD_KEYS = ["a b", "ä/ö", "a//b", "/a", "a/", "a/../b", "./x", "a?b=c#d", "100%", "%2F", "a+b", "\t", "dir/.hidden/..", "😀", "\udcff"]


@pytest.mark.parametrize("key", HARD_KEYS)
def test_a_key_arrives_as_it_is(node: Any, key: str) -> None:
    """No character of a key is folded, decoded twice or lost on the way."""
    with Client() as client:
        assert client.put(key, b"value", flags=7)
        assert list(node.data) == [key.encode("utf-8", "surrogateescape")]
        if key != "\udcff":
            assert client.get(key) == Entry(key, b"value", 7, node.index, node.index)
        assert client.delete(key)
    assert not node.data


def test_values_are_bytes(node: Any) -> None:
    """Every byte survives, and an empty value is no missing key."""
    value = bytes(range(256)) * 10
    with Client() as client:
        client.put("all", value)
        client.put("empty", b"")
        assert [entry.value for entry in client.entries()] == [value, b""]
        assert client.get("empty") is not None
        assert client.get("absent") is None
    assert len(node.data) == 2


def test_consistency_and_conditions_are_sent(node: Any) -> None:
    """Flags without a value stay without one; conditions come back as a verdict."""
    with Client() as client:
        client.get("k", "stale")
        client.keys("p", "consistent")
        assert client.put("k", b"1", cas=0)
        assert not client.put("k", b"2", cas=0)
        assert not client.delete("k", cas=1)
        with pytest.raises(ValueError, match="consistency is 'eventual'"):
            client.get("k", "eventual")
    assert [path for _method, path in node.requests[:3]] == ["/v1/kv/k?stale", "/v1/kv/p?keys&consistent", "/v1/kv/k?cas=0"]


def test_a_listing_is_decoded_as_it_arrives(node: Any) -> None:
    """A listing of several chunks comes out whole and in order, and the first entry before the last is decoded."""
    for number in range(50):
        node.store(f"k{number:03}", bytes([number]) * 9_000)
    with Client() as client:
        entries = client.entries("k")
        assert next(entries).key == "k000"
        assert [entry.value[0] for entry in entries] == list(range(1, 50))


@pytest.mark.parametrize(
    ("status", "told", "outcome"),
    [
        (400, "", "rejected"),
        (403, "", "rejected"),
        (413, "", "rejected"),
        (500, "rejected", "rejected"),
        (500, "unknown", "unknown"),
        (500, "", "unknown"),
    ],
)
def test_a_refused_write_tells_its_outcome(node: Any, status: int, told: str, outcome: str) -> None:
    """The header decides; without it 4xx did not happen and a server's failure is unknown."""
    node.fail(status, "No cluster leader", told)
    with Client() as client, pytest.raises(ClientError, match="No cluster leader") as caught:
        client.put("k", b"v")
    assert (caught.value.outcome, caught.value.status) == (outcome, status)


def test_a_lost_connection_makes_a_write_unknown(node: Any) -> None:
    """The write may have happened; it is not sent again. A read had no effect."""
    node.fail(0)
    with Client() as client:
        with pytest.raises(ClientError, match="broke") as caught:
            client.put("k", b"v")
        assert caught.value.outcome == "unknown"
        assert len(node.requests) == 1
        with pytest.raises(ClientError) as caught:
            client.get("k")
        assert caught.value.outcome == "rejected"


def test_a_silent_node_makes_a_write_unknown() -> None:
    """A node that accepts and never answers: the write times out with an unknown outcome."""
    with socket.create_server(("127.0.0.1", 0)) as silent, Client(f"127.0.0.1:{silent.getsockname()[1]}", answer_seconds=0.2) as client:
        with pytest.raises(ClientError, match=r"did not answer within 0\.2 s") as caught:
            client.put("k", b"v")
        assert caught.value.outcome == "unknown"


def test_a_refused_connection_rejects_a_write() -> None:
    """Nothing left, so nothing happened; the message names the address and the system's reason."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    with Client(address) as client, pytest.raises(ClientError, match=rf"{address} can't be reached: Connection refused") as caught:
        client.put("k", b"v")
    assert caught.value.outcome == "rejected"
    assert caught.value.retryable


@pytest.mark.parametrize("body", [b"{", b"[{}]", b'{"a": 1}', b'[{"Key": "a", "Value": "*"}]', b'"text"', b"[1]", b"["])
def test_nonsense_from_a_node_is_an_error_of_its_own(node: Any, body: bytes) -> None:
    """An answer that makes no sense is a ClientError, never a crash."""
    node.fail(200, body.decode())
    with Client() as client:
        with pytest.raises(ClientError):
            client.get("k")
        with pytest.raises(ClientError):
            list(client.entries("k"))
        with pytest.raises(ClientError) as caught:
            client.put("k", b"v")
        assert caught.value.outcome == "unknown"


def test_the_environment_names_node_and_token(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """KVORUM_HTTP_ADDR wins over CONSUL_HTTP_ADDR, and proxies have no say."""
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "the-token")
    with Client() as client:
        client.get("k")
    assert node.headers[0]["X-Consul-Token"] == "the-token"
    monkeypatch.delenv("KVORUM_HTTP_ADDR")
    monkeypatch.setenv("CONSUL_HTTP_ADDR", f"http://{node.address}/")
    with Client() as client:
        assert client.get("k") is None


def test_a_token_file_can_be_named_by_a_flag(node: Any, kvorum: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """KVORUM_HTTP_TOKEN_FILE counts as Consul's variable does, --token-file more than both; it excludes --token."""
    for name in ("flag", "variable"):
        (tmp_path / name).write_text(f"from-{name}\n")
    monkeypatch.setenv("KVORUM_HTTP_TOKEN_FILE", str(tmp_path / "variable"))
    assert kvorum("kv", "put", "k", "v").code == 0
    assert kvorum("kv", "put", "k", "v", "--token-file", str(tmp_path / "flag")).code == 0
    assert [headers["X-Consul-Token"] for headers in node.headers] == ["from-variable", "from-flag"]
    assert kvorum("kv", "put", "k", "v", "--token-file", str(tmp_path / "flag"), "--token", "t").code == 2


def test_the_token_can_lie_in_a_file(node: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """CONSUL_HTTP_TOKEN_FILE is read; one that can't be read is named."""
    (tmp_path / "token").write_text("from-file\n")
    monkeypatch.setenv("CONSUL_HTTP_TOKEN_FILE", str(tmp_path / "token"))
    with Client() as client:
        client.get("k")
    assert node.headers[0]["X-Consul-Token"] == "from-file"
    monkeypatch.setenv("CONSUL_HTTP_TOKEN_FILE", str(tmp_path / "absent"))
    with pytest.raises(AddressInvalid, match="absent"):
        Client()
    with pytest.raises(AddressInvalid, match="no HTTP header"):
        Client(token="a\nb")


@pytest.mark.parametrize(
    ("address", "url"), [("h", "http://h:8500"), ("h:1", "http://h:1"), ("https://h:2/", "https://h:2"), ("[::1]:3", "http://[::1]:3")]
)
def test_addresses_are_understood(address: str, url: str) -> None:
    """A scheme and a port may be left out."""
    assert base_url(address) == url


@pytest.mark.parametrize("address", ["ftp://h", "h:99999", "h:x", "http://h:1/path", "u@h:1", "unix:///run/x", "h h"])
def test_bad_addresses_are_named(address: str) -> None:
    """The message holds the address that was given."""
    with pytest.raises(AddressInvalid, match=r"the address .* ") as caught:
        base_url(address)
    assert repr(address) in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_write_under_a_key(node: Any) -> None:
    """Put, delete and delete of a tree carry the key and since when it is asked; others carry neither. What can't be a key is not sent."""
    with Client() as client:
        client.put("k", b"1", once=Once("one"))
        client.delete("k", once=Once("two", 42))
        client.delete_tree("k", once=Once("three"))
        client.put("k", b"1")
        for wrong in ("", "\n", "ä", "x" * 256):
            with pytest.raises(ClientError, match="can't be an Idempotency-Key") as caught:
                client.put("k", b"1", once=Once(wrong))
            assert caught.value.outcome == "rejected"
    sent = [(headers.get("Idempotency-Key"), headers.get("X-Kvorum-Since")) for headers in node.headers]
    assert sent == [("one", None), ("two", "42"), ("three", None), (None, None)]


def test_the_index_of_the_last_write_is_kept(node: Any) -> None:
    """The client knows the newest index that an answer has told; one without an index, as a Consul's, changes nothing."""
    with Client() as client:
        client.put("k", b"1")
        assert client.index == 0
        for told, known in (("12", 12), ("9", 12), ("x", 12), ("13", 13)):
            node.extra = {"X_Kvorum_Index": told}
            client.put("k", b"1")
            assert client.index == known
