"""Log lines of every process of a node: on standard error, one a line.

Text on a terminal, otherwise one JSON object with ``ts`` (RFC 3339, UTC), ``level``, ``logger``, ``msg``, ``node``, and the ``extra`` fields that
a call adds as ``extra={"fields": {...}}``. Values of keys and tokens are never logged; callers name sizes and counts instead.
"""

import json
import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TextIO

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(level: str, form: str, node: str, stream: TextIO | None = None) -> None:
    """Send everything that is logged in this process to one stream. Calling it again replaces what was set before.

    :param level: ``debug``, ``info``, ``warning`` or ``error``.
    :param form: ``auto``, ``json`` or ``text``; auto is text when the stream is a terminal.
    :param node: the name of the node, part of every line.
    :param stream: standard error when left out.
    """
    target = sys.stderr if stream is None else stream
    text = form == "text" or (form == "auto" and target.isatty())
    handler = logging.StreamHandler(target)
    handler.setFormatter(TextLines(node) if text else JsonLines(node))
    handler.setLevel(_LEVELS[level])
    root = logging.getLogger()
    listening = [old for old in root.handlers if isinstance(old, Listener)]
    for old in root.handlers[:]:
        if old not in listening:
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(min([_LEVELS[level], *(old.level for old in listening)]))


class Listener(logging.Handler):
    """Hears what is logged in this process besides the stream, also what is below the stream's level.

    :param hear: called with every record of the level or above, by the thread that logs; it must not log.
    """

    def __init__(self, hear: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self._hear = hear

    def listen(self, level: int) -> None:
        """Hear what is of a level of :mod:`logging` or above, from now on; 0 for nothing."""
        root = logging.getLogger()
        root.removeHandler(self)
        if level:
            self.setLevel(level)
            root.addHandler(self)
        root.setLevel(min((one.level for one in root.handlers if one.level), default=logging.INFO))

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on."""
        try:
            self._hear(record)
        except Exception:  # noqa: BLE001 - as every handler does
            self.handleError(record)


def set_level(level: str) -> None:
    """Write what is as severe as ``level`` or more from now on: ``debug``, ``info``, ``warning`` or ``error``. Listeners hear what they heard."""
    root = logging.getLogger()
    for one in root.handlers:
        if isinstance(one.formatter, JsonLines | TextLines):
            one.setLevel(_LEVELS[level])
    root.setLevel(min([_LEVELS[level], *(one.level for one in root.handlers if isinstance(one, Listener))]))


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    found = getattr(record, "fields", None)
    return found if isinstance(found, Mapping) else {}


class JsonLines(logging.Formatter):
    """One JSON object a line.

    :param node: the name of the node.
    """

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "ts": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
            "node": self._node,
        }
        line |= {name: value for name, value in _fields(record).items() if name not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextLines(logging.Formatter):
    """``time LEVEL node logger: message field=value``, for people.

    :param node: the name of the node.
    """

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        """The line; a traceback follows on lines of its own."""
        extra = "".join(f" {name}={value}" for name, value in _fields(record).items())
        message = record.getMessage().replace("\n", "\n    ")
        line = f"{_time(record)} {record.levelname:<7} {self._node} {record.name}: {message}{extra}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
