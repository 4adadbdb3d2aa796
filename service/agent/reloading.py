"""A reload: the settings are read again and judged as a whole, and then they are in force in every process of the node, or nothing has changed.

Whatever can fail comes first, in this order: reading, the rules, what needs a restart, the Raft library, the supervisor. What follows
can't fail and happens within one turn of the loop: the library, the parts of the agent, and a frame to every worker swap one frozen object.
"""

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from raft.config import RaftConfig
from raft.errors import ConfigInvalid, NodeStopped
from raft.runtime.server import RaftServer
from service.errors import SettingsInvalid
from service.reloading import Live, Sources, changes, reloadable_values
from service.settings import Settings

log = logging.getLogger(__name__)


class Reloading:
    """The settings in force in the agent. All on the loop's thread.

    :param report: the descriptor on which the supervisor is told; None: there is none.
    :param stopping: whether the node is to stop.
    :ivar listeners: called with the new settings; they must not fail.
    """

    def __init__(
        self, sources: Sources, settings: Settings, config: RaftConfig, report: int | None = None, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self._server: RaftServer | None = None
        self.listeners: list[Callable[[Settings], None]] = []
        self._sources = sources
        self._live = Live(settings)
        self._config = config
        self._report = report
        self._stopping = stopping
        self._one_at_a_time = asyncio.Lock()
        self._asked: set[asyncio.Task[tuple[str, ...]]] = set()
        self._done = 0
        self._refused = 0
        self._last_refused = False
        self._last_done = time.time()

    @property
    def settings(self) -> Settings:
        """What is in force."""
        return self._live.now

    @property
    def config(self) -> RaftConfig:
        """The library's part of it."""
        return self._config

    @property
    def numbers(self) -> dict[str, float]:
        """For ``/metrics``. A node has read its settings successfully when it was started."""
        return {
            "config_reloads_total": float(self._done),
            "config_reload_failures_total": float(self._refused),
            "config_last_reload_successful": float(not self._last_refused),
            "config_last_reload_success_timestamp_seconds": self._last_done,
        }

    @asynccontextmanager
    async def held_off(self) -> AsyncIterator[None]:
        """Let reloads wait meanwhile; for a part that has got the settings and can't yet be told of others."""
        async with self._one_at_a_time:
            yield

    def attach(self, server: RaftServer) -> None:
        """A Raft server runs: it goes on with what is in force, also if that has changed since it was made."""
        server.reconfigure(self._config)
        self._server = server

    def detach(self) -> None:
        """The Raft server runs no more."""
        self._server = None

    async def reload(self) -> tuple[str, ...]:
        """Read the settings again and let them be in force. Several reloads at a time happen one after the other.

        :returns: every reason why nothing has changed; empty when what was read is in force.
        """
        async with self._one_at_a_time:
            try:
                # In a thread: the file may lie on a disk that hangs.
                changed = self._take(await asyncio.to_thread(self._sources.read))
            except SettingsInvalid as error:
                self._refused += 1
                self._last_refused = True
                log.error("reload: nothing has changed: %s", "\n".join(error.problems))  # noqa: TRY400 - the text is for people
                return error.problems
            self._done += 1
            self._last_refused = False
            self._last_done = time.time()
            log.info("reloaded the settings: %s", "; ".join(changed) or "they are as they were")
            return ()

    def _take(self, new: Settings) -> tuple[str, ...]:
        """Swap the settings everywhere.

        :returns: what has changed, in words.
        :raises SettingsInvalid: nothing has changed.
        """
        if self._stopping():
            raise SettingsInvalid(("the node is stopping",))
        changed = changes(self.settings, new)
        config = self._checked(new)
        self._tell_supervisor(new)
        if self._server is not None:
            self._server.reconfigure(config)
        self._config = config
        self._live.swap(new)
        for listener in self.listeners:
            listener(new)
        return changed

    def _checked(self, new: Settings) -> RaftConfig:
        """The library's part of new settings, once it is certain that it takes them."""
        try:
            config = RaftConfig(**new.raft_values)
            self._config.changed_to(config)
            if self._server is not None:
                _ = self._server.driver
        except ConfigInvalid as error:
            raise SettingsInvalid(tuple(f"raft_{problem}" for problem in error.problems)) from error
        except NodeStopped as error:
            raise SettingsInvalid((f"{error}",)) from error
        return config

    def _tell_supervisor(self, new: Settings) -> None:
        if self._report is None:
            return
        line = json.dumps(reloadable_values(new)).encode() + b"\n"
        try:
            # As one piece: it is shorter than what a pipe takes at once or not at all.
            os.write(self._report, line)
        except OSError as error:
            raise SettingsInvalid((f"the supervisor of this node can't be told: {error.strerror}",)) from error

    def on_signal(self) -> None:
        """Reload because of SIGHUP; the log tells how it ended."""
        task = asyncio.get_running_loop().create_task(self.reload())
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)
