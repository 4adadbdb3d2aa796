"""``/v1/event``: the Flask views of :mod:`service.api.events`."""

from service.api.events import FIRE, Events
from service.api.routing import READ_ONLY, WRITE_ONLY, Route


def routes(events: Events) -> list[Route]:
    """The routes of this module."""
    return [
        Route(FIRE, WRITE_ONLY, events.fire),
        Route(FIRE + "<path:name>", WRITE_ONLY, events.fire),
        Route("/v1/event/list", READ_ONLY, events.list),
    ]
