"""Routes as data: a path, the methods it knows, and a function from the WSGI environment to an answer."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from service.api.errors import TEXT, Answer, Headers, RequestRefused
from service.api.params import check_escapes

READ_ONLY = ("OPTIONS", "GET")
WRITE_ONLY = ("OPTIONS", "PUT")

Stream = tuple[int, Headers, Iterator[bytes]]
"""An answer that goes on: each piece is sent as it comes. An empty first one sends the headers."""


class Route(NamedTuple):
    """One path.

    :ivar methods: in the order of the Allow header; None for any.
    """

    path: str
    methods: tuple[str, ...] | None
    view: Callable[[Mapping[str, Any]], Answer | Stream]

    def answer(self, environ: Mapping[str, Any]) -> Answer | Stream:
        """Check the method, as Consul does before anything but the escapes of the query, and call the view."""
        method = environ["REQUEST_METHOD"]
        try:
            if self.methods is not None:
                check_escapes(environ["QUERY_STRING"])
                if method == "OPTIONS":
                    return 200, [("Allow", ",".join(self.methods))], b""
                if method not in self.methods:
                    text = b"" if method == "HEAD" else f"method {method} not allowed".encode()
                    return 405, [("Allow", ",".join(self.methods)), TEXT], text
            return self.view(environ)
        except RequestRefused as refused:
            return refused.answer(method)
