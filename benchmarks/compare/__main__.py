"""kvorum beside Consul, etcd and PySyncObj, all freshly started here: a table each, and plots.

    python -m benchmarks.compare                     everything, within a quarter of an hour
    python -m benchmarks.compare --quick             a minute: a few rows beside Consul, nothing to quote
    python -m benchmarks.compare --only put64,get64 --peers etcd --parts table --rounds 5

Writes compare.md, compare.json and the plots into --out. Programs: CONSUL_BIN (or PATH, or make consul), ETCD_BIN (or PATH), PYSYNCOBJ_PATH (or
.pysyncobj); what is not there is left out, which is said. Ends with 1 when a row counts for nothing.
"""

import argparse
import resource
import signal
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks.compare import machine, portrait, report, side_by_side
from benchmarks.compare.asker import Asker
from benchmarks.compare.portrait import KINDS, Sitting
from benchmarks.compare.side_by_side import Row
from benchmarks.compare.system import System
from benchmarks.compare.systems import PEERS, present, started
from benchmarks.compare.workloads import CACHED, WORKLOADS, Workload

OUT = "docs/performance"
CONNECTIONS = (1, 4, 16, 64, 256, 1024)
QUICK_WORKLOADS = ("put1", "put64", "fput64", "get64")
QUICK_CONNECTIONS = (1, 16, 256)
RATES = {"put": 1000.0, "get": 2000.0}


