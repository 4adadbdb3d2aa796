"""``python -m raft.testing.explore``: every state of a small cluster near its beginnings, and what chance finds far away; all rules hold in each.

Three nodes run the real core. From each start of a variant (:mod:`raft.testing.explore_starts`) the explorer tries whatever may happen next, in
every state it meets, within bounds: terms, commands, a crash, a loss, a duplicate, a slow disk. Half of the states are looked for breadth-first, half
along chance runs. What time and the network are here is said in :mod:`raft.testing.explore_site` and :mod:`raft.testing.explore_space`; the rules
are in :mod:`raft.testing.explore_rules`.

``--states 1000000`` is how many distinct states are wanted, ``--variant`` which (default all), ``--jobs 2`` how many processes, ``--seconds`` the
time limit. ``--bounds terms=2,crashes=0`` changes bounds. ``--table FOLDER`` keeps the fingerprints of all states seen, for this core and this
explorer: later runs go on with other walks and count only what is new. ``--mutant NAME`` plants a fault of :mod:`raft.testing.mutants`.

``--record FILE --table FOLDER --until 10000000`` adds to a file of what was explored (:mod:`raft.testing.explore_record`) until the table has so many
states. After each leg of the search both are written, so a run that was stopped or killed goes on from there when it is started again.

A violation is printed with the moves that lead to it and the command that makes them again (``--replay``). The exit status is 0 when no rule was
broken and the wanted states were seen, or all there are.
"""

import argparse
import gc
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from raft.testing import explore_record, records
from raft.testing.explore_search import Fingerprints, Found, Outcome, after, breadth_first, walk
from raft.testing.explore_space import Bounds, Broken, Move, Space, State
from raft.testing.explore_starts import PARTS, enter
from raft.testing.explore_table import Table
from raft.testing.mutants import MUTANTS

STATES = 100_000
ROUNDS_MAX = 8
"""Several searches may meet the same states; what is missing in the end is looked for again, at most so often."""

LATER_STATES_MIN = 2_000
"""So far a walk goes at least then: all of them begin among known states."""


class Leg(NamedTuple):
    """What one process does at a time.

    :param seed: of the walks; 0 for breadth-first.
    :param states: how many distinct ones to look for.
    """

    part: str
    seed: int
    states: int
    bounds: dict[str, int]
    mutant: str = ""
    seconds: float = float("inf")


class Report(NamedTuple):
    """What became of a leg."""

    leg: Leg
    outcome: Outcome
    tried: Counter[str]
    seconds: float
    cpu_s: float = 0.0

    def text(self) -> str:
        """A line for people."""
        name = f"{self.leg.part} {'walk ' + str(self.leg.seed) if self.leg.seed else 'breadth'}"
        count, ended = len(self.outcome.seen), ", all there are" if self.outcome.exhausted else ""
        return f"{name:<28} {count:>10,} distinct, depth {self.outcome.depth:>3}, {self.seconds:6.1f} s, {count / self.seconds:>8,.0f}/s{ended}"


def run(leg: Leg) -> Report:
    """Do a leg."""
    began, began_cpu_s = time.monotonic(), time.process_time()
    gc.disable()  # nothing here is cyclic, and there are millions of tuples to look through
    outcome, tried = Outcome(), Counter[str]()
    with planted(leg.mutant):
        try:
            space, starts = enter(leg.part, leg.bounds)
        except Broken as broken:
            outcome.found = Found(broken.violation.rule, broken.violation.detail, "")
        else:
            outcome, tried = _search(space, starts, leg, began + leg.seconds), space.tried
    gc.enable()
    return Report(leg, outcome, tried, time.monotonic() - began, time.process_time() - began_cpu_s)


def _search(space: Space, starts: dict[str, State], leg: Leg, deadline_s: float) -> Outcome:
    if leg.seed:
        return walk(space, starts, seed=leg.seed, states=leg.states, deadline_s=deadline_s)
    return breadth_first(space, starts, states=leg.states, deadline_s=deadline_s)


def planted(name: str) -> AbstractContextManager[None]:
    """The core with a fault, or as it is when the name is empty."""
    return next(mutant for mutant in MUTANTS if mutant.name == name).planted() if name else nullcontext()


