"""Fingerprints of this node's state at the indexes of :class:`service.domain.commands.CheckState`, taken beside everything else.

The thread that applies entries opens a read transaction right behind such an entry, which takes a millisecond. The digest of what that holds still is
computed in a thread of its own, outside of the interpreter lock (:mod:`service.store.digest`), while writes go on.
"""

import logging
import threading
import time
from collections.abc import Callable
from enum import StrEnum

import msgspec

from service.errors import StateUnreadable
from service.store.digest import Held

log = logging.getLogger(__name__)

KEPT = 16


class Stage(StrEnum):
    """How far a node is with a digest."""

    BEHIND = "behind"
    COMPUTING = "computing"
    DONE = "done"
    MISSED = "missed"
    SUPERSEDED = "superseded"
    FAILED = "failed"
    UNREACHABLE = "unreachable"


class StateDigest(msgspec.Struct, frozen=True):
    """A node's answer about one index.

    :param stage: ``behind``: it has not applied that entry yet; ``missed``: it has, but restarted since, or got past it by a snapshot;
        ``superseded``: a later check took the place of this one.
    :param keys: how many there are; like ``sha256`` only when it is done.
    :param problem: why there is no digest.
    """

    stage: Stage
    keys: int = 0
    sha256: str = ""
    seconds: float = 0.0
    problem: str = ""


class Digests:
    """Takes digests, one at a time, the latest wanted first: a check costs a node the reading of its state once, however many ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[int, StateDigest] = {}
        self._wanted = 0
        self._stopped = False
        self._thread: threading.Thread | None = None

    def begin(self, index: int, hold: Callable[[], Held]) -> None:
        """The entry at ``index`` has just been applied, and nothing behind it. On the thread that applies entries; it never raises.

        :param hold: opens the state as it is now.
        """
        try:
            held = hold()
        except StateUnreadable as error:
            self._keep(index, StateDigest(Stage.FAILED, problem=str(error)))
            return
        with self._lock:
            if self._stopped:
                held.close()
                return
            self._wanted = index
            self._thread = threading.Thread(target=self._run, args=(index, held), name="kvorum-digest", daemon=True)
            self._thread.start()

    def expect(self, index: int) -> None:
        """The entry at ``index`` is about to be applied: who asks from now on is told that its digest is on the way."""
        self._keep(index, StateDigest(Stage.COMPUTING))

    def look(self, index: int, applied: int) -> StateDigest:
        """What is known about an index.

        :param applied: how far the state has got; asked for before this call.
        """
        with self._lock:
            found = self._found.get(index)
        return found or StateDigest(Stage.BEHIND if applied < index else Stage.MISSED)

    def stop(self) -> None:
        """Break off what is under way and wait for its end. Idempotent."""
        with self._lock:
            self._stopped = True
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self, index: int, held: Held) -> None:
        began = time.monotonic()
        try:
            digest = held.digest(lambda: self._wanted == index and not self._stopped)
            if digest is None:
                found = StateDigest(Stage.SUPERSEDED, problem=f"a later check took its place, or the node is stopping (index {self._wanted})")
            elif digest.index != index:
                found = StateDigest(Stage.FAILED, problem=f"the state was held at index {digest.index}")
            else:
                found = StateDigest(Stage.DONE, digest.keys, digest.sha256, round(time.monotonic() - began, 3))
        except StateUnreadable as error:
            found = StateDigest(Stage.FAILED, problem=str(error))
        finally:
            held.close()
        log.info("digest of the state at index %d: %s %s", index, found.stage, found.sha256 or found.problem)
        self._keep(index, found)

    def _keep(self, index: int, found: StateDigest) -> None:
        with self._lock:
            self._found[index] = found
            while len(self._found) > KEPT:
                del self._found[min(self._found)]
