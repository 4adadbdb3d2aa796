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
SUBTREES = frozenset(
    prefix.encode()
    for prefix in (
        "/v1/kv/",
        "/v1/event/fire/",
        "/v1/session/info/",
        "/v1/session/node/",
        "/v1/session/renew/",
        "/v1/session/destroy/",
        "/v1/catalog/node/",
        "/v1/catalog/node-services/",
        "/v1/catalog/service/",
        "/v1/health/node/",
        "/v1/health/service/",
        "/v1/health/checks/",
        "/v1/health/connect/",
        "/v1/health/state/",
        "/v1/coordinate/node/",
    )
)
"""Paths whose last part is a name; without their slash they are redirected."""
NAMED = (KV_PREFIX, *(prefix for prefix in SUBTREES if prefix.startswith(b"/v1/session/")))
"""Those whose last part is taken off and left in the environment."""
KEY = "kvorum.key"
"""Where the environment holds the key (or the id, or the name) of a request, as bytes."""


class Target(NamedTuple):
    """Where a request goes: the decoded path, and the query as it was sent.

    :ivar mark: the question mark before the query, which may be empty.
    """

    path: bytes
    query: str
    mark: str = ""


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
    path, mark, query = raw_uri.partition("?")
    if "%" not in path:
        if path.isascii() and path.isprintable():
            return Target(path.encode("ascii"), query, mark)
    elif _MALFORMED.search(path):
        raise RequestRefused(400, "400 Bad Request")
    decoded = unquote_to_bytes(path.encode("latin-1"))
    if not decoded.decode("utf-8", "replace").isprintable():
        raise RequestRefused(400, "")
    return Target(decoded, query, mark)


def _without_host(raw_uri: str) -> str:
    _, scheme, rest = raw_uri.partition("://")
    if not scheme:
        return raw_uri
    slash = rest.find("/")
    return rest[slash:] if slash >= 0 else "/"


def is_clean(path: bytes) -> bool:
    """Whether the path may be used as it is."""
    return path.startswith(b"/") and not _UNCLEAN.search(path) and path + b"/" not in SUBTREES


def clean(path: bytes) -> bytes:
    """The path that an unclean one is redirected to."""
    result = posixpath.normpath(b"/" + path.lstrip(b"/"))
    if result + b"/" in SUBTREES:
        return result + b"/"
    return result + b"/" if path.endswith(b"/") and result != b"/" else result


def lacks_slash(path: bytes) -> bool:
    """Whether all that an unclean path lacks is the slash at its end (it may be unclean besides)."""
    return not path.endswith(b"/") and clean(path) in SUBTREES


def split(path: bytes) -> tuple[bytes, bytes | None]:
    """One of :data:`NAMED` and what stands behind it; any other path as it is, and None."""
    for prefix in NAMED:
        if path.startswith(prefix):
            return prefix, path[len(prefix) :]
    return path, None


def redirect(path: bytes, query: str, method: str) -> Answer:
    """The answer that sends the client to ``path``.

    :param query: with its question mark, if there was one.
    """
    shown = quote(path, safe=_SAFE_IN_PATH) + query
    location = "".join(character if character.isascii() else f"%{ord(character):02x}" for character in shown)
    if method not in ("GET", "HEAD"):
        return _REDIRECTED, [("Location", location)], b""
    headers = [("Content-Type", "text/html; charset=utf-8"), ("Location", location)]
    if method == "HEAD":
        return _REDIRECTED, headers, b""
    link = html.escape(shown).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
    return _REDIRECTED, headers, f'<a href="{link}">Moved Permanently</a>.\n\n'.encode("latin-1")
