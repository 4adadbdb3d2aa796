"""What firing an event does: it is kept behind the others, and drives the oldest out."""

from service.domain.commands import FireEvent
from service.domain.events import KEPT, Event
from service.store import event_rows
from service.store.apply.tables import Tables


def fire(view: Tables, _index: int, _stamp_ms: int, command: FireEvent) -> bool:
    """Keep an event."""
    connection = view.open()
    ltime = event_rows.newest(connection) + 1
    filters = (command.node_filter, command.service_filter, command.tag_filter)
    event_rows.add(connection, Event(ltime, command.id, command.name, command.payload, *filters))
    event_rows.forget(connection, ltime - KEPT)
    view.changed(event_rows.TABLE)
    return True
