"""Every setting of a node, declared once.

:class:`Settings` is the table: each field carries its default, unit, range, scope and help; :data:`SETTINGS` lists the rows. Flags, the
environment (``KVORUM_`` and the name in capitals; a secret also as ``…_FILE``), the file (TOML, the same names) and ``docs/settings.md``
all follow from it; :mod:`service.settings_text` writes that page.

:func:`load` reads, checks as a whole and reports every problem at once. An empty variable counts as not set. What may change while a node
runs, and how, is told by :mod:`service.reloading`.
"""

import math
import re
import socket
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir
from typing import Any, NamedTuple

from service.addresses import NAME, NAME_RULE, WILDCARDS, Address, Member, parse_address, parse_members, parse_targets
from service.errors import SettingsInvalid
from service.given import PREFIX, Given, collect, shown

SOCKET_PATH_BYTES_MAX = 100
COMMAND_OVERHEAD_BYTES = 65_536
KIB = 1024
MIB = 1024 * KIB

Value = str | int | float | Path


class Setting(NamedTuple):
    """One row of the table.

    ``minimum`` and ``maximum`` are inclusive; ``derived`` says where an empty default comes from; ``reloadable``, whether the setting may change
    while the node runs.
    """

    name: str
    kind: type
    default: Value
    unit: str
    minimum: float
    maximum: float
    form: str
    choices: tuple[str, ...]
    scope: str
    reloadable: bool
    secret: bool
    derived: str
    help: str

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.name.upper()

    @property
    def allowed(self) -> str:
        """What may be given, in words."""
        if self.kind in (int, float):
            noun = "a whole number" if self.kind is int else "a number"
            return f"{noun} from {self.minimum} to {self.maximum}" + (f" ({self.unit})" if self.unit else "")
        if self.choices:
            return "one of " + ", ".join(self.choices)
        return _FORMS[self.form]


_FORMS = {
    "text": "text",
    "path": "a path",
    "name": NAME_RULE,
    "address": "host:port, or [IPv6]:port",
    "members": "name=http://host:port, with commas between the members",
    "targets": "http://host:port of an HTTP API or host:port of a peer, with commas between them",
    "url": "redis://host:port/database, rediss://… or unix://…",
    "word": "letters, digits, '_' and '-' (64 at most)",
    "uuid": "a UUID in lower case",
}
_PATTERNS = {
    "name": NAME,
    "url": re.compile(r"((rediss?|unix)://\S+)?"),
    "word": re.compile(r"[A-Za-z0-9_-]{1,64}"),
    "uuid": re.compile(r"([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})?"),
}


def _row(  # one line a setting is what makes the table readable
    default: Any,
    help: str,
    *,
    unit: str = "",
    range: tuple[float, float] = (0, 0),
    form: str = "text",
    choices: tuple[str, ...] = (),
    cluster: bool = False,
    secret: bool = False,
    derived: str = "",
    live: bool = False,
) -> Any:
    keys = {"unit": unit, "minimum": range[0], "maximum": range[1], "form": form, "choices": choices, "secret": secret}
    rest = {"scope": "cluster" if cluster else "node", "reloadable": live, "derived": derived, "help": help}
    return field(default=default, metadata=keys | rest)


