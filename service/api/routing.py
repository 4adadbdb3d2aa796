"""Routes as data: a path, the methods it knows, and a function from the WSGI environment to an answer."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from service.api.errors import TEXT, Answer, RequestRefused

READ_ONLY = ("OPTIONS", "GET")


class Route(NamedTuple):
    """One path.

    :ivar methods: in the order of the Allow header; None for any.
    """

    path: str
    methods: tuple[str, ...] | None
    view: Callable[[Mapping[str, Any]], Answer]

    def answer(self, environ: Mapping[str, Any]) -> Answer:
        """Check the method, as Consul does before anything else, and call the view."""
        method = environ["REQUEST_METHOD"]
        if self.methods is not None:
            if method == "OPTIONS":
                return 200, [("Allow", ",".join(self.methods))], b""
            if method not in self.methods:
                text = b"" if method == "HEAD" else f"method {method} not allowed".encode()
                return 405, [("Allow", ",".join(self.methods)), TEXT], text
        try:
            return self.view(environ)
        except RequestRefused as refused:
            return refused.answer(method)
