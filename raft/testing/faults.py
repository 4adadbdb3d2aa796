"""Which faults a schedule has, and how bad they are: drawn once, from the seed (swarm testing).

Groce et al., "Swarm Testing" (ISSTA 2012): a schedule in which *every* fault is possible rarely reaches the states that need one kind of
fault in abundance and the absence of another. So each schedule first draws which faults exist at all.
"""

import random
from dataclasses import dataclass, replace

from raft.config import RaftConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one schedule is like. Zero switches a fault off. Durations in milliseconds of virtual time."""

    nodes: int
    spares: int
    """Servers outside the first configuration, which changes may bring in."""
    survivors: int
    """Nodes that are up and connected in the liveness phase; always a majority."""
    config: RaftConfig
    duration_ms: int
    rates: tuple[float, ...]
    """How fast each node's clock runs."""

    latency_ms_max: int
    slow_chance: float
    """The part of the messages that take up to ``slow_ms_max`` instead."""
    slow_ms_max: int
    ordered: bool
    """Whether a link keeps the order of its messages."""
    loss: float
    duplication: float
    unreachable_chance: float
    """How often the sender's transport notices that a message was lost."""

    partition_every_ms: int
    partition_ms_max: int
    crash_every_ms: int
    crash_ms_max: int
    break_new_leader: float
    """How often a new leader crashes, or is cut off, within a heartbeat or so of its election."""
    pause_every_ms: int
    pause_ms_max: int

    sync_ms_max: int
    slow_sync_chance: float
    slow_sync_ms_max: int
    apply_ms_max: int
    turn_ms_max: int
    """How long a node collects input before it takes what the core has ready."""

    snapshot_ms_max: int
    install_ms_max: int
    snapshot_failure: float
    stored_snapshots: bool
    """Whether a peer is sent the snapshot of the last compaction, instead of a copy of the present state."""

    propose_every_ms: int
    commands_max: int
    command_bytes_max: int
    read_every_ms: int
    lease_reads: float
    """The part of the reads that rely on the leader's lease; none where clocks differ by more than it allows for."""
    lease_attack_every_ms: int
    transfer_every_ms: int
    change_every_ms: int


