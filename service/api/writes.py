"""Writes on their way to the log, and those that a client may send twice: ``Idempotency-Key``.

A write with a key travels as one command with its key, a digest of what is asked, and the limits by which the replicated state forgets keys. What the
digest covers does not depend on the attempt: request id and reason may differ, and the id of a new session is that of the first attempt.
"""

from collections.abc import Mapping
from hashlib import sha256
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from service.api.errors import OUTCOME, READ_METHODS, Answer, Headers, RequestRefused
from service.api.go import parse_uint64
from service.api.responses import json
from service.domain.commands import KeyCommand, KvConditional, Once, Origin, Permitted, SessionCreate, SessionDestroy, encode
from service.domain.quoting import quote
from service.domain.results import OnceResult, Verdict, acl_moved, decode_once
from service.errors import REJECTED, UNKNOWN
from service.ipc.client import AgentClient
from service.ipc.membership import TYPE_PREFIX
from service.reloading import Live

IDEMPOTENCY_KEY, SINCE = "HTTP_IDEMPOTENCY_KEY", "HTTP_X_KVORUM_SINCE"
KEY_CHARACTERS_MAX = 255
REPLAYED = ("Idempotency-Replayed", "true")
_PROBLEM = ("Content-Type", "application/problem+json")

Write = KeyCommand | SessionCreate | SessionDestroy


class Done(NamedTuple):
    """What became of a write.

    :ivar result: in bytes, of :mod:`service.domain.results`.
    :ivar memo: that of the attempt that was carried out.
    :ivar headers: more headers for the answer.
    """

    result: bytes
    memo: bytes
    headers: Headers


class KeyRefused(RequestRefused):
    """A key that stands for something else, or that may have stood for this. This attempt changed nothing.

    :param outcome: of what the client wants, not of this attempt.
    """

    def __init__(self, status: HTTPStatus, kind: str, detail: str, outcome: str) -> None:
        super().__init__(status, detail)
        self._kind = kind
        self._outcome = outcome

    def answer(self, method: str) -> Answer:
        """The response, a problem (RFC 9457)."""
        title = HTTPStatus(self.status).phrase
        body = {"type": TYPE_PREFIX + self._kind, "title": title, "status": int(self.status), "detail": self.text, "outcome": self._outcome}
        headers = [_PROBLEM] if method in READ_METHODS else [_PROBLEM, (OUTCOME, self._outcome)]
        return self.status, headers, json(body)


class PermissionOutdated(Exception):
    """The ACL has changed since somebody was found to be permitted to write; nothing was written."""


class Writes:
    """The writes of one worker."""

    def __init__(self, backend: AgentClient, live: Live) -> None:
        self._backend = backend
        self._live = live

    def propose(self, command: Write, environ: Mapping[str, Any], memo: bytes = b"", seen_index: int | None = None) -> Done:
        """Replicate a command: as often as it is asked for, or once where the request has a key.

        :param memo: what later attempts need to know of the first.
        :param seen_index: of the ACL's last change, if that has to be the same when the command is applied.
        :raises PermissionOutdated: it was not the same.
        :raises BackendError: it was not carried out, or nobody knows.
        :raises RequestRefused: the key can't be used.
        """
        if IDEMPOTENCY_KEY not in environ:
            return Done(self._send(command, seen_index), memo, [])
        key, since = _key(environ[IDEMPOTENCY_KEY]), _since(environ)
        settings = self._live.now
        limits = settings.idempotency_entries, settings.idempotency_bytes
        result = decode_once(self._send(Once(key, _digest(command), command, memo, since, *limits), seen_index))
        _check(key, result)
        return Done(result.result, result.memo, [REPLAYED] if result.verdict is Verdict.AGAIN else [])

    def _send(self, command: Write | Once, seen_index: int | None) -> bytes:
        if seen_index is None:
            return self._backend.propose(encode(command))
        result = self._backend.propose(encode(Permitted(seen_index, command)))
        if acl_moved(result):
            raise PermissionOutdated
        return result


def _check(key: str, result: OnceResult) -> None:
    if result.verdict is Verdict.OTHER:
        text = f"Idempotency-Key {quote(key)} stands for another request, which was carried out at index {result.first_index}; nothing was changed"
        raise KeyRefused(HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency-key-reused", text, REJECTED)
    if result.verdict is Verdict.FORGOTTEN:
        text = f"requests as old as this one are forgotten: nobody knows whether Idempotency-Key {quote(key)} was carried out"
        raise KeyRefused(HTTPStatus.CONFLICT, "idempotency-key-forgotten", text, UNKNOWN)


def _key(text: str) -> str:
    if not text or len(text) > KEY_CHARACTERS_MAX or not text.isascii() or not text.isprintable():
        shown = quote(text[:KEY_CHARACTERS_MAX])
        raise RequestRefused(400, f"Idempotency-Key is {shown}, {len(text)} long; 1 to {KEY_CHARACTERS_MAX} printable characters of ASCII can be.")
    return text


def _since(environ: Mapping[str, Any]) -> int | None:
    if SINCE not in environ:
        return None
    try:
        return parse_uint64(environ[SINCE])
    except ValueError:
        raise RequestRefused(400, f"X-Kvorum-Since is {quote(environ[SINCE])}; a log index was expected.") from None


def _digest(command: Write) -> bytes:
    return sha256(encode(_essence(command))).digest()


def _essence(command: Write) -> Write:
    """The command without what differs between two attempts at the same."""
    if isinstance(command, KvConditional):
        inner = command.command
        return msgspec.structs.replace(command, command=msgspec.structs.replace(inner, origin=Origin(inner.origin.actor)))
    if isinstance(command, SessionCreate):
        command = msgspec.structs.replace(command, session=command.session._replace(id=""))
    essence: Write = msgspec.structs.replace(command, origin=Origin(command.origin.actor))
    return essence
