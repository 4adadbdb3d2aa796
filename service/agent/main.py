"""The agent: one process a node that takes part in consensus and writes the node's state. The only composition root.

The start goes in this order, and each failing step names itself: settings, lock, log and identity, state, listener, cluster, Raft. The socket
for the workers opens before the cluster is formed, so that they can tell why the node is not ready.
"""

import asyncio
import logging
import os
import signal
import sys
import time

from raft.config import RaftConfig
from raft.errors import ConfigInvalid, InvariantViolation, RaftError
from raft.runtime.server import Ports, RaftServer
from raft.storage.directory import DirectoryLock
from raft.storage.snapshots import FileSnapshots
from raft.storage.sqlite import SqliteLog
from raft.transport.http import HttpTransport
from raft.transport.http_client import call
from raft.transport.http_server import HttpServer
from raft.transport.limits import HttpLimits
from service import logs
from service.agent import checks, formation, identity, membership, reaper
from service.agent.cache_writer import CacheWriter
from service.agent.checks import Checks
from service.agent.desk import Desk
from service.agent.identity import Cluster, Identity
from service.agent.joining import Joining
from service.agent.machine import ObservedMachine
from service.agent.membership import Membership
from service.agent.removal import until_removed
from service.agent.report import Reporter
from service.domain.commands import stamp
from service.errors import KvorumError, SettingsInvalid
from service.ipc.server import listen
from service.settings import Settings, load
from service.store.machine import KvMachine

log = logging.getLogger(__name__)

RETIRE_SECONDS = 1.5
DATA_DIRECTORY = 3
LISTENER = 7
SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter while another waits for it: at Python's 5 ms a finished write waits that long to be noticed."""


def main() -> int:
    """Run the agent until a signal or a failure; the settings come from the environment.

    :returns: the exit code; ``docs/operations.md`` lists them.
    """
    import uvloop  # noqa: PLC0415 - only the process that runs the loop pays for it

    try:
        settings = load(os.environ)
        config = RaftConfig(**settings.raft_values)
    except (SettingsInvalid, ConfigInvalid) as error:
        logs.configure("info", "auto", os.environ.get("KVORUM_NAME", ""))
        log.error("settings: %s", error)  # noqa: TRY400 - the text is for people
        return 2
    logs.configure(settings.log_level, settings.log_format, settings.name)
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(Agent(settings, config).run())
    except KvorumError as error:
        log.error("start: %s", error)  # noqa: TRY400 - the text is for people
        return error.exit_code
    except RaftError as error:
        log.error("start: %s", error)  # noqa: TRY400 - the text is for people
        return DATA_DIRECTORY


