"""The path of a request, as Go's HTTP server sees it.

The key is what the path decodes to, byte for byte. Like Go's ServeMux, a path that is not clean (``//``, ``/./``, ``/../``, also when they
are percent-encoded) is answered with a redirection to the clean one, so a key over HTTP never begins with a slash nor holds two in a row.
Like Consul, a path with anything that Go calls unprintable is refused.
"""

import html
import posixpath
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from service.api.errors import Answer, RequestRefused

_MALFORMED = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNCLEAN = re.compile(rb"//|/\.\.?(/|\Z)")
# What Go's URL.EscapedPath leaves as it is.
_SAFE_IN_PATH = "$&+,/:;=@-_.~"
_REDIRECTED = 301

KV_PREFIX = b"/v1/kv/"
KEY = "kvorum.key"
"""Where the environment holds the key of a request, as bytes."""


class Target(NamedTuple):
    """Where a request goes: the decoded path, and the query as it was sent."""

    path: bytes
    query: str


def raw_uri(environ: Mapping[str, Any]) -> str:
    """The request target as it came; put together again where the server does not tell it."""
    raw: str | None = environ.get("RAW_URI")
    if raw is None:
        query = environ.get("QUERY_STRING", "")
        raw = quote(environ["PATH_INFO"].encode("latin-1"), safe=_SAFE_IN_PATH) + ("?" + query if query else "")
    return raw


def parse(raw_uri: str) -> Target:
    """Take the request target apart and decode its path.

    :param raw_uri: as it came, decoded as Latin-1; also with scheme and host before it.
    :raises RequestRefused: a malformed escape or an unprintable character.
    """
    if not raw_uri.startswith("/"):
        raw_uri = _without_host(raw_uri)
    path, _, query = raw_uri.partition("?")
    if "%" not in path:
        if path.isascii() and path.isprintable():
            return Target(path.encode("ascii"), query)
    elif _MALFORMED.search(path):
        raise RequestRefused(400, "400 Bad Request")
    decoded = unquote_to_bytes(path.encode("latin-1"))
    if not decoded.decode("utf-8", "replace").isprintable():
        raise RequestRefused(400, "")
    return Target(decoded, query)


def _without_host(raw_uri: str) -> str:
    _, scheme, rest = raw_uri.partition("://")
    if not scheme:
        return raw_uri
    slash = rest.find("/")
    return rest[slash:] if slash >= 0 else "/"


def is_clean(path: bytes) -> bool:
    """Whether the path may be used as it is."""
    return path.startswith(b"/") and not _UNCLEAN.search(path) and path != KV_PREFIX[:-1]


def clean(path: bytes) -> bytes:
    """The path that an unclean one is redirected to."""
    result = posixpath.normpath(b"/" + path.lstrip(b"/"))
    if result == KV_PREFIX[:-1]:
        return KV_PREFIX
    return result + b"/" if path.endswith(b"/") and result != b"/" else result


def redirect(path: bytes, query: str, method: str) -> Answer:
    """The answer that sends the client to ``path``."""
    shown = quote(path, safe=_SAFE_IN_PATH)
    if query:
        shown += "?" + query
    location = "".join(character if character.isascii() else f"%{ord(character):02x}" for character in shown)
    if method not in ("GET", "HEAD"):
        return _REDIRECTED, [("Location", location)], b""
    headers = [("Content-Type", "text/html; charset=utf-8"), ("Location", location)]
    if method == "HEAD":
        return _REDIRECTED, headers, b""
    link = html.escape(shown).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
    return _REDIRECTED, headers, f'<a href="{link}">Moved Permanently</a>.\n\n'.encode("latin-1")
