"""The head of a request: bytes to values, by RFC 9112's grammar and nothing beside it. No sockets, no clock.

Whatever two servers could read in different ways is refused (:class:`Refused`), and the connection ends: a request must not hide in another one.
What Go's server takes and clients of Consul send is taken: any token as a method, and raw UTF-8 in the target.

The header lines of a client's requests are nearly always the same from one request to the next, so what they say is remembered by their bytes.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

TARGET_LINE_BYTES_MAX = 64 * 1024
"""A key may be 8000 bytes long, three times that when it is percent-encoded."""
FIELDS_MAX = 100
FIELD_BYTES_MAX = 8190
HEAD_BYTES_MAX = TARGET_LINE_BYTES_MAX + FIELDS_MAX * (FIELD_BYTES_MAX + 2) + 4
REMEMBERED = 256
REMEMBERED_BYTES_MAX = 1024

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NO_TARGET = re.compile(r"[\x00-\x20\x7f]")
_NO_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_VERSION = re.compile(r"HTTP/1\.([0-9])")
_ONCE = frozenset(("HOST", "CONTENT-TYPE", "CONTENT-LENGTH"))
_IN_NO_TRAILER = frozenset(("HOST", "CONTENT-LENGTH", "TRANSFER-ENCODING", "TRAILER", "AUTHORIZATION", "TE"))
_CODINGS = frozenset(("chunked", "identity", "compress", "deflate", "gzip"))
_WITHOUT_PREFIX = {"CONTENT-TYPE": "CONTENT_TYPE", "CONTENT-LENGTH": "CONTENT_LENGTH"}
_OWN_MINOR = 1


class Refused(Exception):
    """A request that is not served: it is answered with the status, and the connection ends.

    :param why: for the log.
    """

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class Fields(NamedTuple):
    """What the header lines of a request say.

    :ivar variables: the headers as WSGI names them.
    :ivar length: of the body; None when it is not told.
    :ivar keep: whether the connection is to be kept; None when that is not told.
    :ivar expects: whether the client waits for ``100 Continue`` before it sends the body.
    """

    variables: Mapping[str, str]
    length: int | None
    chunked: bool
    keep: bool | None
    expects: bool


class Head(NamedTuple):
    """Everything of a request but its body.

    :ivar minor: of the version 1.x; at most that of this server.
    :ivar keeps: whether another request may follow on the connection.
    """

    method: str
    target: str
    minor: int
    fields: Fields
    keeps: bool

    @property
    def stands_alone(self) -> bool:
        """Whether nothing belongs to the request but this, and the connection goes on behind it."""
        fields = self.fields
        return self.keeps and self.minor > 0 and not (fields.length or fields.chunked or fields.expects)


_NO_FIELDS = Fields(MappingProxyType({}), None, False, None, False)


def parse(data: bytes) -> Head:
    """Read a head.

    :param data: all of it, without the empty line at its end.
    :raises Refused: it can't be served.
    """
    end = data.find(b"\r\n")
    line = data if end < 0 else data[:end]
    if len(line) > TARGET_LINE_BYTES_MAX:
        raise Refused(HTTPStatus.REQUEST_URI_TOO_LONG, f"a request line of {len(line)} bytes")
    method, target, minor = _parse_line(line.decode("latin-1"))
    if end < 0:
        fields = _NO_FIELDS
    else:
        block = data[end + 2 :]
        fields = _remembered(block) if len(block) <= REMEMBERED_BYTES_MAX else parse_fields(block)
    if minor == 0 and fields.chunked:
        raise Refused(HTTPStatus.BAD_REQUEST, "Transfer-Encoding in a request of HTTP/1.0")
    if minor and "HTTP_HOST" not in fields.variables:
        raise Refused(HTTPStatus.BAD_REQUEST, "no Host")
    keeps = minor > 0 if fields.keep is None else fields.keep
    return Head(method, target, minor, fields, keeps and method != "CONNECT")


def _parse_line(line: str) -> tuple[str, str, int]:
    method, _, rest = line.partition(" ")
    target, _, version = rest.partition(" ")
    if not _TOKEN.fullmatch(method):
        raise Refused(HTTPStatus.BAD_REQUEST, "no method")
    if not target or _NO_TARGET.search(target):
        raise Refused(HTTPStatus.BAD_REQUEST, "a target that is none")
    if target[0] != "/":
        _check_other_form(method, target)
    if version == "HTTP/1.1":
        return method, target, 1
    matched = _VERSION.fullmatch(version)
    if not matched:
        raise Refused(HTTPStatus.BAD_REQUEST, "no version of HTTP that is known")
    return method, target, min(int(matched[1]), _OWN_MINOR)


def _check_other_form(method: str, target: str) -> None:
    """Refuse a target that is neither a path nor in a form that its method may have (RFC 9112, section 3.2)."""
    if target == "*" and method == "OPTIONS":
        return
    if method != "CONNECT" and "://" not in target:
        raise Refused(HTTPStatus.BAD_REQUEST, "a target in a form that its method has not")
    try:
        urlsplit(target)
    except ValueError:
        raise Refused(HTTPStatus.BAD_REQUEST, "a target that is no URL") from None


def split_target(target: str) -> tuple[str, str]:
    """The path of a target as WSGI wants it, decoded into Latin-1, and its query."""
    if target[0] == "/":
        path, _, query = target.partition("#")[0].partition("?")
    else:
        parts = urlsplit(target)
        path, query = parts.path, parts.query
    return (unquote_to_bytes(path.encode("latin-1")).decode("latin-1") if "%" in path else path), query


def parse_fields(block: bytes) -> Fields:
    """Read the header lines of a request.

    :param block: all of them, without the last line end.
    :raises Refused: they are malformed, or the body's end is not certain.
    """
    values = _values(block)
    length = _length(values)
    chunked = _is_chunked(values)
    if chunked and length is not None:
        raise Refused(HTTPStatus.BAD_REQUEST, "both Content-Length and Transfer-Encoding")
    expects = "EXPECT" in values
    if expects and values["EXPECT"].lower() != "100-continue":
        raise Refused(HTTPStatus.EXPECTATION_FAILED, "an expectation that is not known")
    # A name with an underscore could pass for another one in WSGI's environment.
    variables = {_WITHOUT_PREFIX.get(name) or "HTTP_" + name.replace("-", "_"): value for name, value in values.items() if "_" not in name}
    return Fields(MappingProxyType(variables), length, chunked, _keep(values), expects)


_remembered = lru_cache(REMEMBERED)(parse_fields)


def check_trailers(block: bytes) -> None:
    """Read the lines behind a chunked body, which mean nothing to us.

    :raises Refused: they are malformed, or try to change how the request is read.
    """
    if forbidden := _IN_NO_TRAILER & _values(block).keys():
        raise Refused(HTTPStatus.BAD_REQUEST, f"{min(forbidden)} behind the body")


def _values(block: bytes) -> dict[str, str]:
    """The values by their name in capitals; those of a name that came more than once with commas between them."""
    values: dict[str, str] = {}
    lines = block.decode("latin-1").split("\r\n")
    if len(lines) > FIELDS_MAX:
        raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"{len(lines)} headers")
    for line in lines:
        name, colon, value = line.partition(":")
        # Folded lines begin with a space, which is no token either.
        if not colon or not _TOKEN.fullmatch(name):
            raise Refused(HTTPStatus.BAD_REQUEST, "a line that is no header")
        if len(line) + 2 > FIELD_BYTES_MAX:
            raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a header of {len(line)} bytes")
        value = value.strip(" \t")
        if _NO_VALUE.search(value):
            raise Refused(HTTPStatus.BAD_REQUEST, "a control character in a header")
        name = name.upper()
        if name not in values:
            values[name] = value
        elif name in _ONCE:
            raise Refused(HTTPStatus.BAD_REQUEST, f"{name} twice")
        else:
            values[name] += "," + value
    return values


def _length(values: Mapping[str, str]) -> int | None:
    text = values.get("CONTENT-LENGTH")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 4000):  # what int() takes
        raise Refused(HTTPStatus.BAD_REQUEST, "a Content-Length that is no number")
    return int(text)


def _is_chunked(values: Mapping[str, str]) -> bool:
    text = values.get("TRANSFER-ENCODING")
    if text is None:
        return False
    codings = [coding.strip(" \t").lower() for coding in text.split(",")]
    if codings == ["chunked"]:
        return True
    if not _CODINGS.issuperset(codings):
        raise Refused(HTTPStatus.NOT_IMPLEMENTED, "a transfer coding that is not known")
    if "chunked" in codings[:-1] or codings[-1] != "chunked":
        raise Refused(HTTPStatus.BAD_REQUEST, "a Transfer-Encoding that does not tell where the body ends")
    raise Refused(HTTPStatus.NOT_IMPLEMENTED, "a transfer coding beside chunked")


def _keep(values: Mapping[str, str]) -> bool | None:
    text = values.get("CONNECTION")
    if text is None:
        return None
    options = [option.strip(" \t") for option in text.lower().split(",")]
    if "close" in options:
        return False
    return True if "keep-alive" in options else None


def check_beginning(data: bytes | bytearray, searched: int) -> None:
    """Refuse a head that is not complete yet and can't become one.

    :param searched: how much of it was looked at before.
    :raises Refused: it is too long, or a line ends without a carriage return.
    """
    if _BARE_LF.search(data, searched):
        raise Refused(HTTPStatus.BAD_REQUEST, "a line that ends without a carriage return")
    if len(data) > TARGET_LINE_BYTES_MAX + 2 and data.find(b"\r\n", 0, TARGET_LINE_BYTES_MAX + 2) < 0:
        raise Refused(HTTPStatus.REQUEST_URI_TOO_LONG, f"a request line of more than {TARGET_LINE_BYTES_MAX} bytes")
    if len(data) > HEAD_BYTES_MAX:
        raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a head of more than {HEAD_BYTES_MAX} bytes")
