"""``docs/consul-compatibility.md``: what became of each endpoint of Consul, and by what that is known.

    python -m tests.compatibility                    write the page
    python -m tests.compatibility --replayed FILE    take over what a replay of the recorded requests printed, then write the page

The page follows from files of this repository alone: the table ``compatibility.toml``, the differences that are meant
(``differential/differences.py``), and what was recorded of the runs: ``docs/differential.json`` and ``docs/conformance.json``.
"""

import argparse
import json
import re
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.differential.differences import DIFFERENCES

TOP = Path(__file__).resolve().parents[1]
TABLE = TOP / "tests" / "compatibility.toml"
DOCS = TOP / "docs"
PAGE = DOCS / "consul-compatibility.md"
VERDICTS = ("same", "better", "partly", "refused", "absent")
_OUTCOME = re.compile(r"^(ok|FAIL) +(\S+)$", re.MULTILINE)
_GROUP = re.compile(r"^group (\S+): (\d+) passed, (\d+) failed$", re.MULTILINE)

HEAD = """\
# Compatibility with Consul

The model is the HTTP API of Consul 1.8.7. This page is made by `python -m tests.compatibility` from `tests/compatibility.toml`, the differences
in `tests/differential/differences.py` and recorded runs; a test fails when it is out of date. What kvorum adds is in
[extensions](http-extensions.md).

*same*: statuses, headers and bodies are Consul's. *better*: the same, and what the note says. *partly*: the note says what there is, or what is
missing. *refused*: 501 with a reason. *absent*: 404.

| endpoint | methods | | |
| --- | --- | --- | --- |
"""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of Consul.

    :ivar methods: separated by commas.
    :ivar verdict: one of :data:`VERDICTS`.
    """

    path: str
    methods: str
    verdict: str
    note: str = ""


def endpoints() -> list[Endpoint]:
    """The table."""
    found = [Endpoint(**entry) for entry in tomllib.loads(TABLE.read_text(encoding="utf-8"))["endpoint"]]
    for one in found:
        if one.verdict not in VERDICTS or (not one.note and one.verdict != "same"):
            raise ValueError(f"{TABLE.name}: {one.path} needs a verdict ({', '.join(VERDICTS)}) and, unless that is same, a note; it has {one}")
    return found


def deviations() -> dict[str, str]:
    """Recorded scenarios that end otherwise, and why that is meant."""
    return {entry["scenario"]: entry["why"] for entry in tomllib.loads(TABLE.read_text(encoding="utf-8"))["deviation"]}


def replayed(text: str) -> dict[str, Any]:
    """What a replay printed, in short: the scenarios that passed by group, and the names of those that failed."""
    groups = {name: int(passed) for name, passed, _ in _GROUP.findall(text)}
    failed = [name for outcome, name in _OUTCOME.findall(text) if outcome == "FAIL"]
    return {"consul": "1.8.7", "passed": dict(sorted(groups.items())), "failed": failed}


def render() -> str:
    """The page."""
    rows = "".join(f"| `{one.path}` | {one.methods} | {one.verdict} | {one.note} |\n" for one in endpoints())
    return HEAD + rows + _differential(json.loads((DOCS / "differential.json").read_text("utf-8"))) + _conformance(DOCS / "conformance.json")


def _differential(record: dict[str, Any]) -> str:
    runs = record["runs"]
    total: Counter[str] = Counter()
    meant: Counter[str] = Counter()
    for run in runs:
        total += Counter(operations=run["operations"], sequences=run["sequences"])
        meant += Counter(run["meant"])
    kinds = sum((Counter(run["kinds"]) for run in runs), Counter())
    groups: Counter[str] = Counter()
    for kind, count in kinds.items():
        groups[kind.partition(" ")[0]] += count
    names = {"get": "GET of keys", "put": "PUT of a key", "delete": "DELETE", "txn": "transactions", "session": "sessions"}
    names |= {"method": "other methods", "path": "odd paths"}
    shown = ", ".join(f"{names[name]} {count:,}" for name, count in groups.most_common())
    rows = "".join(f"| {one.name} | {one.consul} | {one.kvorum} | {one.reason} | {meant[one.name]:,} |\n" for one in DIFFERENCES)
    seeds = ", ".join(str(run["seed"]) for run in runs)
    return f"""
## Compared with a real Consul

The same random requests to a real Consul 1.8.7 and to a node of kvorum (`python -m tests.differential`; it prints the seed, and `--seed` repeats
a run): keys, conditions, locks, sessions, transactions, listings, short waits, odd keys and paths, bad parameters, wrong methods. Compared are
status, headers and body; ids of sessions must stand for the same session, and indexes must be less, equal or greater on one side as on the other,
over a whole run.

Recorded: **{total["operations"]:,} requests** in {total["sequences"]:,} sequences (seeds {seeds}; {shown}), **no difference** but these, which are
meant:

| difference | Consul | kvorum | why | came up |
| --- | --- | --- | --- | --- |
{rows}"""


def _conformance(path: Path) -> str:
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = "".join(f"| {name} | {count} |\n" for name, count in found["passed"].items())
    why = deviations()
    failed = "".join(f"| `{name}` | {why[name]} |\n" for name in found["failed"])
    return f"""
## Replayed from a recording

Requests and answers of a real Consul {found["consul"]} were recorded, scenario by scenario, and replayed against three nodes of kvorum; headers,
the order of fields and spaces count.

| scenarios | passed |
| --- | --- |
{rows}
| scenario that ends otherwise | why |
| --- | --- |
{failed}"""


def main(argv: list[str] | None = None) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.compatibility", description="The page about compatibility with Consul.")
    parser.add_argument("--replayed", type=Path, help="the output of a replay of the recorded requests")
    arguments = parser.parse_args(argv)
    if arguments.replayed:
        found = replayed(arguments.replayed.read_text(encoding="utf-8"))
        if not found["passed"]:
            parser.error(f"{arguments.replayed} holds no outcome of a replay")
        (DOCS / "conformance.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
