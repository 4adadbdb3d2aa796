"""The operations of the public HTTP API."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple, Self
from urllib.parse import quote

import requests
from urllib3.exceptions import HTTPError as TransportError

from service.client import answers
from service.client.answers import CHUNK_BYTES, Entry, Page
from service.client.connection import Connection
from service.client.errors import ClientError

ANSWER_SECONDS = 30.0
CONSISTENCIES = ("default", "consistent", "stale", "available")
SCAN_PAGE = 1_000
KEY_CHARACTERS_MAX = 255
SKIPPED_HEADER = "X-Kvorum-Skipped"
_MEMBERS = "/v1/cluster/members"
_TRANSFER = "/v1/cluster/transfer"
_SNAPSHOT = "/v1/snapshot"


class Once(NamedTuple):
    """Under what a write may be made again: however often it comes with the same, to any node of kvorum, it takes effect once.

    :param key: 1 to 255 printable characters of ASCII; best a random UUID a write.
    :param since: a log index that was seen before the first attempt (:attr:`Client.index`). A node that may have forgotten an attempt since then
        says that the outcome is unknown; with 0 it carries the write out.
    """

    key: str
    since: int = 0

    @property
    def headers(self) -> dict[str, str]:
        """As it is sent."""
        if not (self.key.isascii() and self.key.isprintable() and 0 < len(self.key) <= KEY_CHARACTERS_MAX):
            raise ClientError(f"{self.key!r} can't be an Idempotency-Key: 1 to {KEY_CHARACTERS_MAX} printable characters of ASCII can")
        return {"Idempotency-Key": self.key} | ({"X-Kvorum-Since": str(self.since)} if self.since else {})


class Client:
    """Speaks to one node.

    :param address: ``host:port`` or ``http(s)://host:port``; None: ``KVORUM_HTTP_ADDR``, ``CONSUL_HTTP_ADDR``, or 127.0.0.1:8500.
    :param token: sent as ``X-Consul-Token``; None: ``KVORUM_HTTP_TOKEN``, ``CONSUL_HTTP_TOKEN``, or the file that the same with ``_FILE`` names.
    :param answer_seconds: how long the node may be silent while an answer is awaited.
    :param environ: where the variables are looked up.
    :raises AddressInvalid: when address or token can't be used.
    """

    def __init__(
        self,
        address: str | None = None,
        token: str | None = None,
        *,
        answer_seconds: float = ANSWER_SECONDS,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._node = Connection(address, token, answer_seconds=answer_seconds, environ=environ)

    @property
    def url(self) -> str:
        """Where the node is."""
        return self._node.url

    @property
    def index(self) -> int:
        """The newest log index that an answer to a write of this client has told; 0 before there was one, and for ever where a Consul answers."""
        return self._node.index

    def close(self) -> None:
        """Close the connections."""
        self._node.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def get(self, key: str, consistency: str = "default") -> Entry | None:
        """One key, or None when it does not exist.

        :param consistency: ``default``, ``consistent``, ``stale``, or ``available``: stale only while there is no leader.
        """
        response = self._node.request("GET", _key_path(key), _consistency(consistency))
        if response.status_code == 404:
            return None
        rows = self._node.json(response, list)
        if len(rows) != 1:
            raise ClientError(f"{self.url} answered with {len(rows)} entries for one key")
        return answers.entry(rows[0])

    def put(self, key: str, value: bytes, *, flags: int = 0, cas: int | None = None, once: Once | None = None) -> bool:
        """Set a key.

        :param cas: only when its ModifyIndex is this; 0: only when it does not exist.
        :param once: under what it may be made again.
        :returns: False when the condition did not hold; nothing was changed then.
        """
        parameters = {"flags": flags} if flags else {}
        return self._node.verdict(self._node.request("PUT", _key_path(key), parameters | _cas(cas), value, headers=_headers(once)))

    def delete(self, key: str, *, cas: int | None = None, once: Once | None = None) -> bool:
        """Delete one key; a missing one counts as deleted. False when the condition ``cas`` did not hold."""
        return self._node.verdict(self._node.request("DELETE", _key_path(key), _cas(cas), headers=_headers(once)))

    def delete_tree(self, prefix: str, *, once: Once | None = None) -> bool:
        """Delete every key that begins with ``prefix``."""
        return self._node.verdict(self._node.request("DELETE", _key_path(prefix), {"recurse": ""}, headers=_headers(once)))

    def keys(self, prefix: str = "", consistency: str = "default") -> list[str]:
        """The names of all keys that begin with ``prefix``, in order."""
        response = self._node.request("GET", _key_path(prefix), {"keys": ""} | _consistency(consistency))
        if response.status_code == 404:
            return []
        return [str(name) for name in self._node.json(response, list)]

    def entries(self, prefix: str = "", consistency: str = "default") -> Iterator[Entry]:
        """All keys that begin with ``prefix``, in order, as they were at one moment. They are decoded as they arrive, never held as a whole."""
        response = self._node.request("GET", _key_path(prefix), {"recurse": ""} | _consistency(consistency), stream=True)
        with response:
            if response.status_code == 404:
                return
            yield from (answers.entry(row) for row in self._node.stream(response))

    def scan(
        self, prefix: str = "", *, start: str = "", limit: int | None = None, page: int = SCAN_PAGE, consistency: str = "default"
    ) -> Iterator[Entry]:
        """All keys that begin with ``prefix``, in byte order, asked for page by page: each page is of one moment, the whole is not.

        :param start: the key to begin at.
        :param limit: how many at most; None for all.
        :param page: how many to ask for at once.
        """
        for one in self.scan_pages(prefix, start=start, limit=limit, page=page, consistency=consistency):
            yield from one.entries

    def scan_pages(
        self, prefix: str = "", *, start: str = "", limit: int | None = None, page: int = SCAN_PAGE, consistency: str = "default"
    ) -> Iterator[Page]:
        """As :meth:`scan`, with the places where pages end."""
        given: dict[str, str | int | bytes] = {"prefix": prefix.encode("utf-8", "surrogateescape")}
        given |= _consistency(consistency)
        following: str | None = start
        while following is not None:
            wanted = page if limit is None else min(page, limit)
            parameters: dict[str, str | int | bytes] = {"start": following.encode("utf-8", "surrogateescape"), "limit": wanted}
            found = self._node.json(self._node.found(self._node.request("GET", "/v1/scan", given | parameters)), dict)
            one = answers.page(found)
            yield one
            limit = None if limit is None else limit - len(one.entries)
            following = one.next if limit is None or limit > 0 else None

    def save_snapshot(self, consistency: str = "default") -> Iterator[bytes]:
        """The whole state at one moment as an archive, in the form of Consul's, piece by piece as it arrives."""
        with self._node.found(self._node.request("GET", _SNAPSHOT, _consistency(consistency), stream=True)) as response:
            try:
                yield from response.iter_content(CHUNK_BYTES)
            except (requests.RequestException, TransportError, OSError) as error:
                self._node.unanswered("GET", error)

    def restore_snapshot(self, archive: BinaryIO) -> str:
        """Replace the whole state by an archive. It is verified as a whole before anything is changed.

        :returns: what it held that was passed over, in words; empty when there was nothing.
        """
        pieces = iter(lambda: archive.read(CHUNK_BYTES), b"")
        return self._node.request("PUT", _SNAPSHOT, body=pieces).headers.get(SKIPPED_HEADER, "")

    def status(self) -> dict[str, Any]:
        """What the addressed node knows of itself (``node``) and of its peers (``peers``)."""
        return dict(self._node.json(self._node.found(self._node.request("GET", "/v1/cluster/status")), dict))

    def members(self, *, stale: bool = False) -> dict[str, Any]:
        """The cluster's members as its leader sees them, or with ``stale`` as the addressed node does: ``members``, a list, and more."""
        return dict(self._node.json(self._node.request("GET", _MEMBERS, {"stale": ""} if stale else {}), dict))

    def add_member(self, name: str, address: str, *, voter: bool = True, replaces: str = "", id: str = "") -> dict[str, Any]:
        """Add the server that answers at a peer address, as a learner at first.

        :param address: ``host:port``.
        :param voter: whether it becomes a voter by itself once it has caught up.
        :param replaces: name or id of the member whose place it takes then.
        :param id: the incarnation that must answer there; empty for any.
        :returns: the members, and the ``id`` of the one that was added.
        """
        fields = {"name": name, "address": address, "voter": voter, "replaces": replaces, "id": id}
        return self._changed("POST", _MEMBERS, {field: value for field, value in fields.items() if value != ""})

    def promote_member(self, member: str) -> dict[str, Any]:
        """Give a learner that has caught up a vote. Members have names and ids; either will do."""
        return self._changed("POST", f"{_MEMBERS}/{quote(member, safe='')}/promote")

    def demote_member(self, member: str) -> dict[str, Any]:
        """Take a voter's vote; it stays as a learner."""
        return self._changed("POST", f"{_MEMBERS}/{quote(member, safe='')}/demote")

    def remove_member(self, member: str) -> dict[str, Any]:
        """Take a member out of the cluster."""
        return self._changed("DELETE", f"{_MEMBERS}/{quote(member, safe='')}")

    def transfer_leadership(self, member: str = "") -> dict[str, Any]:
        """Hand leadership over.

        :param member: name or id of the voter that is to lead; empty for the one that is best placed (``RaftServer.successors``).
        :returns: the members, and the ``id`` of the one that leads now: another than ``member`` when an election came in between.
        """
        return self._changed("POST", _TRANSFER + (f"?to={quote(member, safe='')}" if member else ""))

    def _changed(self, method: str, path: str, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
        response = self._node.request(method, path, body=None if fields is None else json.dumps(fields).encode())
        return dict(self._node.json(response, dict))

    def begin_check(self) -> int:
        """Let every node take a digest of its state at one index; the index."""
        return int(self._node.json(self._node.request("POST", "/v1/cluster/check"), dict)["index"])

    def check(self, index: int) -> dict[str, Any]:
        """How far the nodes are with their digests at an index: ``verdict`` (equal, different, computing, incomplete) and ``nodes``."""
        return dict(self._node.json(self._node.found(self._node.request("GET", "/v1/cluster/check", {"at": index})), dict))

    def reload(self) -> None:
        """Have the addressed node read its settings again.

        :raises ClientError: with every problem; nothing has changed then.
        """
        self._node.request("PUT", "/v1/agent/reload")

    def leader(self) -> str:
        """The peer address of the leader, or an empty text when none is known."""
        return str(self._node.json(self._node.found(self._node.request("GET", "/v1/status/leader")), str))

    def ready(self) -> tuple[bool, str]:
        """Whether the node says that it is ready, and its reason when not."""
        response = self._node.send("GET", "/readyz")
        return response.status_code == 200, answers.text(response)


def _key_path(key: str) -> str:
    return "/v1/kv/" + quote(key.encode("utf-8", "surrogateescape"), safe="/")


def _consistency(consistency: str) -> dict[str, str | int | bytes]:
    if consistency not in CONSISTENCIES:
        raise ValueError(f"consistency is {consistency!r}; allowed: {', '.join(CONSISTENCIES)}")
    if consistency == "available":
        return {"consistency": consistency}
    return {} if consistency == "default" else {consistency: ""}


def _headers(once: Once | None) -> dict[str, str]:
    return {} if once is None else once.headers


def _cas(cas: int | None) -> dict[str, str | int | bytes]:
    return {} if cas is None else {"cas": cas}
