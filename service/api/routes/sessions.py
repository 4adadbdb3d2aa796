"""``/v1/session/``: the Flask views of :mod:`service.api.sessions`."""

from service.api.routing import Route
from service.api.sessions import READ_METHODS, WRITE_METHODS, Sessions


def routes(sessions: Sessions) -> list[Route]:
    """The routes of this module. What follows a path that ends with a slash is in the environment."""
    return [
        Route("/v1/session/create", WRITE_METHODS, sessions.create),
        Route("/v1/session/destroy/", WRITE_METHODS, sessions.destroy),
        Route("/v1/session/renew/", WRITE_METHODS, sessions.renew),
        Route("/v1/session/info/", READ_METHODS, sessions.info),
        Route("/v1/session/node/", READ_METHODS, sessions.of_node),
        Route("/v1/session/list", READ_METHODS, sessions.all),
    ]
