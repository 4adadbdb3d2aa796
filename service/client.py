"""A client of the public HTTP API, for programs and for the command line.

::

    client = Client()                      # KVORUM_HTTP_ADDR, CONSUL_HTTP_ADDR or 127.0.0.1:8500
    client.put("app/db/host", b"10.0.0.7")
    entry = client.get("app/db/host")      # None when there is no such key

Every error is a :class:`ClientError` whose ``outcome`` says whether the operation certainly did not happen (``rejected``) or may have happened
(``unknown``). A write is never sent twice by this module. A :class:`Client` belongs to one thread at a time.
"""

import json
import os
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn, Self
from urllib.parse import quote, unquote_to_bytes, urlencode, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError as TransportError
from urllib3.exceptions import MaxRetryError, NewConnectionError

from service.addresses import API_PORT, parse_address
from service.errors import REJECTED, UNKNOWN, KvorumError

OUTCOME_HEADER = "X-Kvorum-Outcome"
SKIPPED_HEADER = "X-Kvorum-Skipped"
PROBLEM_TYPE = "application/problem+json"
_TOKEN_VARIABLES = ("KVORUM_HTTP_TOKEN", "CONSUL_HTTP_TOKEN", "KVORUM_HTTP_TOKEN_FILE", "CONSUL_HTTP_TOKEN_FILE")
CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 30.0
CONSISTENCIES = ("default", "consistent", "stale", "available")
_MEMBERS = "/v1/cluster/members"
_TRANSFER = "/v1/cluster/transfer"
SCAN_PAGE = 1_000
_SNAPSHOT = "/v1/snapshot"
_CHUNK_BYTES = 64 * 1024
# Of an answer that says its outcome, as a node's do; and of a page by somebody in between.
_MESSAGE_CHARACTERS_MAX = 20_000
_STRANGE_CHARACTERS_MAX = 500


Body = bytes | Iterator[bytes]
"""What a request carries; an iterator is sent piece by piece."""


