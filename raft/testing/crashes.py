"""``python -m raft.testing.crashes``: crash a node at every call that changes its files, start it again on what is left, and compare.

A script of operations (:mod:`raft.testing.crash_plan`) runs on the real adapters as leader, as follower and as receiver of snapshots, and is recorded
(:mod:`raft.testing.recording`). From the recording come images of the disk (:mod:`raft.testing.images`). A node is started on each, the way the
runtime starts one, and must hold exactly what it held after the last acknowledged operation, or after the one that was under way:
boundary, entries, term, vote, records, newest snapshot, and a state that is right for its applied index. After a power loss the state may lag,
though never behind what a checkpoint had proven and never so far that the log could not bring it up again.

``--images 5000`` makes that many, evenly of all roles and classes (0: all there are); ``--seed`` chooses which; ``--only kill`` one class. It prints
how many were made and checked, and fails when one of the classes is empty or one image is wrong.
"""

import argparse
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from raft.core.model import Boundary, Entry
from raft.runtime.recovery import recover
from raft.storage.snapshots import FileSnapshots
from raft.storage.sqlite import SqliteLog
from raft.testing.crash_plan import ROLES, Operation, Plan, State, after, plan
from raft.testing.crash_script import Subject, load_subject
from raft.testing.images import CLASSES, POWER, POWER_VARIANTS, Image, Place, choose, images, places
from raft.testing.recording import Event, Marked, NoRecorder, build, record

CELLS = "raft.testing.cells:CellsSubject"


class CrashFailed(Exception):
    """A node does not find what it should; the text says where it was crashed and what is wrong."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A script as it ran: ``states[n]`` is what must be there after n acknowledgements."""

    role: str
    seed: int
    subject: Subject
    events: list[Event]
    complaint: str
    operations: tuple[Operation, ...]
    states: list[State]
    fingerprints: list[str]
    terms: list[int]


def record_script(
    library: Path, workspace: Path, role: str, *, seed: int = 1, subject: str = CELLS, mutant: str = "", fail_sync: int = 0
) -> Recording:
    """Run the script of a role under the recorder.

    :param subject: which machine (:func:`raft.testing.crash_script.load_subject`).
    :param mutant: a fault to plant.
    :param fail_sync: which sync fails, counted from 1; the script ends there. 0 for none.
    """
    directory = workspace / f"{role}-live"
    directory.mkdir()
    command = [sys.executable, "-m", "raft.testing.crash_script", subject, role, str(seed), str(directory), mutant]
    events, complaint = record(library, command, directory, fail_sync=fail_sync)
    shutil.rmtree(directory)
    loaded = load_subject(subject)
    chosen = plan(role, seed, loaded.command)
    marks = [int(event.text) for event in events if isinstance(event, Marked)]
    if len(marks) != len(chosen.operations) and not fail_sync:
        raise CrashFailed(f"{role}: {len(marks)} of {len(chosen.operations)} operations were acknowledged")
    states = [State()]
    for operation, proven in zip(chosen.operations, marks, strict=False):
        states.append(after(states[-1], operation, proven))
    if len(marks) < len(chosen.operations):  # what was under way when the disk failed may have happened
        states.append(after(states[-1], chosen.operations[len(marks)], states[-1].applied))
    fingerprints = _fingerprints(loaded, chosen, workspace / f"{role}-reference")
    terms = [0, *(entry.term for entry in chosen.committed)]
    return Recording(role, seed, loaded, events, complaint, chosen.operations, states, fingerprints, terms)


def _fingerprints(subject: Subject, chosen: Plan, directory: Path) -> list[str]:
    """What the machine shows after each index, from one that was never crashed."""
    directory.mkdir()
    machine = subject.open(directory)
    found = [subject.fingerprint(machine)]
    for entry in chosen.committed:
        machine.apply([(entry.index, entry.term, entry.data)])
        found.append(subject.fingerprint(machine))
    machine.close()
    shutil.rmtree(directory)
    return found


def check(recording: Recording, image: Image, directory: Path) -> None:
    """Start a node on an image and hold what it finds against what was acknowledged.

    :param directory: empty; the image is made in it.
    :raises CrashFailed: when they do not agree.
    """
    _materialise(image, directory)
    try:
        problem = _problem(recording, image, directory)
    except Exception as error:  # noqa: BLE001 - whatever the machine or the library raises, the node does not start
        problem = f"it does not start: {error}"
    if problem is not None:
        raise CrashFailed(f"{_told(recording, image)}: {problem}")


