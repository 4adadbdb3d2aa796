"""The page in which the agent shows its lease to the workers."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.ipc.page import LeasePage, LeaseView

FAR = 2**62


@pytest.fixture
def page() -> Iterator[LeasePage]:
    """The agent's end."""
    made = LeasePage()
    yield made
    made.close()


def test_a_worker_sees_what_the_agent_tells(page: LeasePage) -> None:
    """Nothing before the first lease, then always the last commit index that was told, also in another process; nothing once it ends."""
    view = LeaseView(page.path)
    assert view.index() is None
    for commit in (7, 8, 2**63):
        page.publish(FAR, commit)
        assert view.index() == commit
    elsewhere = f"from service.ipc.page import LeaseView; print(LeaseView({str(page.path)!r}).index())"
    assert subprocess.run([sys.executable, "-c", elsewhere], capture_output=True, text=True, check=True).stdout == f"{2**63}\n"
    page.publish(0, 9)
    assert view.index() is None
    view.close()


def test_a_lease_ends_by_the_clock(page: LeasePage) -> None:
    """The agent need not be there any more to end it."""
    view = LeaseView(page.path)
    page.publish(time.clock_gettime_ns(time.CLOCK_BOOTTIME) - 1, 7)
    assert view.index() is None
    page.publish(time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 60_000_000_000, 7)
    assert view.index() == 7


@pytest.mark.parametrize("words", [1, 2, 3])
def test_a_reader_in_the_middle_of_a_change_sees_nothing(page: LeasePage, words: int) -> None:
    """Whatever part of a change is there, it is not taken for the whole."""
    view = LeaseView(page.path)
    page.publish(FAR, 7)
    for number, value in [(0, page._words[0] + 1), (1, FAR + 1), (2, 8)][:words]:
        page._words[number] = value
    assert view.index() is None


def test_a_change_while_it_is_read_is_noticed(page: LeasePage) -> None:
    """A change that begins and ends between the first and the last look at the page makes the reader see nothing."""

    class Watched:
        """The page's words; the second look is followed by a whole change."""

        looks = 0

        def __getitem__(self, number: int) -> int:
            self.looks += 1
            value: int = words[number]
            if self.looks == 2:
                page.publish(FAR, 8)
            return value

    view = LeaseView(page.path)
    page.publish(FAR, 7)
    words, view._words = view._words, Watched()  # type: ignore[assignment]  # stands in for it
    assert view.index() is None
    assert view.index() == 8


def test_a_closed_page_tells_of_no_lease() -> None:
    """Whoever has it open sees that it ended; nobody new finds it."""
    page = LeasePage()
    page.publish(FAR, 7)
    view, path = LeaseView(page.path), page.path
    page.close()
    page.close()
    assert view.index() is None
    with pytest.raises(OSError, match=r"No such file|Permission denied"):
        LeaseView(Path(f"{path}0000"))
