"""What was measured, as files: a page with tables, the plots, and all figures as JSON."""

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.compare import svg
from benchmarks.compare.portrait import OUTAGE_BEFORE_SECONDS, SLOT_SECONDS
from benchmarks.compare.side_by_side import Row
from benchmarks.compare.svg import Point

PAGE, RAW = "compare.md", "compare.json"
KIND_WORDS = {"put": "PUT of 128 new bytes", "get": "GET of one key"}
OUTAGE_SHOWN_SECONDS = 1.0
OUTAGE_TOP = 4.0
"""How many times the arrivals of a slot a strip shows: those that waited for a leader come all at once."""


def write(folder: Path, facts: dict[str, Any], rows: dict[str, list[Row]], portraits: dict[str, dict[str, Any]]) -> None:
    """Write all files anew.

    :param facts: machine, versions, settings and notes.
    :param rows: the table of each peer.
    :param portraits: of each system: what the functions of ``portrait`` gave, by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    raw = {**facts, "side_by_side": {peer: [row.raw() for row in some] for peer, some in rows.items()}, "portraits": portraits}
    (folder / RAW).write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    plots = _plots(facts["versions"], portraits)
    for name, (_, drawn) in plots.items():
        (folder / name).write_text(drawn, encoding="utf-8")
    parts = [_beginning(facts), *(_table(peer, facts["versions"], some) for peer, some in rows.items())]
    parts += [f"## {title}\n\n![{title}]({name}){_late(name, portraits)}" for name, (title, _) in plots.items()]
    parts.append("## What to know\n\n" + "\n".join(f"* {note}" for note in facts["notes"]))
    (folder / PAGE).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _beginning(facts: dict[str, Any]) -> str:
    machine = facts["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return (
        "# kvorum beside its peers\n\n"
        f"`{machine['command']}`, {facts['begun']}, {facts['minutes']:.1f} minutes. {versions}.\n"
        f"{machine['processors']}, {machine['memory_gib']} GiB, Linux {machine['kernel']}, {machine['file_system']}, Python {machine['python']}; "
        f"load average before: {machine['load_average_before'][0]}.\n"
        f"All figures: [{RAW}]({RAW})."
    )


def _table(peer: str, versions: dict[str, str], rows: list[Row]) -> str:
    lines = [
        f"## {peer} {versions.get(peer, '')}\n",
        f"| | kvorum | {peer} | ratio (min..max) | kvorum p50 / p99 ms | {peer} p50 / p99 ms |",
        "| --- | ---: | ---: | --- | ---: | ---: |",
    ]
    for row in rows:
        says = row.workload.says
        if row.void:
            lines.append(f"| {says} | {row.void} | | | | |")
            continue
        times = [f"{row.ms(side, 'p50'):.2f} / {row.ms(side, 'p99'):.2f}" for side in (0, 1)]
        ratio = f"**{statistics.median(row.ratios):.2f}** ({min(row.ratios):.2f}..{max(row.ratios):.2f})"
        lines.append(f"| {says} | {row.rate(0):,.0f} | {row.rate(1):,.0f} | {ratio} | {times[0]} | {times[1]} |")
    return "\n".join(lines)


def _late(name: str, portraits: dict[str, dict[str, Any]]) -> str:
    """Below a plot of latencies: what of them may be the asker's own."""
    kind = name.removeprefix("latency-").removesuffix(".svg")
    late = [f"{system} {one['distribution'][kind]['asker_late_p99_ms']:.1f} ms" for system, one in portraits.items() if kind in one["distribution"]]
    return f"\n\nHow late the asker itself sent, in 99 of 100 cases at most: {', '.join(late)}." if late else ""


def _plots(versions: dict[str, str], portraits: dict[str, dict[str, Any]]) -> dict[str, tuple[str, str]]:
    """Title and drawing by name of the file, of whatever there is."""
    plots: dict[str, tuple[str, str]] = {}
    for kind, words in KIND_WORDS.items():
        over = {name: one["throughput"][kind] for name, one in portraits.items() if one.get("throughput", {}).get(kind)}
        if over:
            title = f"{words}: requests a second over connections"
            plots[f"connections-{kind}.svg"] = title, _connections(title, _called(versions, over))
        spread = {name: one["distribution"][kind] for name, one in portraits.items() if one.get("distribution", {}).get(kind)}
        if spread:
            title = f"{words}: how long requests wait"
            plots[f"latency-{kind}.svg"] = title, _latency(title, _called(versions, spread))
    lost = {name: one["outage"] for name, one in portraits.items() if "outage" in one}
    if lost:
        title = "The leader is killed: acknowledged writes each 10 ms"
        plots["failover.svg"] = title, _outage(title, _called(versions, lost))
    return plots


def _called(versions: dict[str, str], found: dict[str, Any]) -> dict[str, Any]:
    return {f"{name} {versions[name]}" + _bad(one): one for name, one in found.items()}


def _bad(found: Any) -> str:
    """A remark where requests were not answered 2xx."""
    bad = sum(one["not_2xx"] + one["unanswered"] for one in (found if isinstance(found, list) else [found]))
    return f" ({bad:,} not 2xx)" if bad else ""


def _connections(title: str, found: dict[str, Any]) -> str:
    lines = {name: [Point(one["connections"], one["rate"]) for one in some] for name, some in found.items()}
    points = [point for some in lines.values() for point in some]
    across = svg.logarithmic("connections", min(point.x for point in points), max(point.x for point in points), base=4)
    return svg.lines(title, "at the leader; each asks again as soon as it is answered", across, _upward(points, "a second"), lines)


def _upward(points: list[Point], label: str) -> svg.Axis:
    return svg.linear(label, max(point.y for point in points) or 1.0)


def _latency(title: str, found: dict[str, Any]) -> str:
    lines = {name: [Point(rest, max(ms, 0.01)) for rest, ms in one["distribution"]] for name, one in found.items()}
    points = [point for some in lines.values() for point in some] or [Point(1, 1)]
    rate = next(iter(found.values()))["arrivals_per_second"]
    most = max(point.x for point in points)
    marks = [(10.0**power, f"{100 - 100 / 10**power:.10g} %") for power in range(10) if 10**power <= most]
    across = svg.Axis("share of requests that waited no longer", 1.0, most * 1.05, marks, logarithmic=True)
    upward = svg.logarithmic("ms", min(point.y for point in points), max(point.y for point in points))
    told = f"{rate:,.0f} requests arrive each second at the leader, whatever it does; counted from their arrival"
    return svg.lines(title, told, across, upward, lines, dots=False)


def _outage(title: str, found: dict[str, Any]) -> str:
    ends = [one["first_after_kill_ms"] / 1000 for one in found.values() if one["first_after_kill_ms"] == one["first_after_kill_ms"]]
    high = max([*ends, 1.0]) + OUTAGE_SHOWN_SECONDS
    low = -min(OUTAGE_SHOWN_SECONDS, OUTAGE_BEFORE_SECONDS)
    rows = {f"{name}: writes again after {one['first_after_kill_ms']:,.0f} ms": one["slots"] for name, one in found.items()}
    rate = next(iter(found.values()))["arrivals_per_second"]
    told = f"{rate:,.0f} writes arrive each second at the two followers; all processes of the leader are ended by SIGKILL at 0"
    return svg.strips(
        title, told, svg.linear("seconds since the kill", high, low), rows, top=OUTAGE_TOP * rate * SLOT_SECONDS, bar=SLOT_SECONDS, mark=0.0
    )
