"""The settings as text: the page ``docs/settings.md`` (``python -m service.settings_text`` prints it) and what ``--print-config`` shows."""

import sys
from collections.abc import Mapping
from pathlib import Path

from service.settings import SETTINGS, Effective, Setting, Settings

MASKED = "********"

TRADE_OFFS: Mapping[str, str] = {
    "cache_ttl_seconds": "Longer: more hits. No `?cached` answer is older than this.",
    "cache_timeout_ms": "Longer rides out a slow Redis; each request with `?cached` may lose that much.",
    "workers": "Each is a process: one a core serves more requests, and costs memory.",
    "blocking_queries_max": "Each costs some 20 KB of a worker; beyond the limit they are answered with 429.",
    "stop_deadline_ms": "Longer lets more requests end by themselves; a container's engine must not kill before it.",
    "time_scale": "Larger suits slow networks and disks, or a busy machine; failures are noticed later by the same factor.",
    "raft_tick_ms": "Shorter is more exact, and wakes the processor more often.",
    "raft_heartbeat_ms": "Shorter: followers sooner learn what is committed, and bear more lost messages. Longer: fewer messages.",
    "raft_election_timeout_ms": "Shorter fails over sooner. Longer rides out pauses of network, disk or machine; keep it above ten round trips.",
    "raft_lease_drift_percent": "More is safer and makes the lease shorter; without a lease every default read asks a quorum.",
    "raft_append_bytes_max": "Larger: fewer messages to a follower that is behind. Smaller: on a slow line less waits behind each.",
    "raft_inflight_appends_max": "More hides the time of a round trip; less bounds what a lost message costs.",
    "raft_inflight_bytes_max": "More fills a long line; less bounds memory, and what is sent in vain.",
    "raft_uncommitted_bytes_max": "More takes in longer bursts of writes; less bounds memory while the quorum is slow.",
    "raft_apply_bytes_max": "Larger catches up faster; smaller lets reads in between.",
    "raft_snapshot_threshold_entries": "More: fewer compactions. Less: a smaller log, on disk and in memory, and a faster start.",
    "raft_snapshot_threshold_bytes": "As for entries; it decides where values are large.",
    "raft_trailing_entries": "More: a follower that was away longer still needs no snapshot. It costs disk and memory.",
    "raft_proposal_timeout_ms": "Longer hides a failover; shorter tells clients sooner that there is no quorum. A web worker waits 15 s at most.",
    "raft_disk_stall_ms": "Shorter fails over sooner from a disk that hangs; one that is merely slow must not cost the leadership.",
    "raft_snapshot_chunk_bytes": "Larger is faster on a long line; smaller gives other messages their turn.",
}
"""What speaks for more and what for less, where both do."""


def shown_value(row: Setting, settings: Settings) -> str | int | float:
    """The value of a setting for people; that of a secret is masked."""
    value = getattr(settings, row.name)
    if row.secret and value:
        return MASKED
    return str(value) if isinstance(value, Path) else value


def print_config(effective: Effective) -> str:
    """The effective settings as the text of a settings file, secrets masked; a comment says where each comes from."""
    lines = []
    for row in SETTINGS:
        value = shown_value(row, effective.settings)
        text = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' if isinstance(value, str) else str(value)
        lines.append((f"{row.name} = {text}", _origin(row, effective)))
    width = min(40, max(len(line) for line, _origin in lines))
    return "".join(f"{line.ljust(width)}  # {origin}\n" for line, origin in lines)


def _origin(row: Setting, effective: Effective) -> str:
    if row.name in effective.origins:
        return effective.origins[row.name].replace("\n", " ")
    return "derived" if row.derived and getattr(effective.settings, row.name) != row.default else "default"


def reference() -> str:
    """The text of ``docs/settings.md``."""
    head = (
        "# Settings\n\n"
        "This page is made from the table in `service/settings.py` by `python -m service.settings_text`;\n"
        "a test fails when it differs.\n\n"
        "Each setting can be given as a flag of `kvorum server` (`--data-dir`), in the environment (`KVORUM_DATA_DIR`) or in a TOML file\n"
        "(`data_dir = …`; `--config-file FILE` or `KVORUM_CONFIG_FILE`). A flag wins over the environment, the environment over the file, the\n"
        "file over the default. An unknown name is an error, an empty variable counts as not set. A secret can also be read from a file named by\n"
        "`KVORUM_…_FILE`; it can't be a flag. `kvorum server --print-config` shows what would be in effect and where each value comes from,\n"
        "secrets masked; it is a settings file itself.\n\n"
        "Scope *cluster*: give it alike on every node. *Reload*: whether a change takes effect in a running node with SIGHUP or `kvorum reload`\n"
        "([how](operations.md#changing-settings-while-a-node-runs)); the others need a restart, and a reload that would change one is refused.\n\n"
        "| setting | default | unit | allowed | scope | reload | meaning |\n| --- | --- | --- | --- | --- | --- | --- |\n"
    )
    return head + "".join(_reference_line(row) for row in SETTINGS)


def _reference_line(row: Setting) -> str:
    empty = row.default in ("", Path())
    default = row.derived if empty and row.derived else "empty" if empty else f"`{row.default}`"
    meaning = " ".join(part for part in (row.help, TRADE_OFFS.get(row.name, ""), "Secret." if row.secret else "") if part)
    reload = "yes" if row.reloadable else "no"
    return f"| `{row.name}` | {default} | {row.unit} | {row.allowed} | {row.scope} | {reload} | {meaning} |\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
