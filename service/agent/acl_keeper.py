"""What the leader does for the ACL by itself: it writes what is builtin and the token that the settings name, and forgets tokens whose time is up."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
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
FIRST_PASS_SECONDS = 0.05
"""Between passes until the ACL is there: so long every client of a new cluster is told that its token is not known."""
FIRST_PASSES_MAX = 100
"""Passes of a follower that knows a leader: one that has not written it by then was started with other settings, as in a rolling restart."""
WAITING = "the ACL's builtin policy and tokens are not written yet"


class AclKeeper:
    """One node's; it acts while the node leads.

    :param settings: those of ``acl_`` stay while the node runs.
    :param tell: takes why the node is not ready, from here on until its state holds what it must begin with; then nothing.
    """

    def __init__(self, server: RaftServer, data_dir: Path, settings: Settings, tell: Callable[[str], None]) -> None:
        self._server = server
        self._settings = settings
        self._tell = tell
        self._state = Reader(data_dir)
        self._is_enabled = settings.acl_enabled == "true"
        self._is_whole = False
        self._passes = 0
        if self._is_enabled:
            tell(WAITING)

    async def run(self) -> None:
        """Look after the ACL until cancelled. Without one there is nothing to do."""
        if not self._is_enabled:
            return
        try:
            while True:
                try:
                    await self._pass()
                except (RaftError, StateUnreadable, TimeoutError) as error:
                    log.debug("the next pass tries again: %s", error)
                await asyncio.sleep(PASS_SECONDS if self._is_whole else FIRST_PASS_SECONDS)
        finally:
            self._state.close()

    async def _pass(self) -> None:
        if self._is_whole and not self._server.leads:
            return
        due = self.due()
        self._passes += not self._server.leads and self._server.leader is not None
        if not self._is_whole and (not isinstance(due, AclChange) or self._passes > FIRST_PASSES_MAX):
            self._is_whole = True
            self._tell("")
        if due is not None and self._server.leads:
            await self._server.propose([encode(due)])

    def due(self) -> Command | None:
        """What is to be done now, by the state as far as this node has applied it."""
        command, _ = self._state.tables(partial(_due, self._settings, time.time_ns() // 1_000_000))
        return command


def _due(settings: Settings, now_ms: int, connection: Connection) -> Command | None:
    initial, found = settings.acl_initial_management, acl_rows.everything(connection)
    missing: list[Record] = [] if MANAGEMENT_ID in found.policies else [management_policy()]
    missing += [] if ANONYMOUS_ID in found.tokens else [anonymous_token()]
    lacks_initial = bool(initial) and acl_rows.find_token(connection, secret_hash(initial)) is None
    if lacks_initial:
        keep = settings.acl_secrets == "shown"
        missing.append(management_token(str(uuid.uuid4()), initial, "Initial Management Token", keep=keep))
    if missing:
        return AclChange(found.last_index, missing, bootstraps=lacks_initial)
    return ReapTokens() if acl_rows.expired(connection, now_ms) else None