def _raft(default: int, unit: str, minimum: int, maximum: int, help: str, *, live: bool = False) -> Any:
    return _row(default, help, unit=unit, range=(minimum, maximum), cluster=True, live=live)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The effective settings of one node; made by :func:`load`, which fills in what is derived."""

    name: str = _row("", "Name of the node, unique in the cluster.", form="name", derived="the host's name")
    data_dir: Path = _row(Path("kvorum-data"), "Directory that holds all that the node keeps. One process owns it.", form="path")  # noqa: RUF009 - a Path is immutable
    api_bind: str = _row("127.0.0.1:8500", "Where clients are served.", form="address")
    peer_bind: str = _row("127.0.0.1:8300", "Where the other nodes are served.", form="address")
    api_advertise: str = _row("", "Where clients reach this node.", form="address", derived="`api_bind`; for a wildcard the host in `peer_advertise`")
    peer_advertise: str = _row(
        "",
        "Where the other nodes reach this node.",
        form="address",
        derived="this node's entry in `initial_cluster`, or `peer_bind`; for a wildcard the host's name",
    )
    initial_cluster: str = _row(
        "", "All members of the cluster that is to form, the same on each of them.", form="members", cluster=True, derived="this node alone"
    )
    join: str = _row("", "Members to ask in turn to be added to their cluster, when the data directory is empty.", form="targets")
    join_as: str = _row("voter", "What this node asks to become; by-hand: it waits to be added.", choices=("voter", "learner", "by-hand"))
    repair: str = _row(
        "auto", "What to do with damaged data: auto: what is certain, with the help of the peers; refuse: nothing.", choices=("auto", "refuse")
    )
    datacenter: str = _row("dc1", "Name of the datacenter, as Consul's clients know it.", form="word", cluster=True)
    workers: int = _row(1, "Web worker processes.", unit="processes", range=(1, 64))
    worker_class: str = _row("own", "What serves HTTP in a web worker: own: kvorum's server; gevent: gunicorn's.", choices=("own", "gevent"))
    socket_path: Path = _row(  # noqa: RUF009 - as above
        Path(), "Unix socket between agent and workers.", form="path", derived="`agent.sock` in `data_dir`, or in the temp directory if that is long"
    )
    redis_url: str = _row("", "Redis for cached reads; empty: no cache.", form="url", secret=True)
    cache_ttl_seconds: int = _row(60, "Age at which a cached value is no longer served.", unit="s", range=(1, 86_400), live=True)
    cache_timeout_ms: int = _row(50, "How long a request waits for Redis before it goes on without.", unit="ms", range=(1, 10_000))
    kv_value_bytes_max: int = _row(512 * KIB, "Longest value.", unit="bytes", range=(1, 60 * MIB), cluster=True, live=True)
    txn_operations_max: int = _row(64, "Operations of one transaction.", unit="operations", range=(1, 1_000_000), cluster=True, live=True)
    txn_bytes_max: int = _row(
        512 * KIB,
        "Longest body of a transaction; `kv_value_bytes_max` where that is more.",
        unit="bytes",
        range=(1, 60 * MIB),
        cluster=True,
        live=True,
    )
    idempotency_entries: int = _row(
        10_000_000,
        "How many entries of the log an Idempotency-Key is remembered for.",
        unit="entries",
        range=(1, 10**12),
        cluster=True,
        live=True,
    )
    idempotency_bytes: int = _row(
        64 * MIB,
        "What all remembered Idempotency-Keys and their results may take together; the oldest are forgotten.",
        unit="bytes",
        range=(1, 16 * 1024 * MIB),
        cluster=True,
        live=True,
    )
    acl_enabled: str = _row("false", "Whether requests need a token for what they ask.", choices=("false", "true"), cluster=True)
    acl_default_policy: str = _row("allow", "What holds where no rule does.", choices=("allow", "deny"), cluster=True)
    acl_secrets: str = _row(
        "shown",
        "shown: whoever may write the ACL can read secrets of tokens; hashed: only hashes are kept.",
        choices=("shown", "hashed"),
        cluster=True,
    )
    acl_initial_management: str = _row("", "Secret of a first token that may do everything.", form="uuid", cluster=True, secret=True)
    blocking_queries_max: int = _row(12_000, "Blocking queries that may wait in one worker.", unit="requests", range=(1, 1_000_000), live=True)
    connections_max: int = _row(16_000, "Client connections of one worker.", unit="connections", range=(2, 1_000_000))
    scrub_mib_per_second: int = _row(
        1, "How fast the state's file is compared with its checksums while the node runs; 0: at start only.", unit="MiB/s", range=(0, 1_024)
    )
    stop_deadline_ms: int = _row(8_000, "Time from the signal to stop until what still runs is killed.", unit="ms", range=(100, 600_000), live=True)
    log_level: str = _row("info", "Least severe messages that are written.", choices=("debug", "info", "warning", "error"), live=True)
    log_format: str = _row("auto", "auto: text on a terminal, JSON elsewhere.", choices=("auto", "json", "text"))
    time_scale: float = _row(1.0, "Factor on tick, heartbeat and election timeout together.", range=(0.1, 100.0), cluster=True)
    raft_tick_ms: int = _raft(20, "ms", 1, 1_000, "How often the node looks at its timers; divides the two times below.")
    raft_heartbeat_ms: int = _raft(100, "ms", 5, 10_000, "How often a leader says that it lives; at most a third of the election timeout.", live=True)
    raft_election_timeout_ms: int = _raft(500, "ms", 20, 60_000, "Base T; a follower waits a time from [T, 2T) before it campaigns.")
    raft_lease_drift_percent: int = _raft(
        10,
        "percent",
        1,
        100,
        "How far two nodes' clocks may drift apart before a default read at the leader could be stale; 100 switches the lease off.",
    )
    raft_append_bytes_max: int = _raft(MIB, "bytes", 1, 64 * MIB, "Payload of one append message; one entry always fits.", live=True)
    raft_inflight_appends_max: int = _raft(64, "count", 1, 4_096, "Unanswered appends a follower.", live=True)
    raft_inflight_bytes_max: int = _raft(8 * MIB, "bytes", 1, 1_024 * MIB, "Unanswered append payload a follower; at least one append.", live=True)
    raft_proposal_bytes_max: int = _raft(MIB, "bytes", 1, 64 * MIB, "Length of one proposal.")
    raft_uncommitted_bytes_max: int = _raft(64 * MIB, "bytes", 1, 4_096 * MIB, "Proposals a leader holds before they are committed.")
    raft_apply_bytes_max: int = _raft(4 * MIB, "bytes", 1, 256 * MIB, "Payload handed to the state machine at once.", live=True)
    raft_snapshot_threshold_entries: int = _raft(16_384, "count", 1, 100_000_000, "Entries in the log that make the node compact it.", live=True)
    raft_snapshot_threshold_bytes: int = _raft(32 * MIB, "bytes", 1, 16_384 * MIB, "Payload in the log that makes the node compact it.", live=True)
    raft_trailing_entries: int = _raft(4_096, "count", 0, 100_000_000, "Entries kept behind a compaction; below its threshold.", live=True)
    raft_proposal_timeout_ms: int = _raft(
        7_000, "ms", 10, 600_000, "How long a proposal or a read waits for its answer, elections included.", live=True
    )
    raft_disk_stall_ms: int = _raft(5_000, "ms", 100, 600_000, "How long one write of a leader's disk may take before another node leads.", live=True)
    raft_forwarding: int = _raft(
        1, "switch", 0, 1, "Whether a node passes writes and consistent reads on to the leader; with 0 it refuses them.", live=True
    )
    raft_snapshot_chunk_bytes: int = _raft(MIB, "bytes", KIB, 16 * MIB, "Size of one piece of a snapshot on its way.")

    @property
    def members(self) -> tuple[Member, ...]:
        """The initial members in the order given; this node alone when ``initial_cluster`` is empty."""
        if not self.initial_cluster:
            return (Member(self.name, parse_address(self.peer_advertise)),)
        return parse_members(self.initial_cluster, self.name)[0]

    @property
    def join_targets(self) -> tuple[str, ...]:
        """Whom to ask to be added to their cluster, each with its port."""
        return parse_targets(self.join)

    @property
    def raft_values(self) -> dict[str, int]:
        """The arguments of the Raft library's configuration, with ``time_scale`` applied; the times stay multiples of the tick."""
        values = {row.name.removeprefix("raft_"): getattr(self, row.name) for row in SETTINGS if row.name.startswith("raft_")}
        tick_ms = max(1, round(self.raft_tick_ms * self.time_scale))
        values["tick_ms"] = tick_ms
        for name in ("heartbeat_ms", "election_timeout_ms"):
            ticks, remainder = divmod(values[name], self.raft_tick_ms)
            values[name] = ticks * tick_ms + remainder
        return values


