"""``/v1/snapshot``: the Flask views of :mod:`service.api.save` and :mod:`service.api.restore`."""

from collections.abc import Mapping
from typing import Any

from service.api.errors import Answer
from service.api.restore import Restoring
from service.api.routing import Route, Stream
from service.api.save import Saving


def routes(saving: Saving, restoring: Restoring) -> list[Route]:
    """The routes of this module."""

    def snapshot(environ: Mapping[str, Any]) -> Answer | Stream:
        return saving.save(environ) if environ["REQUEST_METHOD"] == "GET" else restoring.restore(environ)

    return [Route("/v1/snapshot", ("OPTIONS", "GET", "PUT"), snapshot)]
