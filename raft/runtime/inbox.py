"""The queue between the event loop and one worker thread: work that can be joined, and tasks that can't, in one order."""

from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

Work = TypeVar("Work")


@dataclass(frozen=True, slots=True)
class Task:
    """Something to run on the thread, between the work before it and the work after it.

    :param done: gets the result on the loop, or the exception that ``run`` raised.
    """

    run: Callable[[], object]
    done: Callable[[object], None]


class Inbox(Generic[Work]):
    """Filled on the loop, emptied by one thread."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Work | Task | None] = SimpleQueue()
        self._ahead: list[Work | Task | None] = []  # taken from the queue, and not part of the last batch

    def put(self, item: Work | Task) -> None:
        """Add work or a task."""
        self._queue.put(item)

    def close(self) -> None:
        """Everything before this is still done; then :meth:`take` gives None."""
        self._queue.put(None)

    def take(self, limit: int) -> list[Work] | Task | None:
        """Wait for something to do.

        :param limit: how much work to join at most.
        :returns: a task, or all the work that has gathered up to the next task, or None at the end.
        """
        item = self._ahead.pop() if self._ahead else self._queue.get()
        if item is None or isinstance(item, Task):
            return item
        batch = [item]
        while len(batch) < limit:
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
            if item is None or isinstance(item, Task):
                self._ahead.append(item)
                break
            batch.append(item)
        return batch
