"""What was written, how each write ended, and whether what is read agrees with it."""

# ruff: noqa: T201  (it prints the progress and the table of a program)

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum


class Outcome(Enum):
    """How a write ended, as its client can know it."""

    ACKNOWLEDGED = "acknowledged"
    REJECTED = "definite failure"
    UNKNOWN = "unknown"


@dataclass
class Phase:
    """One row of the table at the end."""

    name: str
    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    compared: int = 0
    wrong: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    duration_seconds: float = 0.0
    remark: str = ""


class Ledger:
    """Keys with the value each was written with, once; safe to share between threads.

    An acknowledged key must be read with exactly its bytes. An unknown one may be missing, never different, and once
    it was read it counts as acknowledged.
    """

    def __init__(self) -> None:
        self.acknowledged: dict[str, bytes] = {}
        self.unknown: dict[str, bytes] = {}
        self.complaints: list[str] = []
        self.phases: list[Phase] = []
        self._lock = threading.Lock()

    @contextmanager
    def phase(self, name: str) -> Iterator[Phase]:
        """One step: a row of the table, with the time it took."""
        phase = Phase(name)
        self.phases.append(phase)
        print(f"{name} ...", flush=True)
        started = time.monotonic()
        try:
            yield phase
        finally:
            phase.duration_seconds = time.monotonic() - started

    def written(self, phase: Phase, key: str, value: bytes, outcome: Outcome, detail: str) -> None:
        """Note how the write of a key, which nobody wrote before, ended; `detail` is what the client saw."""
        with self._lock:
            phase.outcomes[outcome] += 1
            if outcome is Outcome.ACKNOWLEDGED:
                self.acknowledged[key] = value
            elif outcome is Outcome.UNKNOWN:
                self.unknown[key] = value
                phase.reasons[detail] += 1
            else:
                self.complaints.append(f"definite failure of PUT {key}: {detail}")

    def read(self, phase: Phase, node: str, key: str, found: bytes | None) -> None:
        """Hold what a node answered for a key (None: no such key) against what was written."""
        with self._lock:
            phase.compared += 1
            if found is not None and found == self.unknown.get(key):
                self.acknowledged[key] = self.unknown.pop(key)
            elif key in self.unknown and found is None:
                pass
            elif found != self.acknowledged.get(key):
                phase.wrong += 1
                got = "nothing" if found is None else f"{len(found)} other bytes"
                self.complaints.append(f"{node} has {got} for {key}")

    def complain(self, phase: Phase, text: str) -> None:
        """Note something that must not happen and belongs to no single write."""
        with self._lock:
            phase.wrong += 1
            self.complaints.append(text)

    def print_table(self) -> None:
        """Print what happened, a line for each step, why writes were unknown, and the complaints (the first fifty of them)."""
        width = max(len(phase.name) for phase in self.phases)
        print(f"\n{'step':<{width}} {'2xx':>6} {'rejected':>9} {'unknown':>8} {'compared':>9} {'wrong':>6} {'seconds':>8}  remark")
        for phase in self.phases:
            counts = phase.outcomes
            print(
                f"{phase.name:<{width}} {counts[Outcome.ACKNOWLEDGED]:>6} {counts[Outcome.REJECTED]:>9} {counts[Outcome.UNKNOWN]:>8}"
                f" {phase.compared:>9} {phase.wrong:>6} {phase.duration_seconds:>8.1f}  {phase.remark}"
            )
        for phase in self.phases:
            for reason, count in phase.reasons.most_common():
                print(f"unknown in '{phase.name}': {count} x {reason}")
        for text in self.complaints[:50]:
            print(f"WRONG: {text}")
        if len(self.complaints) > 50:
            print(f"WRONG: and {len(self.complaints) - 50} more")
