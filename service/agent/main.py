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
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from raft.config import RaftConfig
from raft.errors import ConfigInvalid, InvariantViolation, RaftError, StorageCorrupt, StorageError, StorageFull
from raft.runtime.server import Ports, RaftServer
from raft.storage.directory import DirectoryLock
from raft.storage.snapshots import FileSnapshots
from raft.storage.sqlite import SqliteLog
from raft.transport.http import HttpTransport
from raft.transport.http_client import call
from raft.transport.http_server import HttpServer, not_attached
from raft.transport.limits import HttpLimits
from service import logs
from service.agent import aside, checks, formation, identity, membership, reaper
from service.agent.acl_keeper import AclKeeper
from service.agent.caretaker import Caretaker
from service.agent.checks import Checks
from service.agent.desk import Desk
from service.agent.identity import Cluster, Identity
from service.agent.joining import Joining
from service.agent.machine import ObservedMachine
from service.agent.membership import Membership
from service.agent.reloading import Reloading
from service.agent.removal import until_removed
from service.agent.repair import Repair, RepairRefused
from service.agent.report import Reporter
from service.agent.scrubber import Scrubber
from service.agent.session_expiry import SessionExpiry
from service.agent.space import MIB, ROOM_BYTES, Space
from service.agent.stores import Stores, open_stores
from service.domain.commands import stamp
from service.errors import KvorumError, SettingsInvalid
from service.ipc.server import listen
from service.reloading import REPORT_VARIABLE, Sources
from service.settings import Settings, load

if TYPE_CHECKING:
    from service.agent.cache_writer import CacheWriter

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
        sources = Sources.from_environ(os.environ)
        config = RaftConfig(**settings.raft_values)
    except (SettingsInvalid, ConfigInvalid) as error:
        logs.configure("info", "auto", os.environ.get("KVORUM_NAME", ""))
        log.error("settings: %s", error)  # noqa: TRY400 - the text is for people
        return 2
    logs.configure(settings.log_level, settings.log_format, settings.name)
    sys.setswitchinterval(SWITCH_SECONDS)
    _let_others_finish()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(Agent(settings, config, sources).run())
    except KvorumError as error:
        log.error("start: %s", error)  # noqa: TRY400 - the text is for people
        return error.exit_code
    except RaftError as error:
        log.error("start: %s", error)  # noqa: TRY400 - the text is for people
        return DATA_DIRECTORY


