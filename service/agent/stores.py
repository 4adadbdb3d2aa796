"""What an agent holds open of its data directory, while it owns it: the log with the node's identity, and the state."""

from pathlib import Path
from typing import NamedTuple

from raft.storage.sqlite import SqliteLog
from service.agent import identity
from service.agent.identity import Identity
from service.agent.machine import told_apart
from service.store.machine import FIRST_GENERATION, KvMachine


class Stores(NamedTuple):
    """Opened by :func:`open_stores`."""

    log: SqliteLog
    identity: Identity
    state: KvMachine


def open_stores(data_dir: Path, name: str, generation: int = FIRST_GENERATION) -> Stores:
    """Open log and state, or make them.

    :param name: of the node; the directory must be its own.
    :param generation: the number of a state that has to be made: readers tell a new file from the one they have open by it.
    :raises StorageFull: when there is no room.
    :raises StateCorrupt: when the state is damaged and the log is not.
    :raises StorageCorrupt: when the log is damaged.
    :raises RaftError: when the log can't be used for another reason.
    :raises KvorumError: when the directory is another node's, or the state can't be used for another reason.
    """
    log = SqliteLog(data_dir)
    try:
        me = identity.load_identity(log, name)
        with told_apart("open the state", data_dir, opening=True):
            return Stores(log, me, KvMachine(data_dir, generation))
    except BaseException:
        log.close()
        raise