class Agent:
    """One agent, from start to stop."""

    def __init__(self, settings: Settings, config: RaftConfig) -> None:
        self._settings = settings
        self._config = config
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Start, take part until told to stop, stop.

        :returns: the exit code.
        """
        settings = self._settings
        with DirectoryLock(settings.data_dir):
            store = SqliteLog(settings.data_dir)
            me = identity.load_identity(store, settings.name)
            machine = ObservedMachine(KvMachine(settings.data_dir))
            http = HttpServer(settings.peer_bind, limits=HttpLimits.for_config(self._config))
            found = formation.Formation(me, () if settings.join else settings.members, identity.load_cluster(store), call)
            http.add_route(formation.PATH, found.answer)
            reporter = Reporter(me, machine, found, self._config.tick_ms)
            desk = Desk(machine, reporter.describe, lambda: found.waiting_for, self._config.proposal_timeout_ms / 1000)
            self._handle_signals(desk)  # before the socket opens: whoever sees it may send a signal
            try:
                await http.start()
                door = await listen(settings.socket_path, desk)
            except OSError as error:
                log.error("listener: %s or %s can't be bound: %s", settings.peer_bind, settings.socket_path, error)  # noqa: TRY400 - for people
                return LISTENER
            desk.open()
            log.info("node %s, incarnation %s, listens to peers on %s", me.name, me.incarnation, settings.peer_bind)
            try:
                if not await self._join(store, found):
                    return 0
                if identity.was_removed(store):
                    return await self._stay_outside(found)
                return await self._take_part(store, http, reporter, desk)
            finally:
                desk.close()
                door.close()
                await http.stop()
                machine.digests.stop()
                machine.store.close()

    async def _take_part(self, store: SqliteLog, http: HttpServer, reporter: Reporter, desk: Desk) -> int:
        node_id = reporter.identity.incarnation
        ports = Ports(
            log_store=store,
            stable_store=store,
            snapshot_store=FileSnapshots(self._settings.data_dir / "snapshots"),
            transport=HttpTransport(http, node_id, reporter.cluster_id),
            machine=reporter.machine,
        )
        server = RaftServer(node_id=node_id, config=self._config, ports=ports, stamp=_stamp, on_applied=desk.publish)
        server.observe(lambda observation: log.info("%s", observation))
        writer = CacheWriter(self._settings, reporter.cluster_id) if self._settings.redis_url else None
        if writer is not None:
            reporter.machine.listeners.append(writer.publish)
            writer.start()
        await server.start()
        addresses = identity.load_addresses(store)
        server.know(addresses)
        changes = Membership(reporter.cluster_id, server, call, self._config.election_ticks, self._config.tick_ms)
        http.add_route(membership.PATH, changes.answer_peer)
        reporter.server = server
        comparing = Checks(reporter, call)
        http.add_route(checks.PATH, comparing.answer_peer)
        desk.check = comparing.gather
        desk.serve(server, changes.answer)
        reaping = asyncio.create_task(reaper.run(server))
        removal = asyncio.create_task(until_removed(server, reporter.cluster_id, addresses, call))
        try:
            code = await self._until_stopped(server, http, removal)
        finally:
            reaping.cancel()
            removal.cancel()
            await server.stop()
            if writer is not None:
                await asyncio.to_thread(writer.stop)
        return await self._leave(reporter, desk) if _is_over(removal) and not self._stop.is_set() else code

    async def _leave(self, reporter: Reporter, desk: Desk) -> int:
        """The cluster has removed this node: keep that, and go on answering from what it has."""
        reporter.server = None
        desk.retire()
        store = SqliteLog(self._settings.data_dir)
        identity.keep_removal(store)
        store.close()
        return await self._stay_outside(reporter.formation)

    async def _stay_outside(self, found: formation.Formation) -> int:
        cluster_id = found.cluster.cluster_id if found.cluster else ""
        found.waiting_for = f"this node was removed from cluster {cluster_id}; it comes back with an empty data directory only"
        log.warning("%s; until then it answers ?stale from what it has", found.waiting_for)
        await self._stop.wait()
        return 0

    async def _join(self, store: SqliteLog, found: formation.Formation) -> bool:
        """Belong to a cluster.

        :returns: False when told to stop before that.
        """
        if found.cluster is not None:
            return True
        finding = asyncio.create_task(self._find(store, found))
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait((finding, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not finding.done():
            finding.cancel()
            return False
        found.cluster, found.waiting_for = finding.result(), ""
        return True

    async def _find(self, store: SqliteLog, found: formation.Formation) -> Cluster:
        """Form a cluster, or be added to one; and keep that."""
        settings, me = self._settings, found.hello()
        formed = formation.Outside("", settings.join_targets) if settings.join else await found.find()
        if isinstance(formed, Cluster):
            identity.join(store, formed)
            log.info("belongs to cluster %s of %s", formed.cluster_id, ", ".join(member.name for member in formed.members))
            return formed
        mine = Identity(identity.FORMAT, me.name, me.incarnation)
        joining = Joining(mine, settings.peer_advertise, formed.addresses, settings.join_as, call, returning=not settings.join)

        def tell(reason: str) -> None:
            found.waiting_for = reason

        cluster_id, addresses = await joining.run(tell)
        identity.join_later(store, cluster_id, addresses)
        log.info("was added to cluster %s", cluster_id)
        return Cluster(cluster_id, [])

    async def _until_stopped(self, server: RaftServer, http: HttpServer, removal: asyncio.Task[None]) -> int:
        """Wait for a signal, a failure of the node, the death of the listener, or the node's removal from the cluster."""
        stopping = asyncio.create_task(self._stop.wait())
        failing = asyncio.create_task(server.failure())
        listening = asyncio.create_task(_until_deaf(http))
        tasks = (stopping, failing, listening)
        await asyncio.wait((*tasks, removal), return_when=asyncio.FIRST_COMPLETED)
        code = 0
        if failing.done():
            error = failing.result()
            log.error("the node can't go on: %s", error)
            code = 1 if isinstance(error, InvariantViolation) else DATA_DIRECTORY
        elif listening.done():
            log.error("the listener at %s has died", http.address)
            code = LISTENER
        elif not _is_over(removal) or self._stop.is_set():
            drained = await server.retire(RETIRE_SECONDS)
            leadership = "could not be handed over" if server.leads else "was handed over"
            log.info("stopping; leadership %s; %s", leadership, "nobody waits" if drained else "somebody still waited, or leadership stayed")
        for task in tasks:
            task.cancel()
        return code

    def _handle_signals(self, desk: Desk) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGUSR2, desk.quit)


def _is_over(removal: asyncio.Task[None]) -> bool:
    return removal.done() and not removal.cancelled() and removal.exception() is None


async def _until_deaf(http: HttpServer) -> None:
    """Return when the server listens no more."""
    while http.listening:  # noqa: ASYNC110 - nothing tells when a listening socket dies
        await asyncio.sleep(1.0)


def _stamp(command: bytes) -> bytes:
    return stamp(command, time.time_ns() // 1_000_000)