def _rows() -> tuple[Setting, ...]:
    rows = []
    for entry in fields(Settings):
        if entry.default is MISSING or not isinstance(entry.type, type):
            raise TypeError(f"{entry.name} is declared without a default or a plain type")
        rows.append(Setting(name=entry.name, kind=entry.type, default=entry.default, **entry.metadata))
    return tuple(rows)


SETTINGS: tuple[Setting, ...] = _rows()
_BY_NAME = {row.name: row for row in SETTINGS}
_SECRETS = {row.name: row.secret for row in SETTINGS}


class Effective(NamedTuple):
    """Settings, and where each that was given comes from: a flag, a variable or the path of the file, by the setting's name."""

    settings: Settings
    origins: Mapping[str, str]


def load(environ: Mapping[str, str], flags: Mapping[str, str] | None = None, file: Path | None = None) -> Settings:
    """Read the settings: flags over environment over file over default.

    :param environ: the process's environment; every ``KVORUM_`` variable in it must be known.
    :param flags: values given on the command line, by the setting's name.
    :param file: a TOML file with settings by name.
    :raises SettingsInvalid: with every problem; each names the setting, the value and what is allowed.
    """
    return load_with_origins(environ, flags, file).settings


def load_with_origins(environ: Mapping[str, str], flags: Mapping[str, str] | None = None, file: Path | None = None) -> Effective:
    """As :func:`load`, with where each value comes from."""
    problems: list[str] = []
    given = collect(_SECRETS, environ, flags or {}, file, problems)
    values: dict[str, Any] = {}
    for name, (raw, origin) in given.items():
        row = _BY_NAME[name]
        try:
            values[name] = _convert(row, raw)
        except ValueError as error:
            told = "the value given" if row.secret else shown(raw)
            detail = "" if row.secret or not str(error) else f": {error}"
            problems.append(f"{name}: {told} (from {origin}) can't be used{detail}; allowed: {row.allowed}")
    settings = Settings(**values)
    if not settings.name:
        settings = replace(settings, name=_host_name())
    together = _member_problems(settings)
    if not (problems or together):
        settings = _derive(settings)
        together = _broken_rules(settings)
    if problems or together:
        raise SettingsInvalid((*problems, *(_with_file(problem, given, file) for problem in together)))
    return Effective(settings, {name: origin for name, (_, origin) in given.items()})