@dataclass(slots=True)
class Total:
    """What all legs did together."""

    seen: Fingerprints
    tried: Counter[str]
    looked_at: int = 0
    depth: int = 0
    exhausted: bool = True
    found: tuple[Leg, Found] | None = None

    def failed(self) -> bool:
        """Whether a rule was broken."""
        return self.found is not None

    def add(self, report: Report) -> None:
        """Take in a leg."""
        for value in report.outcome.seen:
            self.seen.add(value)
        self.tried.update(report.tried)
        self.looked_at += report.outcome.states
        self.depth = max(self.depth, report.outcome.depth)
        if not report.leg.seed:
            self.exhausted = self.exhausted and report.outcome.exhausted
        if report.outcome.found and not self.found:
            self.found = report.leg, report.outcome.found


def explore(options: argparse.Namespace, table: Table, ended: Callable[[Report], None] = lambda _report: None) -> Total:
    """Run legs until enough distinct states are known, time is up, a rule is broken, or nothing is left.

    :param ended: told of each leg, once the table has its states.
    """
    began, known = time.monotonic(), len(table.seen)
    total = Total(table.seen, Counter(), exhausted=not table.runs)
    with ProcessPoolExecutor(max_workers=options.jobs) as pool:
        for round_ in range(ROUNDS_MAX):
            missing = options.states - (len(total.seen) - known)
            left_s = options.seconds - (time.monotonic() - began)
            if missing <= 0 or left_s <= 0 or total.failed() or (round_ and total.exhausted):
                break
            legs = plan(options, missing, table, first=round_ == 0)
            for future in [pool.submit(run, leg._replace(seconds=left_s)) for leg in legs]:
                if future.cancelled():
                    continue
                report = future.result()
                total.add(report)
                ended(report)
                sys.stdout.write(report.text() + "\n")
                sys.stdout.flush()
                if total.failed():
                    pool.shutdown(cancel_futures=True)
    return total