class _Found:
    """What a started node holds."""

    def __init__(self, subject: Subject, directory: Path) -> None:
        log = SqliteLog(directory)
        try:
            snapshots = FileSnapshots(directory / "snapshots")
            machine = subject.open(directory)
            try:
                recovered = recover(log_store=log, stable_store=log, snapshot_store=snapshots, machine=machine)
                self.boundary, self.entries = recovered.log
                self.hard_state = recovered.hard_state
                self.applied, self.applied_term = machine.applied()
                self.fingerprint = subject.fingerprint(machine)
            finally:
                machine.close()
            self.snapshot = _newest(snapshots)
            self.records = {name: log.get(name) for name in ("identity", "cluster")}
        finally:
            log.close()


def _newest(snapshots: FileSnapshots) -> tuple[int, int]:
    source = snapshots.latest()
    if source is None:
        return 0, 0
    source.close()
    return source.boundary.index, source.boundary.term


def _problem(recording: Recording, image: Image, directory: Path) -> str | None:
    found = _Found(recording.subject, directory)
    allowed = recording.states[image.marks : image.marks + 2]
    snapshots = {state.snapshot for state in allowed}
    if found.snapshot not in snapshots:  # by itself: an installation that has not come further than this one is undone in full
        return f"the newest snapshot is {found.snapshot}, not one of {sorted(snapshots)}"
    differences = [_difference(found, state, recording, lags=image.place.kind == POWER) for state in allowed]
    if None in differences:
        return None
    return " and ".join(f"not as after {image.marks + number}: {text}" for number, text in enumerate(differences))


def _difference(found: _Found, state: State, recording: Recording, *, lags: bool) -> str | None:
    """What is not as it should be; None when everything is."""
    held: tuple[tuple[str, object, object], ...] = (
        ("the boundary", (found.boundary.index, found.boundary.term), (state.boundary.index, state.boundary.term)),
        ("term and vote", found.hard_state, state.hard_state),
        ("the records", {name: value for name, value in found.records.items() if value is not None}, dict(state.records)),
        ("the configuration", found.boundary.configuration, state.boundary.configuration),
    )
    for what, is_now, due in held:
        if is_now != due:
            return f"{what}: {is_now!r} instead of {due!r}"
    if found.entries != state.entries:
        return f"the entries: {_summary(found.boundary, found.entries)} instead of {_summary(state.boundary, state.entries)}"
    low = state.durable if lags else state.applied
    if not low <= found.applied <= state.applied:
        return f"the state shows index {found.applied} instead of {low} to {state.applied}"
    if found.applied < found.boundary.index:
        return f"the state shows index {found.applied}, the log begins after {found.boundary.index}"
    if found.applied_term != recording.terms[found.applied] or found.fingerprint != recording.fingerprints[found.applied]:
        return f"the state at index {found.applied} is not what the entries make of it"
    return None


def _summary(boundary: Boundary, entries: tuple[Entry, ...]) -> str:
    return f"{boundary.index + 1} to {boundary.index + len(entries)} of terms {sorted({entry.term for entry in entries})}"


def _told(recording: Recording, image: Image) -> str:
    kind, event, detail = image.place
    what = POWER_VARIANTS[detail] if kind == POWER else f"{detail} bytes" if detail else "between two calls"
    return f"{recording.role}, seed {recording.seed}, {kind} ({what}) after {event} calls and {image.marks} acknowledgements"


def _materialise(image: Image, directory: Path) -> None:
    for path, content in sorted(image.files.items()):
        if content is None:
            (directory / path).mkdir(parents=True, exist_ok=True)
        else:
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(content)


@dataclass(slots=True)
class Summary:
    """How many images were checked, by role and class, and what was wrong."""

    checked: Counter[tuple[str, str]] = field(default_factory=Counter)
    possible: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def places_inside(recording: Recording, kind: type[Operation]) -> dict[str, list[Place]]:
    """The places that belong to operations of one kind, by class: for :func:`crash`."""
    done = [0]
    for event in recording.events:
        done.append(done[-1] + isinstance(event, Marked))
    inside = {number for number, operation in enumerate(recording.operations) if isinstance(operation, kind)}
    return {name: [place for place in found if done[place.event] in inside] for name, found in places(recording.events).items()}