class ClientError(KvorumError):
    """A request that did not succeed.

    :param message: what happened, for people.
    :param outcome: ``rejected`` or ``unknown``.
    :param status: the HTTP status, or 0 when no answer came.
    :ivar problem: the object that a native route explained itself with (RFC 9457); empty when there was none.
    """

    def __init__(self, message: str, outcome: str = REJECTED, status: int = 0, problem: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.status = status
        self.problem = problem or {}

    @property
    def retryable(self) -> bool:
        """Whether the operation certainly did not happen and may well succeed a moment later."""
        return self.outcome == REJECTED and (self.status in {0, 429} or self.status >= 500)


class AddressInvalid(ClientError):
    """An address or token given to the client that can't be used."""

    exit_code = 2


class Entry(NamedTuple):
    """A key as it is stored. ``flags`` is a number that means something to clients only; the indexes are log positions."""

    key: str
    value: bytes
    flags: int = 0
    create_index: int = 0
    modify_index: int = 0
    lock_index: int = 0


class Page(NamedTuple):
    """Some keys in byte order; ``next`` is the key at which the following page starts, None when nothing follows."""

    entries: list[Entry]
    next: str | None


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
        variables = os.environ if environ is None else environ
        self.url = base_url(address or variables.get("KVORUM_HTTP_ADDR") or variables.get("CONSUL_HTTP_ADDR") or f"127.0.0.1:{API_PORT}")
        self._timeout = (CONNECT_SECONDS, answer_seconds)
        self._session = requests.Session()
        # Neither proxies nor ~/.netrc have a say in how a node is reached.
        self._session.trust_env = False
        found = _checked(token or _token(variables))
        if found:
            self._session.headers["X-Consul-Token"] = found

    def close(self) -> None:
        """Close the connections, now: closing a session alone leaves those that a response (kept by an error, say) still refers to."""
        adapter = self._session.get_adapter(self.url)
        if isinstance(adapter, HTTPAdapter):
            for key in list(adapter.poolmanager.pools.keys()):
                adapter.poolmanager.pools[key].close()
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def get(self, key: str, consistency: str = "default") -> Entry | None:
        """One key, or None when it does not exist.

        :param consistency: ``default``, ``consistent``, ``stale``, or ``available``: stale only while there is no leader.
        """
        response = self._request("GET", _key_path(key), _consistency(consistency))
        if response.status_code == 404:
            return None
        rows = self._json(response, list)
        if len(rows) != 1:
            raise ClientError(f"{self.url} answered with {len(rows)} entries for one key")
        return _entry(rows[0])

    def put(self, key: str, value: bytes, *, flags: int = 0, cas: int | None = None) -> bool:
        """Set a key.

        :param cas: only when its ModifyIndex is this; 0: only when it does not exist.
        :returns: False when the condition did not hold; nothing was changed then.
        """
        parameters = {"flags": flags} if flags else {}
        return self._verdict(self._request("PUT", _key_path(key), parameters | _cas(cas), body=value))

    def delete(self, key: str, *, cas: int | None = None) -> bool:
        """Delete one key; a missing one counts as deleted. False when the condition ``cas`` did not hold."""
        return self._verdict(self._request("DELETE", _key_path(key), _cas(cas)))

    def delete_tree(self, prefix: str) -> bool:
        """Delete every key that begins with ``prefix``."""
        return self._verdict(self._request("DELETE", _key_path(prefix), {"recurse": ""}))

    def keys(self, prefix: str = "", consistency: str = "default") -> list[str]:
        """The names of all keys that begin with ``prefix``, in order."""
        response = self._request("GET", _key_path(prefix), {"keys": ""} | _consistency(consistency))
        if response.status_code == 404:
            return []
        return [str(name) for name in self._json(response, list)]

    def entries(self, prefix: str = "", consistency: str = "default") -> Iterator[Entry]:
        """All keys that begin with ``prefix``, in order, as they were at one moment. They are decoded as they arrive, never held as a whole."""
        response = self._request("GET", _key_path(prefix), {"recurse": ""} | _consistency(consistency), stream=True)
        with response:
            if response.status_code == 404:
                return
            yield from (_entry(row) for row in self._stream(response))

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
            found = self._json(self._found(self._request("GET", "/v1/scan", given | parameters)), dict)
            one = _page(found)
            yield one
            limit = None if limit is None else limit - len(one.entries)
            following = one.next if limit is None or limit > 0 else None

    def save_snapshot(self, consistency: str = "default") -> Iterator[bytes]:
        """The whole state at one moment as an archive, in the form of Consul's, piece by piece as it arrives."""
        with self._found(self._request("GET", _SNAPSHOT, _consistency(consistency), stream=True)) as response:
            try:
                yield from response.iter_content(_CHUNK_BYTES)
            except (requests.RequestException, TransportError, OSError) as error:
                self._unanswered("GET", error)

    def restore_snapshot(self, archive: BinaryIO) -> str:
        """Replace the whole state by an archive. It is verified as a whole before anything is changed.

        :returns: what it held that was passed over, in words; empty when there was nothing.
        """
        pieces = iter(lambda: archive.read(_CHUNK_BYTES), b"")
        return self._request("PUT", _SNAPSHOT, body=pieces).headers.get(SKIPPED_HEADER, "")

    def status(self) -> dict[str, Any]:
        """What the addressed node knows of itself (``node``) and of its peers (``peers``)."""
        return dict(self._json(self._found(self._request("GET", "/v1/cluster/status")), dict))

    def members(self, *, stale: bool = False) -> dict[str, Any]:
        """The cluster's members as its leader sees them, or with ``stale`` as the addressed node does: ``members``, a list, and more."""
        return dict(self._json(self._request("GET", _MEMBERS, {"stale": ""} if stale else {}), dict))

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
        response = self._request(method, path, body=None if fields is None else json.dumps(fields).encode())
        return dict(self._json(response, dict))

    def begin_check(self) -> int:
        """Let every node take a digest of its state at one index; the index."""
        return int(self._json(self._request("POST", "/v1/cluster/check"), dict)["index"])

    def check(self, index: int) -> dict[str, Any]:
        """How far the nodes are with their digests at an index: ``verdict`` (equal, different, computing, incomplete) and ``nodes``."""
        return dict(self._json(self._found(self._request("GET", "/v1/cluster/check", {"at": index})), dict))

    def reload(self) -> None:
        """Have the addressed node read its settings again.

        :raises ClientError: with every problem; nothing has changed then.
        """
        self._request("PUT", "/v1/agent/reload")

    def leader(self) -> str:
        """The peer address of the leader, or an empty text when none is known."""
        return str(self._json(self._found(self._request("GET", "/v1/status/leader")), str))

    def ready(self) -> tuple[bool, str]:
        """Whether the node says that it is ready, and its reason when not."""
        response = self._send("GET", "/readyz", {}, None, stream=False)
        return response.status_code == 200, _text(response)

    def _found(self, response: requests.Response) -> requests.Response:
        if response.status_code == 404:
            raise ClientError(f"{self.url} does not know {urlsplit(response.url).path}", status=404)
        return response

    def _request(
        self, method: str, path: str, parameters: Mapping[str, str | int | bytes] | None = None, body: Body | None = None, *, stream: bool = False
    ) -> requests.Response:
        """One request. Returns a 2xx answer, or a 404 to a GET; raises for everything else."""
        response = self._send(method, path, parameters or {}, body, stream=stream)
        if response.ok or (response.status_code == 404 and method == "GET"):
            return response
        with response:
            raise self._refused(method, response)

    def _send(self, method: str, path: str, parameters: Mapping[str, str | int | bytes], body: Body | None, *, stream: bool) -> requests.Response:
        query = "&".join(name if value == "" else urlencode({name: value}) for name, value in parameters.items())
        request = self._session.prepare_request(requests.Request(method, self.url, data=body))
        # Set here, because preparing an address would fold "." and ".." of a key.
        request.url = self.url + path + ("?" + query if query else "")
        try:
            return self._session.send(request, timeout=self._timeout, stream=stream, allow_redirects=False)
        except (requests.RequestException, TransportError) as error:
            self._unanswered(method, error)

    def _unanswered(self, method: str, error: Exception) -> NoReturn:
        never_left = _never_left(error)
        outcome = REJECTED if method == "GET" or never_left else UNKNOWN
        if never_left:
            hint = "is a node running there? --http-addr or KVORUM_HTTP_ADDR names another"
            raise ClientError(f"{self.url} can't be reached: {_cause(error)} ({hint})", outcome) from error
        if isinstance(error, requests.Timeout):
            raise ClientError(f"{self.url} did not answer within {self._timeout[1]:g} s", outcome) from error
        raise ClientError(f"the connection to {self.url} broke: {_cause(error)}", outcome) from error

    def _refused(self, method: str, response: requests.Response) -> ClientError:
        status = response.status_code
        told = response.headers.get(OUTCOME_HEADER, "").lower()
        if told not in (REJECTED, UNKNOWN):
            told = REJECTED if method == "GET" or 300 <= status < 500 else UNKNOWN
        problem = _problem(response)
        text = problem.get("detail") or _text(response) or response.reason
        return ClientError(f"{self.url} answered {status}: {text}", told, status, problem)

    def _verdict(self, response: requests.Response) -> bool:
        text = _text(response)
        if text not in {"true", "false"}:
            raise ClientError(f"{self.url} answered {text!r} to a write; true or false was expected", UNKNOWN, response.status_code)
        return text == "true"

    def _json(self, response: requests.Response, expected: type) -> Any:
        try:
            content = response.json()
        except ValueError as error:
            raise ClientError(f"{self.url} answered something that is no JSON", status=response.status_code) from error
        if not isinstance(content, expected):
            raise ClientError(f"{self.url} answered a JSON {type(content).__name__}; {expected.__name__} was expected", status=response.status_code)
        return content

    def _stream(self, response: requests.Response) -> Iterator[Any]:
        try:
            yield from _array_items(_text_chunks(response))
        except (requests.RequestException, TransportError, OSError) as error:
            self._unanswered("GET", error)
        except ValueError as error:
            raise ClientError(f"{self.url} sent a listing that can't be read: {error}") from error


def base_url(address: str) -> str:
    """``http://host:port`` from what a user may write.

    :raises AddressInvalid: naming the address.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        scheme, rest = "http", address
    if scheme not in {"http", "https"}:
        raise AddressInvalid(f"the address {address!r} has the scheme {scheme!r}; http and https are known")
    try:
        return f"{scheme}://{parse_address(rest.rstrip('/'), API_PORT)}"
    except ValueError as error:
        raise AddressInvalid(f"the address {address!r} can't be used: {error}") from error


def _token(variables: Mapping[str, str]) -> str:
    name = next((name for name in _TOKEN_VARIABLES if variables.get(name)), "")
    return read_token(Path(variables[name]), name) if name.endswith("_FILE") else variables.get(name, "")


def read_token(path: Path, named_by: str) -> str:
    """The token in a file that something has named; :class:`AddressInvalid` when it can't be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AddressInvalid(f"{named_by} {str(path)!r} can't be read: {error}") from error


def _checked(token: str) -> str:
    if not (token.isascii() and token.isprintable()):
        raise AddressInvalid("the token holds characters that no HTTP header can carry")
    return token


def _key_path(key: str) -> str:
    return "/v1/kv/" + quote(key.encode("utf-8", "surrogateescape"), safe="/")


def _consistency(consistency: str) -> dict[str, str | int | bytes]:
    if consistency not in CONSISTENCIES:
        raise ValueError(f"consistency is {consistency!r}; allowed: {', '.join(CONSISTENCIES)}")
    if consistency == "available":
        return {"consistency": consistency}
    return {} if consistency == "default" else {consistency: ""}


def _cas(cas: int | None) -> dict[str, str | int | bytes]:
    return {} if cas is None else {"cas": cas}


def _entry(row: Any) -> Entry:
    try:
        value = b64decode(row["Value"] or "", validate=True)
        return Entry(row["Key"], value, row["Flags"], row["CreateIndex"], row["ModifyIndex"], row["LockIndex"])
    except (KeyError, TypeError, Base64Error) as error:
        raise ClientError("the node sent an entry that can't be read") from error


def _page(found: dict[str, Any]) -> Page:
    try:
        following = found["next"]
        encoded = None if following is None else unquote_to_bytes(following).decode("utf-8", "surrogateescape")
        return Page([_entry(row) for row in found["entries"]], encoded)
    except (KeyError, TypeError, AttributeError) as error:
        raise ClientError("the node sent a page that can't be read") from error


def _text(response: requests.Response) -> str:
    characters_max = _MESSAGE_CHARACTERS_MAX if OUTCOME_HEADER in response.headers else _STRANGE_CHARACTERS_MAX
    return response.content.decode("utf-8", "replace").strip()[:characters_max]


def _problem(response: requests.Response) -> dict[str, Any]:
    if response.headers.get("Content-Type") != PROBLEM_TYPE:
        return {}
    try:
        content = response.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _text_chunks(response: requests.Response) -> Iterator[str]:
    # JSON of this API is ASCII or UTF-8; a character may lie across two chunks.
    response.encoding = "utf-8"
    return (str(chunk) for chunk in response.iter_content(_CHUNK_BYTES, decode_unicode=True))


def _array_items(chunks: Iterator[str]) -> Iterator[Any]:
    """The items of a JSON array that arrives in pieces.

    :raises ValueError: when it is no array, or ends early.
    """
    decoder = json.JSONDecoder()
    buffer = ""
    opened = False
    for chunk in chunks:
        buffer = (buffer + chunk).lstrip() if not buffer else buffer + chunk
        if not opened:
            if not buffer:
                continue
            if not buffer.startswith("["):
                raise ValueError("no array")
            opened, buffer = True, buffer[1:]
        position = 0
        while True:
            while position < len(buffer) and buffer[position] in ", \r\n\t":
                position += 1
            if buffer[position : position + 1] == "]":
                return
            try:
                item, position = decoder.raw_decode(buffer, position)
            except json.JSONDecodeError:
                break
            yield item
        buffer = buffer[position:]
    raise ValueError("it ends early")


def _never_left(error: BaseException) -> bool:
    """Whether the request certainly never left: no connection was made."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    inner = error.args[0] if error.args else None
    return isinstance(inner, MaxRetryError) and isinstance(inner.reason, NewConnectionError)


def _cause(error: BaseException) -> str:
    """The system's own words, from below the layers of the HTTP library."""
    found: BaseException | None = error
    seen = []
    while found is not None and found not in seen:
        seen.append(found)
        if isinstance(found, OSError) and found.errno is not None and found.strerror:
            return found.strerror
        found = found.__cause__ or found.__context__
    return type(error).__name__