def _with_file(problem: str, given: Mapping[str, Given], file: Path | None) -> str:
    """A problem of several values together, with those named that stand in the file."""
    named = [name for name in dict.fromkeys(re.findall(r"[a-z_]+", problem)) if name in given and given[name].origin == str(file)]
    return f"{problem} ({', '.join(named)} from {file})" if named else problem


def _convert(row: Setting, raw: object) -> Value:
    if isinstance(raw, bool) or not isinstance(raw, (str, int, float)):
        raise ValueError(f"a {type(raw).__name__}")  # noqa: TRY004 - one kind of error for every value that can't be used
    if row.kind in (int, float):
        return _convert_number(row, str(raw))
    if not isinstance(raw, str):
        raise ValueError("a number where text is expected")  # noqa: TRY004 - as above
    _check_text(row, raw)
    return Path(raw) if row.kind is Path else raw


def _convert_number(row: Setting, text: str) -> int | float:
    pattern = r"-?[0-9]{1,18}" if row.kind is int else r"-?[0-9]{1,18}(\.[0-9]{1,18})?"
    if not re.fullmatch(pattern, text):
        raise ValueError("")
    number = int(text) if row.kind is int else float(text)
    if not (math.isfinite(number) and row.minimum <= number <= row.maximum):
        raise ValueError("out of range")
    return number


def _check_text(row: Setting, text: str) -> None:
    if "\0" in text or "\n" in text:
        raise ValueError("it holds a line end or a zero byte")
    if row.choices and text not in row.choices:
        raise ValueError("")
    if row.form == "address":
        parse_address(text)
    elif row.form == "targets":
        parse_targets(text)
    elif row.form in _PATTERNS and not _PATTERNS[row.form].fullmatch(text):
        raise ValueError("")
    elif row.form == "path" and not text:
        raise ValueError("an empty path")


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:63].lstrip("._-") or "node"


def _member_problems(settings: Settings) -> list[str]:
    if not settings.initial_cluster:
        return []
    return [f"initial_cluster: {problem}" for problem in parse_members(settings.initial_cluster, settings.name)[1]]


def _derive(settings: Settings) -> Settings:
    """Fill in the addresses and paths that were left out."""
    data_dir = settings.data_dir.absolute()
    socket_path = settings.socket_path.absolute() if settings.socket_path != Path() else data_dir / "agent.sock"
    if settings.socket_path == Path() and len(bytes(socket_path)) > SOCKET_PATH_BYTES_MAX:
        socket_path = Path(gettempdir()).absolute() / f"kvorum-{sha256(bytes(data_dir)).hexdigest()[:24]}.sock"
    own = {member.name: str(member.address) for member in settings.members} if settings.initial_cluster else {}
    peer = settings.peer_advertise or own.get(settings.name) or _reachable(settings.peer_bind, _host_name())
    api = settings.api_advertise or _reachable(settings.api_bind, parse_address(peer).host)
    return replace(settings, data_dir=data_dir, socket_path=socket_path, peer_advertise=peer, api_advertise=api)


