"""What the leader does for the ACL by itself: it writes what is builtin and the token that the settings name, and forgets tokens whose time is up."""

import asyncio
import logging
import time
import uuid
from functools import partial
from pathlib import Path
from sqlite3 import Connection

from raft.errors import RaftError
from raft.runtime.server import RaftServer
from service.domain.acl.records import ANONYMOUS_ID, MANAGEMENT_ID, Record, anonymous_token, management_policy, management_token, secret_hash
from service.domain.commands import AclChange, Command, ReapTokens, encode
from service.errors import StateUnreadable
from service.settings import Settings
from service.store import acl_rows
from service.store.reader import Reader

log = logging.getLogger(__name__)

PASS_SECONDS = 1.0


class AclKeeper:
    """One node's; it acts while the node leads.

    :param settings: those of ``acl_`` stay while the node runs.
    """

    def __init__(self, server: RaftServer, data_dir: Path, settings: Settings) -> None:
        self._server = server
        self._settings = settings
        self._state = Reader(data_dir)

    async def run(self) -> None:
        """Look after the ACL until cancelled. Without one there is nothing to do."""
        if self._settings.acl_enabled != "true":
            return
        try:
            while True:
                try:
                    if self._server.leads and (due := self.due()) is not None:
                        await self._server.propose([encode(due)])
                except (RaftError, StateUnreadable, TimeoutError) as error:
                    log.debug("the next pass tries again: %s", error)
                await asyncio.sleep(PASS_SECONDS)
        finally:
            self._state.close()

    def due(self) -> Command | None:
        """What is to be done now, by the state as far as this node has applied it."""
        command, _ = self._state.tables(partial(_due, self._settings, time.time_ns() // 1_000_000))
        return command


def _due(settings: Settings, now_ms: int, connection: Connection) -> Command | None:
    if acl_rows.expired(connection, now_ms):
        return ReapTokens()
    initial, found = settings.acl_initial_management, acl_rows.everything(connection)
    missing: list[Record] = [] if MANAGEMENT_ID in found.policies else [management_policy()]
    missing += [] if ANONYMOUS_ID in found.tokens else [anonymous_token()]
    lacks_initial = bool(initial) and acl_rows.find_token(connection, secret_hash(initial)) is None
    if lacks_initial:
        keep = settings.acl_secrets == "shown"
        missing.append(management_token(str(uuid.uuid4()), initial, "Initial Management Token", keep=keep))
    return AclChange(found.last_index, missing, bootstraps=lacks_initial) if missing else None
