"""What happened in a schedule: the last steps for people, a digest of every step for machines."""

import hashlib
from collections import deque
from collections.abc import Callable


class Violation(Exception):
    """A property of Raft did not hold.

    :param rule: the property's name, as in :mod:`raft.testing.checkers`.
    :param detail: who did what, and what was expected.
    """

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule
        self.detail = detail


class Trace:
    """The steps of one schedule.

    :param digest: whether every step goes into a digest; costs more than the simulation itself.
    :param keep: how many of the last steps are kept for people.
    :param echo: called with each step as a line of text; None for silence.
    """

    def __init__(self, *, digest: bool = False, keep: int = 120, echo: Callable[[str], object] | None = None) -> None:
        self._tail: deque[tuple[int, str, str, object]] = deque(maxlen=keep)
        self._digest = hashlib.blake2b(digest_size=16) if digest else None
        self._echo = echo
        self.steps = 0

    def record(self, now_ms: int, node: str, what: str, detail: object = "") -> None:
        """Note one step. ``detail`` must not change afterwards; it becomes text only when somebody reads it."""
        self.steps += 1
        step = (now_ms, node, what, detail)
        self._tail.append(step)
        if self._digest is not None:
            self._digest.update(repr(step).encode())
        if self._echo is not None:
            self._echo(_line(step))

    def digest(self) -> str:
        """The digest of all steps so far, in hexadecimal; empty when none was asked for."""
        return "" if self._digest is None else self._digest.hexdigest()

    def tail(self) -> str:
        """The last steps, one a line."""
        return "\n".join(_line(step) for step in self._tail)


def _line(step: tuple[int, str, str, object]) -> str:
    now_ms, node, what, detail = step
    return f"{now_ms:>8} ms  {node:<4} {what:<10} {detail}"
