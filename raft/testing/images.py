"""What a crash can leave on disk, made from a recording: every file as it may be found at the next start.

Three classes:

* ``kill``: the process ends between two calls. The system keeps what was written, synced or not.
* ``torn``: it ends in the middle of a write, of which a multiple of 512 bytes was done.
* ``power``: what was not synced is gone, whole or in part: each sector of 512 bytes holds what some prefix of the unsynced writes left in it,
  and names are those of some moment since their directory was synced. Nothing is assumed to reach the disk in order but the changes of names.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from raft.testing.recording import Closed, Event, MadeDirectory, Marked, Opened, Removed, Renamed, Synced, Truncated, Wrote

SECTOR_BYTES = 512
KILL, TORN, POWER = "kill", "torn", "power"
CLASSES = (KILL, TORN, POWER)

POWER_VARIANTS = ("nothing", "few", "half", "most", "names only", "data only")
"""How much of what was unsynced is found after a power loss."""

_CHANCES = {"nothing": 0.0, "few": 0.1, "half": 0.5, "most": 0.9, "names only": 0.0, "data only": 1.0}

Files = dict[str, bytes | None]
"""Content by name; None for a directory."""


class Place(NamedTuple):
    """Where a recording is cut.

    :param event: how many events have happened.
    :param detail: bytes of the next event that were written for a torn image; the variant's number for a power loss.
    """

    kind: str
    event: int
    detail: int = 0


class Image(NamedTuple):
    """What is found, and how much had been acknowledged: the number of marks."""

    place: Place
    files: Files
    marks: int


@dataclass(slots=True, eq=False)
class _File:
    """One file, whatever its names: what is durable, what was written since, and what a living system shows."""

    durable: bytearray = field(default_factory=bytearray)
    current: bytearray = field(default_factory=bytearray)
    pending: list[Wrote | Truncated] = field(default_factory=list)

    def change(self, event: Wrote | Truncated) -> None:
        _change(self.current, event)
        self.pending.append(event)

    def sync(self) -> None:
        for event in self.pending:
            _change(self.durable, event)
        self.pending.clear()

    def fail_to_sync(self) -> None:
        """The system shows what was written, takes it for clean, and will never write it: a later sync succeeds without it."""
        self.pending.clear()

    def after_power_loss(self, chance: float, chosen: random.Random) -> bytes:
        """Sector by sector a prefix of the pending writes; of the truncations any. Nothing of them for chance 0, all for 1."""
        if chance == 0.0:
            return bytes(self.durable)
        found = bytearray(self.durable)
        reached: dict[int, int] = {}
        for number, event in enumerate(self.pending):
            if isinstance(event, Truncated):
                if chosen.random() < chance:
                    _change(found, event)
                continue
            for piece in _sectors(event):
                sector = piece.offset // SECTOR_BYTES
                if sector not in reached:
                    reached[sector] = len(self.pending) if chosen.random() < chance else number + chosen.randrange(2)
                if number < reached[sector]:
                    _change(found, piece)
        return bytes(found)


class Playback:
    """The files as they stand after each event of a recording."""

    def __init__(self) -> None:
        self.marks = 0
        self._names: dict[str, _File | None] = {}
        self._durable_names: dict[str, _File | None] = {}
        self._pending_names: list[dict[str, _File | None]] = []
        self._open: dict[int, _File | str] = {}

    def play(self, event: Event) -> None:
        """One event further."""
        match event:
            case Marked():
                self.marks += 1
            case Opened():
                self._opened(event)
            case Closed():
                self._open.pop(event.descriptor, None)
            case Wrote() | Truncated():
                self.file(event.descriptor).change(event)
            case Synced():
                self._synced(event)
            case Renamed():
                self._rename(event.path, event.to)
            case Removed():
                self._name(event.path, gone=True)
            case MadeDirectory():
                self._name(event.path, None)

    def file(self, descriptor: int) -> _File:
        """The open file behind a descriptor."""
        found = self._open[descriptor]
        if isinstance(found, str):
            raise TypeError(f"{found} is a directory")
        return found

    def now(self) -> Files:
        """What a living system shows."""
        return {path: None if file is None else bytes(file.current) for path, file in self._names.items()}

    def after_kill(self, torn: Wrote | None = None) -> Files:
        """What is left when the process ends now, in the middle of a write if one is given."""
        files = self.now()
        if torn is not None:
            for path, file in self._names.items():
                if file is self._open[torn.descriptor] and file is not None:
                    content = bytearray(file.current)
                    _change(content, torn)
                    files[path] = bytes(content)
        return files

    def after_power_loss(self, variant: str, chosen: random.Random) -> Files:
        """What is left when the power goes now."""
        chance = _CHANCES[variant]
        moments = [self._durable_names, *self._pending_names]
        if variant == "names only":
            names = moments[-1]
        elif variant in {"nothing", "data only"}:
            names = moments[0]
        else:
            names = chosen.choice(moments)
        return {path: None if file is None else file.after_power_loss(chance, chosen) for path, file in names.items()}

    @property
    def unsynced(self) -> bool:
        """Whether a power loss would take anything."""
        return bool(self._pending_names) or any(file is not None and file.pending for file in self._names.values())

    def _opened(self, event: Opened) -> None:
        if event.path not in self._names and event.creates:
            self._name(event.path, _File())
        found = self._names.get(event.path)
        if found is None:
            self._open[event.descriptor] = event.path
            return
        self._open[event.descriptor] = found
        if event.empties:
            found.change(Truncated(event.descriptor, 0))

    def _synced(self, event: Synced) -> None:
        found = self._open[event.descriptor]
        if isinstance(found, _File):
            if event.failed:
                found.fail_to_sync()
            else:
                found.sync()
        elif not event.failed:
            self._sync_names(found)

    def _sync_names(self, directory: str) -> None:
        # Names are durable in the order in which they changed, so those of other directories that came before go along.
        last = 0
        for number, (before, after) in enumerate(zip([self._durable_names, *self._pending_names], self._pending_names, strict=False), 1):
            if any(_parent(path) == directory for path in before.keys() ^ after.keys() | _moved(before, after)):
                last = number
        if last:
            self._durable_names = self._pending_names[last - 1]
            del self._pending_names[:last]

    def _name(self, path: str, file: _File | None = None, *, gone: bool = False) -> None:
        if gone:
            self._names.pop(path, None)
        else:
            self._names[path] = file
        self._pending_names.append(dict(self._names))

    def _rename(self, path: str, to: str) -> None:
        self._names[to] = self._names.pop(path)
        self._pending_names.append(dict(self._names))


def places(events: Sequence[Event]) -> dict[str, list[Place]]:
    """Every place where the recording can be cut, by class; places that leave the same as their neighbour are left out."""
    found: dict[str, list[Place]] = {kind: [] for kind in CLASSES}
    playback = Playback()
    changed = True
    for number, event in enumerate(events):
        if changed or isinstance(event, Marked):
            found[KILL].append(Place(KILL, number))
        if isinstance(event, Wrote):
            found[TORN] += [Place(TORN, number, size) for size in range(SECTOR_BYTES, len(event.data), SECTOR_BYTES)]
        if (changed or isinstance(event, Marked | Synced)) and playback.unsynced:
            found[POWER] += [Place(POWER, number, variant) for variant in range(len(POWER_VARIANTS))]
        changed = not isinstance(event, Closed | Synced) and not (isinstance(event, Opened) and not event.creates)
        playback.play(event)
    found[KILL].append(Place(KILL, len(events)))
    return found


def choose(found: dict[str, list[Place]], count: int, chosen: random.Random) -> list[Place]:
    """That many places, as evenly from the classes as they allow; all when ``count`` is 0."""
    if not count:
        return sorted((place for kind in CLASSES for place in found[kind]), key=lambda place: place.event)
    picked: list[Place] = []
    for position, kind in enumerate(sorted(CLASSES, key=lambda kind: len(found[kind]))):
        share = (count - len(picked)) // (len(CLASSES) - position)
        picked += chosen.sample(found[kind], min(share, len(found[kind])))
    return sorted(picked, key=lambda place: place.event)


def images(events: Sequence[Event], wanted: Sequence[Place], seed: int) -> Iterator[Image]:
    """The images of the places, which are in order. Each power loss draws from a source of its own, so an image depends on seed and place alone."""
    playback, played = Playback(), 0
    for place in wanted:
        for event in events[played : place.event]:
            playback.play(event)
        played = place.event
        if place.kind == POWER:
            drawn = random.Random(f"{seed}/{place.event}/{place.detail}")  # noqa: S311 - an image that can be made again
            yield Image(place, playback.after_power_loss(POWER_VARIANTS[place.detail], drawn), playback.marks)
            continue
        torn = None
        if place.kind == TORN:
            event = events[place.event]
            if not isinstance(event, Wrote):
                raise TypeError(f"event {place.event} is no write")
            torn = event.__class__(event.descriptor, event.offset, event.data[: place.detail])
        yield Image(place, playback.after_kill(torn), playback.marks)


def tally(wanted: Sequence[Place]) -> Counter[str]:
    """How many of each class."""
    return Counter(place.kind for place in wanted)


def _change(content: bytearray, event: Wrote | Truncated) -> None:
    if isinstance(event, Truncated):
        del content[event.length :]
        content.extend(bytes(event.length - len(content)))
        return
    content.extend(bytes(max(0, event.offset - len(content))))
    content[event.offset : event.offset + len(event.data)] = event.data


def _sectors(event: Wrote) -> Iterator[Wrote]:
    """A write, cut where sectors begin."""
    begin, end = event.offset, event.offset + len(event.data)
    while begin < end:
        until = min(end, (begin // SECTOR_BYTES + 1) * SECTOR_BYTES)
        yield Wrote(event.descriptor, begin, event.data[begin - event.offset : until - event.offset])
        begin = until


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _moved(before: dict[str, _File | None], after: dict[str, _File | None]) -> set[str]:
    return {path for path in before.keys() & after.keys() if before[path] is not after[path]}
