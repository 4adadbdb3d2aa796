"""Helpers for the state machine's tests: real SQLite files in a temporary directory."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.domain import commands, results
from service.domain.commands import Command
from service.store.machine import KvMachine
from service.store.reader import Reader

EntryOf = Callable[[Command | None], bytes | None]
STAMP_MS = 1_700_000_000_000


class Node:
    """A state machine with its reader, numbering entries by itself."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.machine = KvMachine(directory)
        self.reader = Reader(directory)
        self.term = 1

    def apply(self, *batch: Command | None) -> list[bool | None]:
        """Apply a batch; for each entry whether it was ok, None for Raft's own."""
        index = self.machine.applied()[0]
        entries = [(index + 1 + offset, self.term, entry(command)) for offset, command in enumerate(batch)]
        return [results.decode(result).ok if result else None for result in self.machine.apply(entries)]

    def close(self) -> None:
        """Release the files."""
        self.reader.close()
        self.machine.close()


def entry(command: Command | None) -> bytes | None:
    """The bytes of a stamped entry."""
    return None if command is None else commands.stamp(commands.encode(command), STAMP_MS)


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[Callable[[str], Node]]:
    """Makes nodes, each in a directory of its own, and closes them."""
    nodes: list[Node] = []

    def make(name: str) -> Node:
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        nodes.append(Node(directory))
        return nodes[-1]

    yield make
    for made in nodes:
        made.close()


@pytest.fixture
def node(make_node: Callable[[str], Node]) -> Node:
    """One fresh node."""
    return make_node("node")


@pytest.fixture
def entry_of() -> EntryOf:
    """The function that turns a command into the bytes of an entry."""
    return entry
