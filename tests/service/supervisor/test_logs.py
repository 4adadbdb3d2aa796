"""The form of log lines."""

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from service import logs


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """As on a terminal."""
        return True


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    """Give the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json_lines_hold_the_documented_keys() -> None:
    """One object a line; extra fields never replace the documented ones; a traceback stays inside its line."""
    stream = io.StringIO()
    logs.configure("info", "auto", "n1", stream)
    log = logging.getLogger("service.test")
    log.info("two\nlines %d", 2, extra={"fields": {"term": 3, "node": "other"}})
    log.error("failed", exc_info=RuntimeError("inside"))
    log.debug("not written")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("ts"))
    assert first == {"level": "info", "logger": "service.test", "msg": "two\nlines 2", "node": "n1", "term": 3}
    assert "RuntimeError: inside" in second["exception"]


@pytest.mark.parametrize(("form", "stream"), [("auto", Terminal()), ("text", io.StringIO())])
def test_text_lines_are_for_people(form: str, stream: io.StringIO) -> None:
    """On a terminal, or when asked for, a line is text with its extra fields at the end."""
    logs.configure("debug", form, "n1", stream)
    logging.getLogger("a").debug("hello", extra={"fields": {"term": 3}})
    logging.getLogger("a").error("broken", exc_info=ValueError("reason"))
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("DEBUG   n1 a: hello term=3")
    assert lines[-1] == "ValueError: reason"


def test_configuring_again_replaces_the_first() -> None:
    """No line is written twice."""
    first, second = io.StringIO(), io.StringIO()
    logs.configure("info", "json", "n1", first)
    logs.configure("warning", "json", "n1", second)
    logging.getLogger("a").info("quiet")
    logging.getLogger("a").warning("loud")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_another_level_leaves_listeners_alone() -> None:
    """What is written follows the new level; who listens hears what it heard, and the level stays when it has gone."""
    stream, heard = io.StringIO(), []
    logs.configure("info", "json", "n1", stream)
    listener = logs.Listener(lambda record: heard.append(record.getMessage()))
    listener.listen(logging.DEBUG)
    logs.set_level("error")
    logging.getLogger("a").warning("loud")
    assert (heard, stream.getvalue()) == (["loud"], "")
    logging.getLogger("a").debug("quiet")
    assert heard == ["loud", "quiet"]
    logs.set_level("warning")
    listener.listen(0)
    logging.getLogger("a").info("no")
    logging.getLogger("a").warning("yes")
    assert json.loads(stream.getvalue())["msg"] == "yes"
