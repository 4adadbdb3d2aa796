"""Schedules that were run, added up over many runs: which seeds, how long, what was injected and reached, what was found.

``python -m raft.testing.sim --record FILE --until N`` goes on where the file ends; :mod:`raft.testing.records` says what makes the count begin anew.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import raft.core.node
from raft.testing import records
from raft.testing.compiled import SIMULATOR
from raft.testing.records import PACKAGE, Part, RecordFile, RecordRefused

if TYPE_CHECKING:
    from raft.testing.sim import Summary

KIND = "schedules"

SURROUNDINGS = ("config.py", "errors.py", "runtime/lease.py", *(f"testing/{name}.py" for name in SIMULATOR))
"""Besides the core, the files that decide what a seed does and what is held against it."""

Range = tuple[int, int]

SUMS = ("schedules", "steps", "simulated_ms", "committed", "acknowledged", "reads", "wall_s", "cpu_s")


def simulator_digest() -> str:
    """The digest of what surrounds the core in a simulation."""
    return records.digest(PACKAGE / name for name in SURROUNDINGS)


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The same seeds in as few ranges as possible, in order. A range is its first and its last seed.

    :raises RecordRefused: when a seed is in two of them.
    """
    joined: list[Range] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1]:
            raise RecordRefused(f"seeds {first} to {min(last, joined[-1][1])} are recorded twice")
        if joined and first == joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined


def seeds_of(parts: Iterable[Part]) -> list[Range]:
    """The seeds that a record has, in all its parts."""
    return merged((first, last) for part in parts for first, last in part["seeds"])


def fresh_seeds(ranges: list[Range], start: int | None) -> Iterator[int]:
    """Seeds that no range holds, in order.

    :param start: the first one wanted; by default the one after the last that is recorded, or 1.
    """
    first = start if start is not None else (ranges[-1][1] + 1 if ranges else 1)
    return (seed for seed in count(first) if not any(one <= seed <= last for one, last in ranges))


def chunks(seeds: Iterator[int], total: int, size: int) -> Iterator[range]:
    """Ranges of at most ``size`` neighbours, ``total`` seeds in all."""
    wanted = islice(seeds, total)
    chunk: list[int] = []
    for seed in wanted:
        if chunk and (len(chunk) == size or seed != chunk[-1] + 1):
            yield range(chunk[0], chunk[-1] + 1)
            chunk = []
        chunk.append(seed)
    if chunk:
        yield range(chunk[0], chunk[-1] + 1)


class Recorder:
    """Adds what a run does to the record of the present core.

    :param file: held by this run.
    """

    def __init__(self, file: RecordFile) -> None:
        self._file = file
        self.core = records.core_digest()
        self.parts = file.of(self.core)
        fresh: dict[str, Any] = {**dict.fromkeys(SUMS, 0), "counts": {}, "seeds": [], "violations": []}
        compiled = "no" if str(raft.core.node.__file__).endswith(".py") else "yes"
        self._part = records.part_of(self.parts, {"simulator": simulator_digest(), "compiled": compiled}, fresh)
        self._saved = self._counted = time.monotonic()

    @property
    def schedules(self) -> int:
        """How many schedules the record has."""
        return int(sum(part["schedules"] for part in self.parts))

    @property
    def counts(self) -> Counter[str]:
        """What all of them reached."""
        total: Counter[str] = Counter()
        for part in self.parts:
            total.update(part["counts"])
        return total

    @property
    def violations(self) -> list[dict[str, Any]]:
        """What all of them found."""
        return [violation for part in self.parts for violation in part["violations"]]

    def add(self, seeds: range, done: "Summary") -> None:
        """Some schedules have been run, exactly those of ``seeds``."""
        part, now = self._part, time.monotonic()
        part["seeds"] = [list(one) for one in merged([*map(tuple, part["seeds"]), (seeds[0], seeds[-1])])]
        for name in ("schedules", "steps", "simulated_ms", "committed", "acknowledged", "reads"):
            part[name] += getattr(done, name)
        part["wall_s"] = round(part["wall_s"] + now - self._counted, 2)
        part["cpu_s"] = round(part["cpu_s"] + done.cpu_s, 2)
        part["counts"] = dict(Counter(part["counts"]) + done.counts)
        part["violations"] += [{"seed": seed, "rule": rule} for seed, rule in sorted(done.rules.items())]
        self._counted = now
        if now - self._saved >= records.SAVE_EVERY_S or done.rules:
            self.save()

    def save(self) -> None:
        """Write the file."""
        self._file.save()
        self._saved = time.monotonic()


def merge(into: RecordFile, other: RecordFile) -> None:
    """Add the records of another file, made elsewhere.

    :raises RecordRefused: when the two have run a seed in common on the same core; nothing has changed then.
    """
    for record in other.records:
        mine: list[Part] = next((one["parts"] for one in into.records if one["core"] == record["core"]), [])
        seeds_of([*mine, *record["parts"]])
    for record in other.records:
        parts = into.of(record["core"])
        for part in record["parts"]:
            key = {name: part[name] for name in ("simulator", "compiled", "python")}
            known = next((one for one in parts if all(one[name] == value for name, value in key.items())), None)
            if known is None:
                parts.append(part)
                continue
            for name in SUMS:
                known[name] = round(known[name] + part[name], 2)
            known["seeds"] = [list(one) for one in merged(map(tuple, [*known["seeds"], *part["seeds"]]))]
            known["counts"] = dict(Counter(known["counts"]) + Counter(part["counts"]))
            known["violations"] += part["violations"]


def merge_files(path: Path, others: Iterable[Path]) -> None:
    """Add the records of other files to those of ``path``.

    :raises RecordRefused: when a file is held by a run, is no record, or has seeds in common with the others.
    """
    with records.held(path, KIND) as into:
        for other in others:
            if not other.exists():
                raise RecordRefused(f"{other} does not exist")
            with records.held(other, KIND) as read:
                merge(into, read)
        into.save()
        for record in into.records:
            sys.stdout.write(f"core {record['core']}: {sum(part['schedules'] for part in record['parts']):,} schedules\n")