class Run:
    """One run with its settings, and all that it has found so far.

    :ivar versions: by name, of all systems that were started.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._ours = "kvorum-redis" if options.redis else "kvorum"
        self._began = time.monotonic()
        self.rows: dict[str, list[Row]] = {}
        self.portraits: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, str] = {}
        self.notes: list[str] = []

    def tell(self, line: str) -> None:
        """Print a line with the time since the start."""
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        print(f"[{minutes:2}:{seconds:02}] {line}", flush=True)

    def carry_out(self, folder: Path) -> None:
        """All parts; files are written after each, so that a run that is broken off leaves what it had.

        :param folder: for the data of all systems.
        """
        options = self._options
        found, missing = present([self._ours, *(name for name in options.peers if PEERS[name].has_acl or not options.acl)])
        peers = found[1:] if self._ours in found else []
        self.notes += [*missing, *([ACL_NOTE] if options.acl else [])]
        for line in missing:
            self.tell(line)
        facts = {"machine": machine.described(folder), "begun": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "settings": vars(options)}
        with Asker() as asker:
            for name in peers if "table" in options.parts else []:
                self._table(asker, name, folder)
                self._write(facts)
            for name in found if "plots" in options.parts else []:
                self._portrait(asker, name, folder)
                self._write(facts)

    def _table(self, asker: Asker, peer: str, folder: Path) -> None:
        workloads: list[Workload] = [WORKLOADS[name] for name in self._options.only]
        options = self._options
        with tempfile.TemporaryDirectory(dir=folder) as data, self._started(self._ours, data) as ours, self._started(peer, data) as theirs:
            for system in (ours, theirs):
                self._know(system.name, system.version, system.note)
            self.tell(f"kvorum {ours.version} beside {theirs.name} {theirs.version}: {options.rounds} pairs of {options.seconds:g} s a row")
            pair = ours, theirs
            self.rows[theirs.name] = side_by_side.compare(asker, pair, workloads, rounds=options.rounds, seconds=options.seconds, tell=self.tell)

    def _started(self, name: str, data: str) -> AbstractContextManager[System]:
        return started(name, Path(data), TOKEN if self._options.acl else "")

    def _portrait(self, asker: Asker, name: str, folder: Path) -> None:
        options = self._options
        sitting = Sitting(options.connections, options.seconds, RATES, options.open_seconds, options.after_seconds)
        with tempfile.TemporaryDirectory(dir=folder) as data, self._started(name, data) as system:
            self._know(system.name, system.version, system.note)
            asker.fill(system)
            kinds = [kind for kind in KINDS if f"{kind}64" in system.offers]
            found = self.portraits[system.name] = {"throughput": {}, "distribution": {}}
            for kind in kinds:
                curve = found["throughput"][kind] = portrait.throughput(asker, system, kind, sitting)
                self.tell(f"{system.name}: {kind}, by connections: " + ", ".join(f"{one['connections']}: {one['rate']:,.0f}/s" for one in curve))
            for kind in kinds:
                one = found["distribution"][kind] = portrait.distribution(asker, system, kind, sitting)
                times = ", ".join(f"{share} {ms:.1f}" for share, ms in one["ms"].items())
                late = f"the asker was late by {one['asker_late_p99_ms']:.1f} (p99)"
                self.tell(f"{system.name}: {kind}, {RATES[kind]:,.0f} arrive each second; ms: {times}; {late}")
            lost = found["outage"] = portrait.outage(asker, system, sitting)
            self.tell(f"{system.name}: leader killed, the next write was acknowledged after {lost['first_after_kill_ms']:,.0f} ms")

    def _know(self, name: str, version: str, note: str) -> None:
        self.versions[name] = version
        if note and note not in self.notes:
            self.notes.append(note)

    def _write(self, facts: dict[str, Any]) -> None:
        minutes = (time.monotonic() - self._began) / 60
        all_facts = {**facts, "minutes": minutes, "versions": self.versions, "notes": [*NOTES, *self.notes]}
        report.write(Path(self._options.out), all_facts, self.rows, self.portraits)


TOKEN = "3b1f0c52-8f0e-4d6b-9b57-6f2f7a1e9d24"
"""Of clusters that are started here, hear 127.0.0.1 alone and end with the run."""
ACL_NOTE = "ACLs are on at all, and deny by default; every request carries a token that may do everything."
NOTES = (
    "Three nodes each on this one machine, which also runs what asks: one Python process, whose part of a processor is in the raw figures.",
    "In a table both clusters run, freshly started, and are asked in turn; a ratio is that of a pair of runs. Rates are medians, a second.",
    "For the plots the systems run one after the other, each alone.",
    "A row with a request that was not answered 2xx is void.",
)


def parsed() -> argparse.Namespace:
    """What the command line asks for."""
    arguments = argparse.ArgumentParser(prog="benchmarks.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--acl", action="store_true", help="ACLs on, denying by default: kvorum and Consul alone")
    arguments.add_argument("--redis", action="store_true", help="a Redis beside kvorum, for ?cached reads beside Consul's")
    arguments.add_argument("--peers", type=_names(PEERS), default=None, help="some of " + ",".join(PEERS))
    arguments.add_argument("--only", type=_names(WORKLOADS), default=None, help="rows of the table: some of " + ",".join(WORKLOADS))
    arguments.add_argument("--parts", type=_names(("table", "plots")), default=None, help="table,plots")
    arguments.add_argument("--rounds", type=int, default=None, help="pairs of runs a row (3)")
    arguments.add_argument("--seconds", type=float, default=None, help="a run of a closed loop (2)")
    arguments.add_argument("--open-seconds", type=float, default=None, help="a run of an open loop (10)")
    arguments.add_argument("--out", default=None, help=f"the folder for what is written ({OUT}, or one in build/)")
    options = arguments.parse_args()
    quick = options.quick
    options.after_seconds = 3.5 if quick else 6.0
    options.connections = QUICK_CONNECTIONS if quick else CONNECTIONS
    usual = {
        "peers": ["consul"] if quick or options.redis else list(PEERS),
        "only": [CACHED] if options.redis else list(QUICK_WORKLOADS) if quick else [name for name in WORKLOADS if name != CACHED],
        "parts": ["table"] if options.redis or options.acl else ["table", "plots"],
        "rounds": 1 if quick else 3,
        "seconds": 0.6 if quick else 2.0,
        "open_seconds": 1.5 if quick else 10.0,
        "out": "build/bench-" + ("quick" if quick else "redis" if options.redis else "acl") if quick or options.redis or options.acl else OUT,
    }
    for name, value in usual.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def _names(allowed: Any) -> Any:
    def names(given: str) -> list[str]:
        found = [name for name in given.split(",") if name]
        if unknown := [name for name in found if name not in allowed]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(allowed)}")
        return found

    return names


def main() -> int:
    """Run it."""
    options = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # all that was started is ended on the way out
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))  # whoever is started here inherits it: a connection is a file
    run = Run(options)
    with tempfile.TemporaryDirectory(prefix="kvorum-compare-") as folder:
        run.carry_out(Path(folder))
    run.tell(f"written to {options.out}")
    return 1 if any(row.void for rows in run.rows.values() for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