def crash(
    recording: Recording,
    workspace: Path,
    summary: Summary,
    *,
    count: int,
    seed: int,
    failures_max: int,
    only: Sequence[str] = CLASSES,
    among: dict[str, list[Place]] | None = None,
) -> None:
    """Make and check that many images of one recording.

    :param failures_max: stops after that many wrong ones.
    :param only: of these classes.
    :param among: of these places; when absent of all there are.
    """
    everywhere = places(recording.events) if among is None else among
    found = {kind: wanted if kind in only else [] for kind, wanted in everywhere.items()}
    for kind, wanted in found.items():
        summary.possible[recording.role, kind] += len(wanted)
    drawn = choose(found, count, random.Random(f"{recording.role}/{seed}"))  # noqa: S311 - images that can be made again
    for number, image in enumerate(images(recording.events, drawn, seed)):
        directory = workspace / f"image-{recording.role}-{number}"
        directory.mkdir()
        try:
            check(recording, image, directory)
        except CrashFailed as failure:
            summary.failures.append(str(failure))
        shutil.rmtree(directory)
        summary.checked[recording.role, image.place.kind] += 1
        if len(summary.failures) >= failures_max:
            return


def hunt(library: Path, workspace: Path, mutant: str, roles: Sequence[str], *, subject: str = CELLS, count: int = 0) -> str:
    """Plant a fault and look at images of the roles, ``count`` of each, until one is wrong: what it showed, or empty when none did."""
    for role in roles:
        recording = record_script(library, workspace, role, subject=subject, mutant=mutant)
        summary = Summary()
        crash(recording, workspace, summary, count=count, seed=1, failures_max=1)
        if summary.failures:
            return summary.failures[0]
    return ""


def workspace_directory() -> tempfile.TemporaryDirectory[str]:
    """A directory for images: in memory where the system has such a place, for what a disk forgets is in the images already."""
    memory = Path("/dev/shm")  # noqa: S108 - only a place; the directory in it has a name of its own
    return tempfile.TemporaryDirectory(prefix="crashes-", dir=memory if memory.is_dir() else None)


def _lines(summary: Summary) -> Iterator[str]:
    for role in ROLES:
        parts = [f"{kind} {summary.checked[role, kind]} of {summary.possible[role, kind]}" for kind in CLASSES]
        yield f"{role:10}" + ", ".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module's text; 0 when every image is right and no class is empty, 2 where recording is impossible."""
    parser = argparse.ArgumentParser(prog="python -m raft.testing.crashes", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=5_000, help="how many to make; 0 for all (default %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="chooses the images and the scripts; drawn and printed when absent")
    parser.add_argument("--subject", default=CELLS, help="which state machine (default %(default)s)")
    parser.add_argument("--only", choices=CLASSES, action="append", help="only this class; may be given more than once")
    options = parser.parse_args(arguments)
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    only = tuple(options.only or CLASSES)
    began, summary = time.monotonic(), Summary()
    with workspace_directory() as workspace:
        try:
            library = build(Path(workspace))
        except NoRecorder as error:
            sys.stdout.write(f"no crash images: {error}\n")
            return 2
        for number, role in enumerate(ROLES):
            share = -(-(options.images - sum(summary.checked.values())) // (len(ROLES) - number)) if options.images else 0
            recording = record_script(library, Path(workspace), role, seed=seed, subject=options.subject)
            crash(recording, Path(workspace), summary, count=share, seed=seed, failures_max=20, only=only)
    sys.stdout.write("\n".join(_lines(summary)) + "\n")
    for failure in summary.failures:
        sys.stdout.write(f"WRONG  {failure}\n")
    total = sum(summary.checked.values())
    sys.stdout.write(f"{total} crash images checked, {len(summary.failures)} wrong, {time.monotonic() - began:.0f} s, seed {seed}\n")
    empty = [kind for kind in only for role in ROLES if not summary.checked[role, kind]]
    return 1 if summary.failures or empty else 0


if __name__ == "__main__":
    sys.exit(main())