def _let_others_finish() -> None:
    """Have the kernel wake this process's threads without interrupting whoever runs; see decision 29. A kernel that refuses is asked no more."""
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class Agent:
    """One agent, from start to stop.

    :param sources: where the settings are read from again.
    """

    def __init__(self, settings: Settings, config: RaftConfig, sources: Sources) -> None:
        self._settings = settings
        self._config = config
        self._stop = asyncio.Event()
        self._space = Space(settings.data_dir)
        self._repair = Repair(settings, call)
        self._reloading = Reloading(sources, settings, config, _report_descriptor(), self._stop.is_set)

    async def run(self) -> int:
        """Start, take part until told to stop, stop.

        :returns: the exit code.
        """
        settings = self._settings
        with DirectoryLock(settings.data_dir):
            stores = await self._open()
            me, machine = stores.identity, ObservedMachine(stores.state, settings.data_dir)
            http = HttpServer(settings.peer_bind, limits=HttpLimits.for_config(self._config))
            reporter = Reporter(me, machine, self._formation(stores), self._config.tick_ms)
            reporter.numbers = lambda: self._reloading.numbers
            desk = Desk(machine, reporter.describe, lambda: reporter.formation.waiting_for, self._config.proposal_timeout_ms / 1000)
            desk.configure(settings)
            desk.reload = self._reloading.reload
            self._reloading.listeners.append(desk.configure)
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
                return await self._live(stores, http, reporter, desk)
            finally:
                desk.close()
                door.close()
                await http.stop()
                machine.digests.stop()
                machine.store.close()

    async def _open(self) -> Stores:
        """Open log and state, and repair what can be.

        :raises RepairRefused: when they are damaged and nothing may be done about it.
        """
        data_dir = self._settings.data_dir
        aside.finish(data_dir)
        while True:
            try:
                return open_stores(data_dir, self._settings.name)
            except StorageCorrupt as damage:
                await self._repair.heal(damage)

    async def _live(self, stores: Stores, http: HttpServer, reporter: Reporter, desk: Desk) -> int:
        """Be a node until told to stop. When the disk gets in the way, be none until it does not, and start anew from what it holds."""
        while True:
            trouble: StorageError
            try:
                return await self._be_node(stores.log, http, reporter, desk)
            except (StorageFull, StorageCorrupt) as error:
                trouble = error
            finally:
                stores.log.close()
            log.error("the node can't go on for now: %s", trouble)
            reporter.server = None
            reporter.machine.listeners.clear()
            reporter.machine.store.close()
            http.add_sync_route(membership.PATH, not_attached)
            try:
                reopened = await self._reopen(trouble, reporter, desk)
            except RepairRefused as error:
                log.error("the node can't go on: %s", error)  # noqa: TRY400 - the text is for people
                return DATA_DIRECTORY
            if reopened is None:
                return 0
            stores = reopened
            try:
                await http.start()
            except OSError as error:
                log.error("listener: %s can't be bound again: %s", self._settings.peer_bind, error)  # noqa: TRY400 - for people
                return LISTENER

    async def _reopen(self, trouble: StorageError, reporter: Reporter, desk: Desk) -> Stores | None:
        """Wait until there is room on the disk, or repair the damage, and open log and state again, as at a start.

        :returns: None when told to stop before that.
        :raises RepairRefused: when nothing may be done about the damage.
        """
        generation = reporter.machine.store.generation
        while True:
            if isinstance(trouble, StorageCorrupt):
                reporter.formation.waiting_for = f"damaged: {trouble}"
                way_out = self._repair.heal(trouble)
            else:
                reporter.formation.waiting_for = f"disk full: {trouble}; the node goes on by itself once {ROOM_BYTES // MIB} MiB are free"
                way_out = self._space.wait()
            desk.retire()
            try:
                if not await self._unless_stopped(way_out):
                    return None
                stores = await asyncio.to_thread(open_stores, self._settings.data_dir, self._settings.name, generation + 1)
            except RepairRefused:
                raise
            except (StorageFull, StorageCorrupt) as error:
                trouble = error
                log.warning("not yet: %s", trouble)
                continue
            log.info("the node starts anew from what its disk holds")
            reporter.machine.replace(stores.state)
            reporter.identity, reporter.formation = stores.identity, self._formation(stores)
            desk.publish(stores.state.applied_index)
            return stores

    def _formation(self, stores: Stores) -> formation.Formation:
        """What is known about the cluster at a start."""
        members = () if self._settings.join else self._settings.members
        return formation.Formation(stores.identity, members, identity.load_cluster(stores.log), call)

    async def _be_node(self, store: SqliteLog, http: HttpServer, reporter: Reporter, desk: Desk) -> int:
        """Belong to a cluster and take part, from one start to the next stop."""
        http.add_route(formation.PATH, reporter.formation.answer)
        if not await self._join(store, reporter.formation):
            return 0
        if identity.was_removed(store):
            return await self._stay_outside(reporter.formation)
        return await self._take_part(store, http, reporter, desk)

    async def _take_part(self, store: SqliteLog, http: HttpServer, reporter: Reporter, desk: Desk) -> int:
        node_id = reporter.identity.incarnation
        ports = Ports(
            log_store=store,
            stable_store=store,
            snapshot_store=FileSnapshots(self._settings.data_dir / "snapshots"),
            transport=HttpTransport(http, node_id, reporter.cluster_id),
            machine=reporter.machine,
        )
        reloading = self._reloading
        server = RaftServer(node_id=node_id, config=reloading.config, ports=ports, stamp=_stamp, on_applied=desk.publish, on_lease=desk.lease.publish)
        server.observe(lambda observation: log.info("%s", observation))
        tasks: list[asyncio.Task[None]] = []
        writer = _open_cache(reloading.settings, reporter.cluster_id) if self._settings.redis_url else None
        if writer is not None:
            reloading.listeners.append(writer.configure)
            reporter.machine.listeners.append(writer.publish)
            writer.start()
        expiry = SessionExpiry(reporter.machine.store)
        reporter.machine.listeners.append(expiry.publish)
        acl = AclKeeper(server, self._settings.data_dir, self._settings, partial(setattr, reporter.formation, "waiting_for"))
        try:
            async with reloading.held_off():
                await server.start()
                reloading.attach(server)
            addresses = identity.load_addresses(store)
            configured = server.status().configuration
            server.know({node: address for node, address in addresses.items() if node not in configured})  # those of the joining may be old
            caretaker = self._serve(server, http, reporter, desk)
            removal = asyncio.create_task(until_removed(server, reporter.cluster_id, addresses, call))
            scrubber = Scrubber(reporter.machine, self._settings.scrub_mib_per_second)
            desk.suspect = scrubber.suspect
            scrubbing = asyncio.create_task(scrubber.run())
            caring = (reaper.run(server), expiry.run(server), caretaker.run(), acl.run())
            tasks = [removal, scrubbing, *(asyncio.create_task(work) for work in caring)]
            code = await self._until_stopped(server, http, removal, scrubbing)
        finally:
            for task in tasks:
                task.cancel()
            await server.stop()
            reloading.detach()
            if writer is not None:
                reloading.listeners.remove(writer.configure)
                await asyncio.to_thread(writer.stop)
        return await self._leave(reporter, desk) if _is_over(removal) and not self._stop.is_set() else code

    def _serve(self, server: RaftServer, http: HttpServer, reporter: Reporter, desk: Desk) -> Caretaker:
        """Answer peers and workers on behalf of a running server.

        :returns: who is to look after the cluster while this node leads.
        """
        changes = Membership(reporter.cluster_id, server, call, self._config.election_ticks, self._config.tick_ms)
        http.add_route(membership.PATH, changes.answer_peer)
        reporter.server = server
        comparing = Checks(reporter, call)
        http.add_route(checks.PATH, comparing.answer_peer)
        desk.check = comparing.gather
        caretaker = Caretaker(server, self._settings.data_dir, self._config.tick_ms, self._config.election_ticks * self._config.tick_ms)
        changes.health = caretaker.health
        desk.serve(server, changes.answer)
        return caretaker

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
        if not await self._unless_stopped(finding):
            return False
        found.cluster, found.waiting_for = finding.result(), ""
        return True

    async def _unless_stopped(self, work: Coroutine[Any, Any, Any] | asyncio.Task[Any]) -> bool:
        """Wait for something.

        :returns: False when told to stop before that; it is broken off then.
        """
        task = asyncio.ensure_future(work)
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not task.done():
            task.cancel()
            return False
        task.result()
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

    async def _until_stopped(self, server: RaftServer, http: HttpServer, removal: asyncio.Task[None], scrubbing: asyncio.Task[None]) -> int:
        """Wait for a signal, a failure of the node or of its state, the death of the listener, or the node's removal from the cluster.

        :raises StorageFull: when the disk has no room for what the node must write.
        :raises StorageCorrupt: when what it has written is not there any more.
        """
        stopping = asyncio.create_task(self._stop.wait())
        failing = asyncio.create_task(server.failure())
        listening = asyncio.create_task(_until_deaf(http))
        tasks = (stopping, failing, listening)
        await asyncio.wait((*tasks, removal, scrubbing), return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()  # without effect on those that are done
        code = 0
        if failing.done() or scrubbing.done():
            error = failing.result() if failing.done() else scrubbing.exception()
            if isinstance(error, StorageFull | StorageCorrupt):
                raise error
            log.error("the node can't go on: %s", error)
            code = 1 if isinstance(error, InvariantViolation) else DATA_DIRECTORY
        elif listening.done():
            log.error("the listener at %s has died", http.address)
            code = LISTENER
        elif not _is_over(removal) or self._stop.is_set():
            drained = await server.retire(RETIRE_SECONDS)
            leadership = "could not be handed over" if server.leads else "was handed over"
            log.info("stopping; leadership %s; %s", leadership, "nobody waits" if drained else "somebody still waited, or leadership stayed")
        return code

    def _handle_signals(self, desk: Desk) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGUSR2, desk.quit)
        loop.add_signal_handler(signal.SIGHUP, self._reloading.on_signal)


def _open_cache(settings: Settings, cluster_id: str) -> "CacheWriter":
    from service.agent.cache_writer import CacheWriter  # noqa: PLC0415 - a twelfth of the start that only nodes with a Redis pay

    return CacheWriter(settings, cluster_id)


def _report_descriptor() -> int | None:
    """Where the supervisor is told of other settings, if it wants to be."""
    number = os.environ.get(REPORT_VARIABLE)
    if number is None:
        return None
    os.set_blocking(int(number), False)
    return int(number)


def _is_over(removal: asyncio.Task[None]) -> bool:
    return removal.done() and not removal.cancelled() and removal.exception() is None


async def _until_deaf(http: HttpServer) -> None:
    """Return when the server listens no more."""
    while http.listening:  # noqa: ASYNC110 - nothing tells when a listening socket dies
        await asyncio.sleep(1.0)


def _stamp(command: bytes) -> bytes:
    return stamp(command, time.time_ns() // 1_000_000)
