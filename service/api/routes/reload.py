"""``/v1/agent/reload``: this node reads its settings again, as on SIGHUP."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from service.api.errors import Answer, RequestRefused
from service.api.routes.node import Node
from service.api.routing import Route

PATH = "/v1/agent/reload"


def routes(node: Node) -> list[Route]:
    """The routes of this module."""

    def reload(_: Mapping[str, Any]) -> Answer:
        if problems := node.backend.reload():
            raise RequestRefused(HTTPStatus.INTERNAL_SERVER_ERROR, "the settings were not reloaded; nothing has changed:\n" + "\n".join(problems))
        return HTTPStatus.OK, [], b""

    return [Route(PATH, ("OPTIONS", "PUT"), reload)]
