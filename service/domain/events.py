"""User events: named notices for whoever watches. The newest few are kept; nothing depends on them.

An event may name the nodes it is for by a regular expression. It is kept by all of them, and each shows what it is meant to see. No service is
registered at a node of ours, so one that is for the nodes of a service is shown nowhere.
"""

from typing import NamedTuple

from service.domain.commands import FireEvent
from service.domain.filters import FilterRefused, compile_filter

KEPT = 256
"""How many events there are at most: a new one drives the oldest out."""

VERSION = 1
BYTES_MAX = 416
"""What Consul's gossip leaves of its 512 bytes: the name counts twice, each filter and four bytes."""

NO_EVENTS_INDEX = 1
_FILTER_OVERHEAD_BYTES = 4


class Event(NamedTuple):
    """One event as it is kept.

    :ivar ltime: a number that grows with each event.
    """

    ltime: int
    id: str
    name: bytes
    payload: bytes
    node_filter: str
    service_filter: str
    tag_filter: str


def fits(event: FireEvent) -> bool:
    """Whether an event is as short as events must be."""
    filters = [one for one in (event.node_filter, event.service_filter, event.tag_filter) if one]
    filter_bytes = sum(len(one.encode("utf-8", "surrogateescape")) + _FILTER_OVERHEAD_BYTES for one in filters)
    return 2 * len(event.name) + len(event.payload) + filter_bytes <= BYTES_MAX


def index_of(event_id: str) -> int:
    """The X-Consul-Index of a list that ends with this event: the halves of its UUID, exclusive or. It says *which* event, not how new."""
    digits = event_id.replace("-", "")
    return int(digits[:16], 16) ^ int(digits[16:], 16)


def is_for(event: Event, node: str) -> bool:
    """Whether a node shows an event."""
    if event.service_filter:
        return False
    try:
        return not event.node_filter or compile_filter(event.node_filter).search(node) is not None
    except FilterRefused:
        return False
