"""What configuring the autopilot does: the whole record is replaced."""

from service.domain.autopilot import Stored
from service.domain.commands import SetAutopilot
from service.store import autopilot_rows
from service.store.apply.tables import Tables


def configure(view: Tables, index: int, _stamp_ms: int, command: SetAutopilot) -> bool:
    """Replace the configuration unless its condition fails."""
    connection = view.open()
    old = autopilot_rows.find(connection)
    if command.cas is not None and command.cas != (old.modify_index if old else 0):
        return False
    autopilot_rows.put(connection, Stored(command.configuration, old.create_index if old else index, index))
    view.changed(autopilot_rows.TABLE)
    return True
