"""A program for the tests: writes batches to a log for as long as it lives and says after each what is durable.

Run as ``python writer.py DIRECTORY SEED``. A line of its output, ``term first last compacted``, is an acknowledgement.
"""

import random
import sys
from pathlib import Path

from raft.core.model import Boundary, Entry, EntryKind, HardState
from raft.ports import WriteBatch
from raft.storage.sqlite import SqliteLog


def payload(index: int, term: int) -> bytes:
    """The data of an entry; what was lost or mixed up shows."""
    return f"{index}/{term};".encode() * (1 + index * 7 % 40)


def main(directory: Path, seed: int) -> None:
    """Append, replace and compact at random; never returns."""
    random_source = random.Random(seed)
    store = SqliteLog(directory)
    boundary, entries = store.load()
    last = entries[-1].index if entries else boundary.index
    term = store.hard_state().term
    compacted = boundary.index
    terms = {entry.index: entry.term for entry in entries}
    while True:
        term += random_source.random() < 0.1
        first = last + 1 if random_source.random() < 0.9 else random_source.randint(max(compacted + 1, last - 5), last + 1)
        last = first + random_source.randrange(1, 60) - 1
        batch = tuple(Entry(index, term, EntryKind.COMMAND, payload(index, term)) for index in range(first, last + 1))
        store.write(WriteBatch(HardState(term, f"node-{term}", compacted), batch))
        terms.update((entry.index, entry.term) for entry in batch)
        if last - compacted > 1_000:
            compacted = last - random_source.randrange(0, 200)
            store.compact(Boundary(compacted, terms[compacted]))
        sys.stdout.write(f"{term} {first} {last} {compacted}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