def _reachable(bind: str, host: str) -> str:
    address = parse_address(bind)
    return str(Address(host, address.port)) if address.host in WILDCARDS else bind


def _broken_rules(settings: Settings) -> list[str]:
    """Rules that tie settings together. Those of Raft are the library's own; a test holds the two against each other."""
    s = settings
    tick, heartbeat, election = s.raft_tick_ms, s.raft_heartbeat_ms, s.raft_election_timeout_ms
    rules = (
        (not (s.join and s.initial_cluster), f"join: {s.join!r} can't be given with initial_cluster; a node forms a cluster or joins one"),
        (s.api_bind != s.peer_bind, f"api_bind: {s.api_bind!r} is peer_bind too; clients and peers need a port each"),
        (parse_address(s.api_advertise).host not in WILDCARDS, f"api_advertise: {s.api_advertise!r} is no address that others can reach"),
        (parse_address(s.peer_advertise).host not in WILDCARDS, f"peer_advertise: {s.peer_advertise!r} is no address that others can reach"),
        (len(bytes(s.socket_path)) <= SOCKET_PATH_BYTES_MAX, f"socket_path: {str(s.socket_path)!r} is over {SOCKET_PATH_BYTES_MAX} bytes"),
        (
            s.blocking_queries_max < s.connections_max,
            f"blocking_queries_max: {s.blocking_queries_max} must be below connections_max {s.connections_max}",
        ),
        (
            s.kv_value_bytes_max + COMMAND_OVERHEAD_BYTES <= s.raft_proposal_bytes_max,
            f"kv_value_bytes_max: {s.kv_value_bytes_max} must be {COMMAND_OVERHEAD_BYTES} below raft_proposal_bytes_max {s.raft_proposal_bytes_max}",
        ),
        (
            s.txn_bytes_max + COMMAND_OVERHEAD_BYTES <= s.raft_proposal_bytes_max,
            f"txn_bytes_max: {s.txn_bytes_max} must be {COMMAND_OVERHEAD_BYTES} below raft_proposal_bytes_max {s.raft_proposal_bytes_max}",
        ),
        (heartbeat % tick == 0, f"raft_tick_ms: {tick} must divide raft_heartbeat_ms {heartbeat}"),
        (election % tick == 0, f"raft_tick_ms: {tick} must divide raft_election_timeout_ms {election}"),
        (3 * heartbeat <= election, f"raft_election_timeout_ms: {election} must be at least three times raft_heartbeat_ms {heartbeat}"),
        (
            s.raft_inflight_bytes_max >= s.raft_append_bytes_max,
            f"raft_inflight_bytes_max: {s.raft_inflight_bytes_max} must be at least raft_append_bytes_max {s.raft_append_bytes_max}",
        ),
        (
            s.raft_proposal_bytes_max <= s.raft_uncommitted_bytes_max,
            f"raft_proposal_bytes_max: {s.raft_proposal_bytes_max} must be at most raft_uncommitted_bytes_max {s.raft_uncommitted_bytes_max}",
        ),
        (
            s.raft_trailing_entries < s.raft_snapshot_threshold_entries,
            f"raft_trailing_entries: {s.raft_trailing_entries} must be below raft_snapshot_threshold_entries {s.raft_snapshot_threshold_entries}",
        ),
        (
            s.raft_proposal_timeout_ms >= s.raft_values["election_timeout_ms"],
            f"raft_proposal_timeout_ms: {s.raft_proposal_timeout_ms} must be at least the election timeout {s.raft_values['election_timeout_ms']}",
        ),
    )
    return [problem for holds, problem in rules if not holds] + _scaled_out_of_range(settings)


def _scaled_out_of_range(settings: Settings) -> list[str]:
    scaled = ((_BY_NAME["raft_" + name], value) for name, value in settings.raft_values.items())
    return [
        f"time_scale: {settings.time_scale:g} makes {row.name} {value}; allowed: {row.allowed}"
        for row, value in scaled
        if not row.minimum <= value <= row.maximum
    ]


def to_environ(settings: Settings) -> dict[str, str]:
    """The ``KVORUM_`` variables from which :func:`load` makes the same settings again. Secrets are among them."""
    pairs = ((row.variable, str(getattr(settings, row.name))) for row in SETTINGS)
    return {variable: text for variable, text in pairs if text}
