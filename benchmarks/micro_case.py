"""What a row of the micro benchmarks is; see :mod:`micro`."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

Run = Callable[[int], object]
"""Makes that many calls of what is measured."""


class Case(NamedTuple):
    """One row.

    :ivar prepare: makes what is needed in an empty directory, gives what is measured, and takes it down again.
    :ivar operations: of one call.
    """

    name: str
    prepare: Callable[[Path], AbstractContextManager[Run]]
    operations: int = 1


def plain(call: Callable[[], object]) -> Callable[[Path], AbstractContextManager[Run]]:
    """What needs nothing but to be called."""

    @contextmanager
    def prepare(_: Path) -> Iterator[Run]:
        yield repeated(call)

    return prepare


def repeated(call: Callable[[], object]) -> Run:
    """As many calls as wanted."""

    def run(calls: int) -> None:
        for _ in range(calls):
            call()

    return run


def over(call: Callable[[int], object], numbers: Iterable[int]) -> Run:
    """As many calls as wanted, each with a number that no other had."""
    remaining = iter(numbers)

    def run(calls: int) -> None:
        for _ in range(calls):
            call(next(remaining))

    return run