def plan(options: argparse.Namespace, states: int, table: Table, *, first: bool) -> Iterator[Leg]:
    """Divide the work: every variant gets the same, each of its parts the same of that, half of it breadth-first.

    :param first: later, and in parts where an earlier run has searched breadth-first, everything is left to the walks.
    """
    variants = [options.variant] if options.variant != "all" else list(dict.fromkeys(part.variant for part in PARTS.values()))
    for name, part in PARTS.items():
        if part.variant in variants:
            breadth = first and name not in table.breadth
            parts = len(variants) * sum(other.variant == part.variant for other in PARTS.values())
            share = -(-states // (parts * (2 if breadth else 1)))
            if not first:
                share = max(share, LATER_STATES_MIN)
            if breadth:
                yield Leg(name, 0, share, options.bounds, options.mutant)
            yield Leg(name, table.next_seed(), share, options.bounds, options.mutant)


# -- violations ---------------------------------------------------------------------------------------------------------------------------


def described(leg: Leg, found: Found) -> str:
    """A violation, the way there, and how to see it again."""
    numbers = []
    if found.moves:
        with planted(leg.mutant):
            space, starts = enter(leg.part, leg.bounds)
            state = starts[found.start]
            for text in found.moves:
                moves = ordered(space, state)
                numbers.append([space.text(move) for move in moves].index(text))
                if len(numbers) < len(found.moves):
                    state = after(space, state, moves[numbers[-1]])
    words = ["python -m raft.testing.explore"]
    words += [f'--mutant "{leg.mutant}"'] if leg.mutant else []
    words += ["--bounds " + ",".join(f"{name}={value}" for name, value in leg.bounds.items())] if leg.bounds else []
    words.append(f"--replay {leg.part}/{found.start}/{'.'.join(map(str, numbers))}")
    way = (
        f"{len(found.moves)} moves from the start {found.start!r} of {leg.part}:" if found.moves else f"before the starts of {leg.part} were reached"
    )
    return "\n".join([f"{found.rule}: {found.detail}", way, *(f"  {text}" for text in found.moves), "replay: " + " ".join(words)])


def replay(text: str, bounds: dict[str, int], mutant: str) -> int:
    """Make the moves of a violation again, and print them.

    :returns: 1 when a rule is broken again, else 0.
    :raises LookupError: when the text names no run.
    """
    part, start, numbers = text.split("/") if text.count("/") == 2 else ("", "", "")
    if part not in PARTS or start not in {"", *PARTS[part].starts} or not all(number.isdecimal() for number in numbers.split(".") if numbers):
        raise LookupError(f"{text!r} is no run; one looks like plain/elected/3.0.1")
    with planted(mutant):
        try:
            space, starts = enter(part, bounds)
            state = starts[start or next(iter(starts))]
            for position, number in enumerate(map(int, filter(None, numbers.split("."))), 1):
                moves = ordered(space, state)
                if number >= len(moves):
                    raise LookupError(f"move {position} is to be number {number}; only {len(moves)} are possible")
                sys.stdout.write(space.text(moves[number]) + "\n")
                state = after(space, state, moves[number])
        except Broken as broken:
            sys.stdout.write(f"{broken}\n")
            return 1
    sys.stdout.write("no rule was broken\n")
    return 0


def ordered(space: Space, state: State) -> list[Move]:
    """What may happen in a state, in an order that is the same in every process."""
    return sorted(space.moves(state), key=space.text)


# -- command line -------------------------------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """The command line; see the module's text."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.replay:
        try:
            return replay(options.replay, options.bounds, options.mutant)
        except LookupError as error:
            parser.error(str(error))
    if options.record is None:
        return _explore(options, Table(options.table), None)
    if not options.table or options.until is None or options.mutant or options.bounds or options.variant != "all":
        parser.error("--record needs --table and --until, and takes neither --mutant, --bounds nor --variant: it is of the whole space")
    try:
        with records.held(options.record, explore_record.KIND) as file:
            table = Table(options.table)
            recorder = explore_record.Recorder(file, len(table.seen))
            options.states = max(options.until - len(table.seen), 0)
            return _explore(options, table, recorder)
    except records.RecordRefused as refused:
        parser.error(str(refused))


def _explore(options: argparse.Namespace, table: Table, recorder: explore_record.Recorder | None) -> int:
    """Explore, and say what came of it. :returns: the exit status."""
    began, known = time.monotonic(), len(table.seen)

    def ended(report: Report) -> None:
        if recorder is not None:
            breadth = [] if report.leg.seed else [report.leg.part]
            table.save(states=len(table.seen) - known, seconds=time.monotonic() - began, breadth=breadth)
            recorder.add(report, len(table.seen))
        elif not report.leg.seed:
            breadth_first_in.append(report.leg.part)

    breadth_first_in: list[str] = []
    total = explore(options, table, ended)
    elapsed_s = max(time.monotonic() - began, 0.001)
    new = len(total.seen) - known
    table.save(states=new, seconds=elapsed_s, breadth=breadth_first_in)
    width = max(map(len, total.tried), default=0)
    lines = [f"  {name:<{width}}  {count:>12,}" for name, count in sorted(total.tried.items())]
    lines.append(
        f"{new:,} new distinct states ({len(total.seen):,} in all), {total.looked_at:,} of them looked at from every side, "
        f"{sum(total.tried.values()):,} moves tried, depth {total.depth}, in {elapsed_s:.1f} s ({new / elapsed_s:,.0f}/s)"
    )
    sys.stdout.write("\n".join(lines) + "\n")
    if total.found:
        text = described(*total.found)
        sys.stdout.write(text + "\n")
        if recorder is not None:
            recorder.found(total.found[1].rule, text.rpartition("replay: ")[2])
        return 1
    if new < options.states and not total.exhausted:
        sys.stdout.write(f"only {new:,} of {options.states:,} states were seen, and there are more\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m raft.testing.explore", description="Explore the states of a small Raft cluster.")
    parser.add_argument("--states", type=_count, default=STATES, help=f"distinct states to see (default {STATES})")
    parser.add_argument("--variant", choices=["all", *dict.fromkeys(part.variant for part in PARTS.values())], default="all")
    parser.add_argument("--jobs", type=_count, default=1, help="processes (default 1)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long (default: never)")
    parser.add_argument("--bounds", type=_bounds, default={}, help=f"change bounds: {', '.join(f'{k}={v}' for k, v in Bounds()._asdict().items())}")
    parser.add_argument("--table", help="a folder that keeps what was seen")
    parser.add_argument("--record", type=Path, metavar="FILE", help="with --table and --until: add to what this file says was explored")
    parser.add_argument("--until", type=_count, metavar="STATES", help="with --record: how many states the table is to have")
    parser.add_argument("--mutant", choices=[mutant.name for mutant in MUTANTS if mutant.patches], default="", metavar="NAME", help="plant a fault")
    parser.add_argument("--replay", metavar="MOVES", help="make the moves of a violation again")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return int(text)


def _bounds(text: str) -> dict[str, int]:
    bounds = {}
    for item in text.split(","):
        name, _, value = item.partition("=")
        if name not in Bounds._fields or not value.isdecimal():
            raise argparse.ArgumentTypeError(f"{item!r} is no bound; one looks like {Bounds._fields[0]}=3, and there are {', '.join(Bounds._fields)}")
        bounds[name] = int(value)
    if bounds.get("terms") == 0:
        raise argparse.ArgumentTypeError("terms is 0; it must be 1 or more")
    return bounds


if __name__ == "__main__":
    sys.exit(main())
