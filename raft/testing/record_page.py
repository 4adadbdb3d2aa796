"""The parts of a page that follow from the records of schedules and states (:mod:`raft.testing.records`).

``python -m raft.testing.record_page docs/testing.md`` writes them anew, from ``schedules.json`` and ``states.json`` in the folder ``testing`` beside
the page; ``--check`` says whether the page is out of date.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from raft.testing import explore_record, sim_record
from raft.testing.markers import FAULTS, MARKERS, minimum
from raft.testing.records import Part, RecordFile, RecordRefused

SCHEDULES = "schedules.json"
STATES = "states.json"

_BLOCK = re.compile(r"(?P<begin><!-- (?P<name>[a-z]+): made by raft\.testing\.record_page -->\n).*?(?P<end>^<!-- end -->$)", re.DOTALL | re.MULTILINE)
Records = list[dict[str, Any]]


def render(page: str, folder: Path) -> str:
    """A page with its parts as they follow from the records now.

    :param folder: where the records are.
    :raises KeyError: for a marker that names no part.
    :raises RecordRefused: when a file there is no record.
    """
    schedules = RecordFile(folder / SCHEDULES, sim_record.KIND).records
    states = RecordFile(folder / STATES, explore_record.KIND).records
    given = {"schedules": schedules, "faults": schedules, "markers": schedules, "states": states}
    return _BLOCK.sub(lambda found: f"{found['begin']}\n{PARTS[found['name']](given[found['name']])}\n{found['end']}", page)


def schedules_part(records: Records) -> str:
    """What was simulated: the latest core in full, earlier ones a line each."""
    if not records:
        return "No schedules are recorded yet.\n"
    parts: list[Part] = records[-1]["parts"]
    total = {name: sum(part[name] for part in parts) for name in sim_record.SUMS}
    violations = [f"{one['rule']} (seed {one['seed']})" for part in parts for one in part["violations"]]
    rows = [
        ("core", f"`{records[-1]['core']}`"),
        ("schedules", f"{total['schedules']:,}"),
        ("seeds", _seeds(parts)),
        ("violations", ", ".join(violations) or f"none: with 95 % confidence fewer than 3 in {total['schedules']:,} schedules find one"),
        ("simulated time", f"{total['simulated_ms'] / 3_600_000:,.0f} hours"),
        ("entries committed", f"{total['committed']:,}"),
        ("commands acknowledged", f"{total['acknowledged']:,}"),
        ("linearizable reads served", f"{total['reads']:,}"),
        ("steps that were checked", f"{total['steps']:,}"),
        ("time it took", f"{_hours(total['wall_s'])}, {_hours(total['cpu_s'])} of processors"),
    ]
    by_part = [
        (
            f"`{part['simulator']}`",
            part["compiled"],
            part["python"],
            _seeds([part]),
            f"{part['schedules']:,}",
            _rate(part["schedules"], part["cpu_s"]),
        )
        for part in parts
    ]
    text = (
        _table(("", "value"), rows) + "\n" + _table(("simulator", "compiled", "Python", "seeds", "schedules", "schedules a second and core"), by_part)
    )
    return text + _earlier(records, "schedules")


def faults_part(records: Records) -> str:
    """What was done to the clusters."""
    if not records:
        return "No schedules are recorded yet.\n"
    counts, schedules = _counts(records)
    return _table(("fault", "injected", "a schedule"), [(name, f"{counts[name]:,}", f"{counts[name] / max(schedules, 1):,.2f}") for name in FAULTS])


def markers_part(records: Records) -> str:
    """Which rare branches were reached."""
    if not records:
        return "No schedules are recorded yet.\n"
    counts, schedules = _counts(records)
    rows = [(marker.name, f"{counts[marker.name]:,}", f"{minimum(marker, schedules):,}") for marker in MARKERS]
    return _table(("rare branch", "reached", "at least wanted"), rows)


def states_part(records: Records) -> str:
    """What was explored."""
    if not records:
        return "No states are recorded yet.\n"
    rows = []
    for part in records[-1]["parts"]:
        violations = ", ".join(f"{one['rule']}: `{one['replay'].strip()}`" for one in part["violations"]) or "none"
        breadth = ", ".join(f"{name} {depth}" for name, depth in sorted(part["breadth"].items()))
        rows += [
            ("core, explorer, Python", f"`{records[-1]['core']}`, `{part['explorer']}`, {part['python']}"),
            ("distinct states", f"{part['states']:,}, {part['looked_at']:,} of them looked at from every side"),
            ("moves tried", f"{sum(part['moves'].values()):,}"),
            ("every state so many moves from a start", breadth or "none"),
            ("longest way", f"{part['depth']} moves"),
            ("violations", violations),
            (
                "time it took",
                f"{_hours(part['wall_s'])}, {_hours(part['cpu_s'])} of processors; {_rate(part['states'], part['cpu_s'])} states a second and core",
            ),
        ]
    return _table(("", "value"), rows) + _earlier(records, "states")


PARTS: dict[str, Callable[[Records], str]] = {
    "schedules": schedules_part,
    "faults": faults_part,
    "markers": markers_part,
    "states": states_part,
}
"""The parts, by the names that the markers in the page use."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the module's text.

    :returns: the exit status: 1 when ``--check`` finds the page out of date.
    """
    parser = argparse.ArgumentParser(prog="python -m raft.testing.record_page", description="Write what is recorded into a page.")
    parser.add_argument("--check", action="store_true", help="write nothing, say whether the page is out of date")
    parser.add_argument("page", type=Path, metavar="PAGE")
    options = parser.parse_args(arguments)
    try:
        text = options.page.read_text(encoding="utf-8")
        rendered = render(text, options.page.parent / "testing")
    except (OSError, RecordRefused) as error:
        parser.error(str(error))
    if rendered == text:
        return 0
    if not options.check:
        options.page.write_text(rendered, encoding="utf-8")
    sys.stdout.write(f"{options.page}: {'out of date' if options.check else 'written'}\n")
    return 1 if options.check else 0


def _counts(records: Records) -> tuple[Counter[str], int]:
    counts: Counter[str] = Counter()
    for part in records[-1]["parts"]:
        counts.update(part["counts"])
    return counts, sum(part["schedules"] for part in records[-1]["parts"])


def _earlier(records: Records, name: str) -> str:
    """The records of earlier cores; nothing of them counts for the present one."""
    rows = [
        (f"`{one['core']}`", f"{sum(part[name] for part in one['parts']):,}", f"{sum(len(part['violations']) for part in one['parts'])}")
        for one in records[:-1]
    ]
    return "\n" + _table(("earlier core", name, "violations"), rows) if rows else ""


def _seeds(parts: Iterable[Part]) -> str:
    return ", ".join(f"{first:,} to {last:,}" for first, last in sim_record.seeds_of(parts))


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} hours" if seconds >= 3600 else f"{seconds / 60:,.1f} minutes"


def _rate(count: int, seconds: float) -> str:
    return f"{count / seconds:,.1f}" if seconds else "not measured"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (head, ["---"] * len(head), *rows)
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