def draw_plan(rng: random.Random) -> Plan:
    """Draw a schedule's plan."""
    nodes = rng.choice((3, 3, 3, 4, 5, 5, 5, 6, 7))
    majority = nodes // 2 + 1
    slow = rng.random() < 0.4
    skewed = rng.random() < 0.3
    # A leader whose clock is slow, among followers whose clocks are not: as far apart as the lease allows for.
    attacked = not skewed and rng.random() < 0.3
    calm = attacked and rng.random() < 0.7
    config = _draw_config(rng, coarse=not attacked)
    base_ms = config.election_timeout_ms
    slowest = 1.0 - config.lease_drift_percent / 100 if attacked or rng.random() < 0.5 else 1.0
    churn = rng.random() < 0.35
    spares = rng.randint(1, 3) if churn else 0
    slow_clocks = rng.sample(range(nodes), rng.randint(1, nodes - majority)) if attacked else ()
    plan = Plan(
        nodes=nodes,
        spares=spares,
        # Who is needed when members have come and gone is not known beforehand: then all survive.
        survivors=nodes + spares if churn or rng.random() < 0.6 else rng.randint(majority, nodes),
        config=config,
        duration_ms=60_000,
        rates=tuple(
            slowest if number in slow_clocks else 1.0 if attacked else round(2 ** rng.uniform(-1, 1), 2) if skewed else rng.choice((slowest, 1.0))
            for number in range(nodes + spares)
        ),
        latency_ms_max=rng.choice((2, 10, 10, 40)),
        slow_chance=rng.choice((0.01, 0.05, 0.2, 0.5)) if slow else 0.0,
        slow_ms_max=int(base_ms * rng.choice((0.5, 1, 3, 10))),
        ordered=rng.random() < 0.3,
        loss=rng.choice((0.02, 0.1, 0.2, 0.3, 0.4, 0.5)) if rng.random() < 0.5 else 0.0,
        duplication=rng.choice((0.01, 0.03, 0.05)) if rng.random() < 0.5 else 0.0,
        unreachable_chance=rng.choice((0.0, 0.5, 1.0)),
        partition_every_ms=rng.choice((1_000, 3_000, 8_000)) if rng.random() < 0.55 else 0,
        partition_ms_max=base_ms * rng.choice((2, 6, 20)),
        crash_every_ms=rng.choice((700, 2_000, 6_000)) if rng.random() < 0.55 else 0,
        crash_ms_max=base_ms * rng.choice((1, 3, 20)),
        break_new_leader=rng.choice((0.3, 0.7)) if rng.random() < 0.3 else 0.0,
        pause_every_ms=rng.choice((2_000, 6_000)) if rng.random() < 0.3 else 0,
        pause_ms_max=base_ms * rng.choice((2, 10, 100)),
        sync_ms_max=rng.choice((0, 3, 3, 20)),
        slow_sync_chance=rng.choice((0.02, 0.2)) if rng.random() < 0.3 else 0.0,
        slow_sync_ms_max=base_ms * rng.choice((1, 3)),
        apply_ms_max=rng.choice((0, 0, 5, 100, 1_000)),
        turn_ms_max=rng.choice((0, 0, 2, 15)),
        snapshot_ms_max=rng.choice((20, base_ms, 4 * base_ms)),
        install_ms_max=rng.choice((5, 200, 4 * base_ms)),
        snapshot_failure=rng.choice((0.0, 0.2, 0.6)),
        stored_snapshots=rng.random() < 0.5,
        propose_every_ms=rng.choice((80, 200, 300)),
        commands_max=rng.choice((1, 1, 3, 8)),
        command_bytes_max=rng.choice((0, 0, 30, 300)),
        read_every_ms=rng.choice((50, 150, 400)) if rng.random() < 0.8 else 0,
        lease_reads=0.0 if skewed else rng.choice((0.5, 0.9)),
        lease_attack_every_ms=4 * base_ms if attacked else 0,
        transfer_every_ms=rng.choice((1_500, 5_000)) if rng.random() < 0.35 else 0,
        change_every_ms=base_ms * rng.choice((1, 4, 10)) if churn else 0,
    )
    return _calmed(plan) if calm else plan


def _calmed(plan: Plan) -> Plan:
    """The same, with nothing in the way of an attack on a lease: most of them need a steady leader before, and a swift election after."""
    return replace(
        plan,
        latency_ms_max=min(plan.latency_ms_max, 10),
        slow_chance=0.0,
        loss=0.0,
        partition_every_ms=0,
        crash_every_ms=0,
        break_new_leader=0.0,
        pause_every_ms=0,
        slow_sync_chance=0.0,
        apply_ms_max=min(plan.apply_ms_max, 5),
        transfer_every_ms=0,
    )


def _draw_config(rng: random.Random, *, coarse: bool) -> RaftConfig:
    """Draw the settings. :param coarse: whether the election timeout may be a few ticks only, of which a lease is a small part."""
    timings = ((100, 500, 50), (100, 500, 50), (160, 500, 20), (100, 1_000, 100), *(((100, 400, 100),) if coarse else ()))
    heartbeat_ms, election_timeout_ms, tick_ms = rng.choice(timings)
    compacting = rng.random() < 0.55
    threshold = rng.choice((10, 30, 100)) if compacting else 100_000
    append_bytes_max = rng.choice((1, 1, 256, 1 << 20))
    return RaftConfig(
        tick_ms=tick_ms,
        heartbeat_ms=heartbeat_ms,
        election_timeout_ms=election_timeout_ms,
        lease_drift_percent=rng.choice((10, 30, 50)),
        append_bytes_max=append_bytes_max,
        # One entry a message and one message at a time would need more than the time that a healed cluster has for a long backlog.
        inflight_appends_max=rng.choice((1, 2, 8, 64)) if append_bytes_max > 1 else rng.choice((8, 64)),
        inflight_bytes_max=append_bytes_max * rng.choice((1, 8)) if append_bytes_max > 1 else 4_096,
        proposal_bytes_max=1_024,
        uncommitted_bytes_max=rng.choice((2_048, 1 << 20)),
        snapshot_threshold_entries=threshold,
        trailing_entries=rng.choice((0, 3, threshold // 2)) if compacting else 0,
        proposal_timeout_ms=5 * election_timeout_ms,
    )
