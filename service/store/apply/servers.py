"""What the leader's record of the members does: every difference moves the indexes of what it is about, and nothing else does."""

from service.domain.commands import RecordServers
from service.domain.servers import Server
from service.store import server_rows
from service.store.apply.tables import Tables


def record(view: Tables, index: int, _stamp_ms: int, command: RecordServers) -> bool:
    """Make the table what the leader says."""
    connection = view.open()
    kept = {server.id: server for server in server_rows.every(connection).servers}
    wanted = {one.id: one for one in command.servers}
    nodes = checks = False
    for one in wanted.values():
        old = kept.get(one.id)
        nodes_differ = old is None or (old.name, old.address, old.voter) != (one.name, one.address, one.voter)
        checks_differ = old is None or old.alive != one.alive
        if not (nodes_differ or checks_differ):
            continue
        created = index if old is None else old.create_index
        modified = index if old is None or nodes_differ else old.modify_index
        checked = index if old is None or checks_differ else old.check_index
        server_rows.put(connection, Server(one.id, one.name, one.address, one.voter, one.alive, created, modified, checked))
        nodes, checks = nodes or nodes_differ, checks or checks_differ
    for gone in kept.keys() - wanted.keys():
        server_rows.delete(connection, gone)
        nodes = checks = True
    if nodes or checks:
        server_rows.move_indexes(connection, index, nodes=nodes, checks=checks)
        view.changed(server_rows.TABLE)
    return True
