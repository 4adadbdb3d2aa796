"""Bodies and headers in the form that Consul's clients know."""

import re
from binascii import b2a_base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from wsgiref.types import StartResponse

import msgspec

from service.api.errors import Answer, Headers, reason_phrase
from service.api.params import request_id
from service.domain.entries import Row, Session

JSON = ("Content-Type", "application/json")
OK, NOT_MODIFIED, NOT_FOUND = 200, 304, 404
JSON_HEADERS: Headers = [JSON]
RAW_HEADERS: Headers = [("Content-Type", "text/plain"), ("X-Content-Type-Options", "nosniff"), ("Content-Security-Policy", "sandbox")]
REQUEST_ID = "X-Request-Id"
INDENT = 4

# All of ASCII that stands for itself in Go's JSON.
_PLAIN = re.compile(rb"[ !#-%'-;=?-\[\]-\x7f]*")
_SPECIAL = re.compile('[\x00-\x1f"\\\\<>&\u2028\u2029\udc80-\udcff]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPES = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
)
_ENCODER = msgspec.json.Encoder()


def entry(row: Row) -> bytes:
    """One key as a JSON object: Consul's fields in Consul's order."""
    return _entry(row, text(row.key))


def entries(rows: Sequence[Row]) -> bytes:
    """Keys as a JSON array of objects."""
    return b"[%b]" % b",".join(each_entry(rows))


def each_entry(rows: Sequence[Row]) -> Iterable[bytes]:
    """Keys as JSON objects. Where none of the keys needs an escape, none of them is looked at by itself."""
    if _PLAIN.fullmatch(b"".join([row[0] for row in rows])):
        return [_entry(row, b'"%b"' % row[0]) for row in rows]
    return map(entry, rows)


def _entry(row: Row, quoted_key: bytes) -> bytes:
    _, value, flags, lock_index, session, create_index, modify_index = row  # by name each of them costs three times as much
    return b'{"LockIndex":%d,"Key":%b,"Flags":%d,"Value":%b,%b"CreateIndex":%d,"ModifyIndex":%d}' % (
        lock_index,
        quoted_key,
        flags,
        b'"%b"' % b2a_base64(value, newline=False) if value else b"null",
        b'"Session":%b,' % text(session.encode()) if session else b"",
        create_index,
        modify_index,
    )


def sessions(found: Iterable[Session]) -> bytes:
    """Sessions as a JSON array of objects: Consul's fields in Consul's order."""
    return b"[%b]" % b",".join(map(_session, found))


def _session(session: Session) -> bytes:
    return (
        b'{"ID":%b,"Name":%b,"Node":%b,"LockDelay":%d,"Behavior":%b,"TTL":%b,"NodeChecks":%b,"ServiceChecks":%b,"CreateIndex":%d,"ModifyIndex":%d}'
        % (
            text(session.id.encode()),
            text(session.name.encode()),
            text(session.node.encode()),
            session.lock_delay_ns,
            text(session.behavior.encode()),
            text(session.ttl.encode()),
            json(session.node_checks),
            json(session.service_checks and [{"ID": check.id, "Namespace": check.namespace} for check in session.service_checks]),
            session.create_index,
            session.modify_index,
        )
    )


def texts(items: Iterable[bytes]) -> bytes:
    """Strings as a JSON array."""
    return b"[%b]" % b",".join(map(text, items))


def text(data: bytes) -> bytes:
    """A JSON string as Go writes it: HTML's characters escaped, a byte that is no UTF-8 as U+FFFD, escaped."""
    if _PLAIN.fullmatch(data):
        return b'"%b"' % data
    escaped = _SPECIAL.sub(_escape, data.decode("utf-8", "surrogateescape"))
    return b'"%b"' % escaped.encode()


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    return "\\ufffd" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def json(value: Any) -> bytes:
    """Any value as compact JSON, escaped as Go does it."""
    data = _ENCODER.encode(value)
    # These bytes can only stand inside of strings.
    for character, escape in (
        (b"<", b"\\u003c"),
        (b">", b"\\u003e"),
        (b"&", b"\\u0026"),
        (b"\xe2\x80\xa8", b"\\u2028"),
        (b"\xe2\x80\xa9", b"\\u2029"),
    ):
        if character in data:
            data = data.replace(character, escape)
    return data


def pretty(data: bytes) -> bytes:
    """Compact JSON as ``?pretty`` shows it."""
    return msgspec.json.format(data, indent=INDENT) + b"\n"


def json_answer(data: bytes, *, indent: bool) -> Answer:
    """A 200 with JSON and no other header."""
    return OK, JSON_HEADERS, pretty(data) if indent else data


def respond(environ: Mapping[str, Any], start_response: StartResponse, answer: Answer) -> list[bytes]:
    """Give an answer in terms of WSGI."""
    status, headers, body = complete(environ, answer)
    start_response(status, headers)
    return [body]


def complete(environ: Mapping[str, Any], answer: Answer) -> tuple[str, Headers, bytes]:
    """Status with its reason, all headers, and body of the answer to a request."""
    status, headers, body = answer
    sent = headers if status == NOT_MODIFIED else [*headers, ("Content-Length", str(len(body)))]
    if "HTTP_X_REQUEST_ID" in environ and (named := request_id(environ)):
        sent = [*sent, (REQUEST_ID, named)]
    return reason_phrase(status), sent, body
