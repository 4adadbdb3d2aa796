"""What the processes of a node take: memory, processor time, switches, room on the disk. Read from ``/proc``."""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "processes"))

from cluster import Cluster, Node, command_line

MIB = 1024 * 1024
_MICROSECONDS_A_TICK = 1_000_000 / os.sysconf("SC_CLK_TCK")
_BYTES_A_BLOCK = 512


def end_on_sigterm() -> None:
    """Let SIGTERM end this program as an exception does, so that it stops what it has started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


class Usage(NamedTuple):
    """What a process has used since it began, or between two moments.

    :ivar user: microseconds in its own code.
    :ivar system: microseconds in the kernel.
    :ivar switches: how often a thread of it went to sleep.
    :ivar preempted: how often a thread of it was made to give way.
    """

    user: float = 0.0
    system: float = 0.0
    switches: float = 0.0
    preempted: float = 0.0

    def plus(self, other: "Usage", weight: float = 1.0) -> "Usage":
        """The sum."""
        return Usage(*(mine + weight * its for mine, its in zip(self, other, strict=True)))

    @property
    def cpu(self) -> float:
        """Microseconds in all."""
        return self.user + self.system


def usage(pid: int) -> Usage:
    """What a process has used since it began; nothing when it has gone."""
    found, switches = Usage(), {"voluntary_ctxt_switches": 0, "nonvoluntary_ctxt_switches": 0}
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for line in (thread / "status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in switches:
                    switches[name] += int(value)
        found = Usage(int(fields[11]) * _MICROSECONDS_A_TICK, int(fields[12]) * _MICROSECONDS_A_TICK, *switches.values())
    return found


def names(node: Node) -> dict[int, str]:
    """What each process of a node is."""
    workers = node.worker_pids()
    return {pid: _name(command_line(pid), is_worker=pid in workers) for pid in node.pids()}


def _name(line: str, *, is_worker: bool) -> str:
    if is_worker:
        return "web worker"
    parts = {"service.agent": "agent", "gunicorn": "arbiter", "service.cli": "supervisor"}
    return next((name for part, name in parts.items() if part in line), Path(line.split(" ", 1)[0]).name)


def memory(node: Node) -> dict[str, float]:
    """Proportional set size of the processes of a node, in MiB, by what they are."""
    found: dict[str, float] = {}
    for pid, name in names(node).items():
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        found[name] = found.get(name, 0) + int(rollup.partition("\nPss:")[2].split()[0]) / 1024
    return found


def disk_mib(directory: Path) -> float:
    """What the files below a directory occupy, in MiB."""
    blocks = 0
    for path in directory.rglob("*"):
        with suppress(OSError):
            blocks += path.stat().st_blocks
    return blocks * _BYTES_A_BLOCK / MIB


class Spent:
    """What each process of a cluster spends between two calls of this.

    A process is named by what its node is and what it is itself: ``leader's agent``. What the other nodes spend is that of one of them, the mean.

    :param asked: the node that is asked, when it is not the leader.
    """

    OWN = "load generator"
    TOGETHER = "all nodes together"

    def __init__(self, cluster: Cluster, asked: Node | None = None) -> None:
        leader = cluster.leader()
        others = [node for node in cluster.nodes if node not in {leader, asked}]
        self._named = {os.getpid(): (self.OWN, 1)}
        for node in cluster.nodes:
            whose, count = ("a follower's", len(others)) if node in others else ("leader's" if node is leader else "asked follower's", 1)
            self._named |= {pid: (f"{whose} {name}", count) for pid, name in names(node).items()}
        self._samples: list[dict[int, Usage]] = []

    def __call__(self) -> None:
        """Take a sample."""
        self._samples.append({pid: usage(pid) for pid in self._named})

    def each(self, requests: int) -> dict[str, Usage]:
        """For a request, from the first sample to the last: by name, and all nodes together."""
        found = {self.TOGETHER: Usage()}
        for pid, (name, count) in self._named.items():
            used = self._samples[-1][pid].plus(self._samples[0][pid], -1)
            found[name] = found.get(name, Usage()).plus(used, 1 / (count * requests))
            if name != self.OWN:
                found[self.TOGETHER] = found[self.TOGETHER].plus(used, 1 / requests)
        return found


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown whose columns stand below each other; the first is text, the others are figures."""
    widths = [max(len(line[column]) for line in (heads, *rows)) for column in range(len(heads))]
    rule = [("-" * width if column == 0 else "-" * (width - 1) + ":") for column, width in enumerate(widths)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]) + " |"

    return "\n".join(line(cells) for cells in (heads, rule, *rows))
