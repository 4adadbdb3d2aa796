"""The tree of the service's errors: the drawing at the head of the module is the classes, and each knows its outcome."""

import inspect
import re

import pytest

from service import errors

CLASSES = {name: value for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}


def drawn(text: str) -> list[tuple[int, str]]:
    """Depth and name of every line of a drawn tree."""
    found = []
    for line in text.splitlines():
        match = re.match(r"^ {4}([│├└─ ]*)([A-Z]\w+)(?: {2,}.*)?$", line)
        if match:
            found.append((len(match[1]) // 4, match[2]))
    return found


def test_the_drawing_is_the_tree() -> None:
    """Each class is drawn once, below its base class."""
    tree = drawn(errors.__doc__ or "")
    assert sorted(name for _, name in tree) == sorted(CLASSES)
    path: list[str] = []
    for depth, name in tree:
        path[depth:] = [name]
        expected = path[depth - 1] if depth else "Exception"
        assert CLASSES[name].__base__.__name__ == expected, name


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_outcome_and_exit_code(name: str) -> None:
    """Only an unknown outcome is unknown, and every error has a text and an exit code a command line can end with."""
    value = CLASSES[name]
    assert value.outcome == (errors.UNKNOWN if issubclass(value, errors.OutcomeUnknown) else errors.REJECTED)
    assert 1 <= value.exit_code <= 7
    assert value.__doc__
