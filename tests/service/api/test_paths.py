"""Paths as Go's server sees them. The expectations were recorded from Consul 1.8.7."""

import pytest

from service.api import paths
from service.api.errors import RequestRefused


@pytest.mark.parametrize(
    ("raw", "path", "query"),
    [
        ("/v1/kv/a?x=1?2", b"/v1/kv/a", "x=1?2"),
        ("/v1/kv/a%20b%2Fc+d", b"/v1/kv/a b/c+d", ""),
        ("/v1/kv/a#b", b"/v1/kv/a#b", ""),
        ("/v1/kv/%ff%FE", b"/v1/kv/\xff\xfe", ""),
        ("/v1/kv/\xc3\xbc", "/v1/kv/ü".encode(), ""),
        ("http://host:1/v1/kv/a?b", b"/v1/kv/a", "b"),
        ("http://host", b"/", ""),
        ("*", b"*", ""),
    ],
)
def test_targets(raw: str, path: bytes, query: str) -> None:
    """Escapes, raw bytes, an absolute target and a '#' give the bytes that Go's URL.Path has."""
    assert paths.parse(raw)[:2] == (path, query)


@pytest.mark.parametrize("escape", ["%00", "%0a", "%0D", "%09", "%1b", "%7f", "%C2%A0", "%C2%AD", "%E2%80%A8", "%EE%80%80", "%E3%80%80"])
def test_unprintable(escape: str) -> None:
    """Control characters and what else Go calls unprintable are refused without a word."""
    with pytest.raises(RequestRefused) as refused:
        paths.parse(f"/v1/kv/a{escape}b")
    assert refused.value.answer("GET") == (400, [], b"")


@pytest.mark.parametrize("raw", ["/v1/kv/%zz", "/v1/kv/a%", "/v1/kv/%4"])
def test_malformed(raw: str) -> None:
    """A broken escape is refused with Go's text."""
    with pytest.raises(RequestRefused) as refused:
        paths.parse(raw)
    assert (refused.value.status, refused.value.text) == (400, "400 Bad Request")


@pytest.mark.parametrize(
    ("unclean", "clean"),
    [
        (b"//v1/kv/a", b"/v1/kv/a"),
        (b"/v1/kv//abs", b"/v1/kv/abs"),
        (b"/v1/kv/a/../b", b"/v1/kv/b"),
        (b"/v1/kv/a/./b", b"/v1/kv/a/b"),
        (b"/v1/kv/a/.", b"/v1/kv/a"),
        (b"/v1/kv/a/..", b"/v1/kv/"),
        (b"/v1/kv/..", b"/v1"),
        (b"/v1/kv", b"/v1/kv/"),
        (b"/v1/kv/a//", b"/v1/kv/a/"),
        (b"/../..", b"/"),
        (b"", b"/"),
    ],
)
def test_cleaning(unclean: bytes, clean: bytes) -> None:
    """An unclean path is told from a clean one and made clean as Go's ServeMux does it."""
    assert not paths.is_clean(unclean)
    assert paths.clean(unclean) == clean
    assert paths.is_clean(clean)


@pytest.mark.parametrize("path", [b"/", b"/v1/kv/", b"/v1/kv/a/", b"/v1/kv/.hidden", b"/v1/kv/a..b/...", b"/v1/kv/a."])
def test_clean_already(path: bytes) -> None:
    """Dots inside of names and a slash at the end are nothing to clean."""
    assert paths.is_clean(path)


def test_redirection() -> None:
    """Location and body are escaped as Go does it; the query is kept, an empty one too; only GET has a body."""
    path, query = "/v1/kv/€!*'();:@&=+$,[]~ ".encode(), "?x=%20<>\"'"
    shown = "/v1/kv/%E2%82%AC%21%2A%27%28%29;:@&=+$,%5B%5D~%20?x=%20<>\"'"
    link = "/v1/kv/%E2%82%AC%21%2A%27%28%29;:@&amp;=+$,%5B%5D~%20?x=%20&lt;&gt;&#34;&#39;"
    headers = [("Content-Type", "text/html; charset=utf-8"), ("Location", shown)]
    assert paths.redirect(path, query, "GET") == (301, headers, f'<a href="{link}">Moved Permanently</a>.\n\n'.encode())
    assert paths.redirect(path, query, "HEAD") == (301, headers, b"")
    assert paths.redirect(path, query, "PUT") == (301, [("Location", shown)], b"")
    assert paths.redirect(b"/a", "?\xff", "PUT")[1] == [("Location", "/a?%ff")]
    assert paths.redirect(b"/a", "?", "PUT")[1] == [("Location", "/a?")]
    assert [paths.parse(uri)[1:] for uri in ("/a", "/a?", "/a?b?c", "/%61?")] == [("", ""), ("", "?"), ("b?c", "?"), ("", "?")]
