"""The checker of client histories: it must find what is wrong in each planted history, and nothing in those that are right."""

import random
import threading
from collections.abc import Iterator
from itertools import permutations
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from raft.testing.linearizability import Anomaly, History, Kind, Operation, anomalies


def write(value: str | None, called: float, returned: float = inf, key: str = "k") -> Operation:
    """A write."""
    return Operation("w", key, Kind.WRITE, value, called, returned)


def read(value: str | None, called: float, returned: float, key: str = "k") -> Operation:
    """A read that was answered."""
    return Operation("r", key, Kind.READ, value, called, returned)


RIGHT = {
    "nothing": [],
    "in turn": [read(None, 0, 1), write("a", 2, 3), read("a", 4, 5), write("b", 6, 7), read("b", 8, 9)],
    "a write that is seen before it is acknowledged": [write("a", 0, 9), read("a", 1, 2), read("a", 3, 4)],
    "a write that is not seen until it is acknowledged": [write("a", 0, 9), read(None, 1, 2), read("a", 3, 4), read("a", 10, 11)],
    "two writes at once, the one called later first": [write("a", 0, 9), write("b", 1, 8), read("b", 2, 3), read("a", 4, 5), read("a", 10, 11)],
    "a deletion": [write("a", 0, 1), write(None, 2, 3), read(None, 4, 5)],
    "touching intervals count as concurrent": [write("a", 0, 1), write("b", 1, 2), read("a", 3, 4)],
    "an unknown write that never happened": [write("a", 0, 1), write("b", 2), read("a", 3, 4), read("a", 5, 6)],
    "an unknown write that happened at once": [write("b", 0), read("b", 1, 2), write("a", 3, 4), read("a", 5, 6)],
    "an unknown write that happened late": [write("b", 0), write("a", 1, 2), read("a", 3, 4), read("b", 5, 6), read("b", 7, 8)],
    "two unknown writes of one value": [write("b", 0), write("b", 1), write("a", 2, 3), read("b", 4, 5), write("c", 6, 7), read("b", 8, 9)],
    "keys apart": [write("a", 0, 1, key="x"), read(None, 2, 3, key="y")],
}
WRONG = {
    "a lost write": [write("a", 0, 1), read(None, 2, 3)],
    "a stale read": [write("a", 0, 1), write("b", 2, 3), read("a", 4, 5)],
    "a value that nobody wrote": [write("a", 0, 1), read("x", 2, 3)],
    "a value from the future": [read("a", 0, 1), write("a", 2, 3)],
    "new, then old again": [write("a", 0, 1), write("b", 2, 9), read("b", 3, 4), read("a", 5, 6)],
    "two readers that see two writes in different orders": [
        write("a", 0, 1),
        write("b", 0, 1),
        read("a", 2, 3),
        read("b", 4, 5),
        read("a", 6, 7),
    ],
    "a deleted key that comes back": [write("a", 0, 1), write(None, 2, 3), read("a", 4, 5)],
    "an unknown write that was seen and is gone": [write("a", 0, 1), write("b", 2), read("b", 3, 4), read("a", 5, 6)],
    "an unknown write that happened before it was called": [read("b", 0, 1), write("b", 2)],
    "an unknown write that happened twice": [write("b", 0), read("b", 1, 2), write("a", 3, 4), read("b", 5, 6)],
    "one key of two": [write("a", 0, 1, key="x"), read("a", 2, 3, key="x"), write("a", 0, 1), read(None, 2, 3)],
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_histories(name: str) -> None:
    """A history that one copy of the data could have produced is no anomaly."""
    assert anomalies(RIGHT[name]) == []


@pytest.mark.parametrize("name", WRONG)
def test_planted_wrong_histories(name: str) -> None:
    """Each planted fault is found, at its key."""
    assert [anomaly.key for anomaly in anomalies(WRONG[name])] == ["k"]


def test_the_initial_value_counts() -> None:
    """What the keys held before the first operation is what may be read first."""
    assert anomalies([read("a", 0, 1)], initial="a") == []
    assert len(anomalies([read(None, 0, 1)], initial="a")) == 1


def test_an_anomaly_tells_what_is_stuck() -> None:
    """The text names the key, the value that should have been read, and the operation that does not fit."""
    [anomaly] = anomalies(WRONG["a stale read"])
    assert anomaly == Anomaly("k", 2, "b", (read("a", 4, 5),))
    assert str(anomaly) == (
        "k is not linearizable: after 2 operations it holds 'b', and next can come none of\n"
        "  read of 'a' by r, called at 4.000000, answered at 5.000000"
    )


def judged_by_trying_everything(operations: list[Operation]) -> bool:
    """The definition, word for word: some order of the answered operations and some of the others respects time and values."""
    unknown = [one for one in operations if one.returned == inf]
    answered = [one for one in operations if one.returned != inf]
    for chosen in range(1 << len(unknown)):
        for order in permutations([*answered, *(one for number, one in enumerate(unknown) if chosen >> number & 1)]):
            if all(later.returned >= earlier.called for place, later in enumerate(order) for earlier in order[:place]) and _values_fit(order):
                return True
    return False


def _values_fit(order: tuple[Operation, ...]) -> bool:
    held = None
    for one in order:
        if one.kind is Kind.WRITE:
            held = one.value
        elif one.value != held:
            return False
    return True


TIMES = some.integers(0, 6)
VALUES = some.sampled_from(["a", "b", None])
OPERATIONS = some.one_of(
    some.builds(lambda value, at, length: write(value, at, at + length), VALUES, TIMES, TIMES),
    some.builds(write, VALUES, TIMES),
    some.builds(lambda value, at, length: read(value, at, at + length), VALUES, TIMES, TIMES),
)


@settings(max_examples=600, deadline=None)
@given(some.lists(OPERATIONS, max_size=6))
def test_same_verdict_as_trying_every_order(operations: list[Operation]) -> None:
    """On any small history the search agrees with the definition."""
    assert (anomalies(operations) == []) is judged_by_trying_everything(operations)


def long_history(seed: int, count: int) -> list[Operation]:
    """Eight clients at one register for a long time, one write in twenty of unknown outcome; each operation happens at a moment in its interval."""
    dice = random.Random(seed)
    moments: list[tuple[float, int, Operation]] = []
    for client in range(8):
        now = dice.random()
        for number in range(count // 8):
            called, happened, returned = now, now + dice.random(), now + 1 + dice.random()
            now = returned + dice.random()
            if dice.random() < 0.5:
                moments.append((happened, client, Operation(f"c{client}", "k", Kind.READ, None, called, returned)))
            else:
                end, late = (inf, dice.random() * 30) if dice.random() < 0.05 else (returned, 0.0)
                moments.append((happened + late, client, Operation(f"c{client}", "k", Kind.WRITE, f"{client}-{number}", called, end)))
    held, made = None, []
    for _happened, _client, one in sorted(moments, key=lambda moment: moment[:2]):
        held = one.value if one.kind is Kind.WRITE else held
        made.append(one._replace(value=held))
    return made


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_long_histories(seed: int) -> None:
    """Thousands of operations of eight clients take moments, unknown outcomes among them; one stale read among them is found."""
    made = long_history(seed, 4_000)
    assert anomalies(made) == []
    late = next(place for place, one in enumerate(made) if one.kind is Kind.READ and place > len(made) // 2)
    broken = [one if place != late else one._replace(value=made[len(made) // 4].value) for place, one in enumerate(made)]
    assert len(anomalies(broken)) == 1


def clock() -> Iterator[float]:
    """0, 1, 2, …"""
    now = 0.0
    while True:
        yield now
        now += 1


def test_recording() -> None:
    """The history holds what was told of each operation: unknown writes without an end, unanswered reads and failed writes not at all."""
    ticking = clock()
    history = History(lambda: next(ticking))
    acknowledged, failed = history.write("c", "k", "a"), history.write("c", "k", "b")
    acknowledged.succeeded()
    failed.failed()
    history.write("c", "k", "c")
    answered, _unanswered = history.read("c", "k"), history.read("c", "k")
    answered.found("a")
    assert history.operations() == [
        Operation("c", "k", Kind.WRITE, "a", 0, 2),
        Operation("c", "k", Kind.WRITE, "c", 3, inf),
        Operation("c", "k", Kind.READ, "a", 4, 6),
    ]
    for ended in (acknowledged, failed):
        for again in (ended.succeeded, ended.failed):
            with pytest.raises(RuntimeError, match="has ended before"):
                again()


@pytest.mark.parametrize("stale", [False, True])
def test_threads_at_a_real_register(stale: bool) -> None:
    """Threads at a variable with a lock are linearizable; one whose readers now and then get the value of before is not."""
    history, lock = History(), threading.Lock()
    held = ["second", "first"]
    for value in reversed(held):
        history.write("before", "k", value).succeeded()

    def work(number: int) -> None:
        dice = random.Random(number)
        for count in range(100):
            if number % 2:
                writing = history.write(f"c{number}", "k", f"{number}-{count}")
                with lock:
                    held[:] = [f"{number}-{count}", held[0]]
                writing.succeeded()
            else:
                reading = history.read(f"c{number}", "k")
                with lock:
                    found = held[1 if stale and dice.random() < 0.2 else 0]
                reading.found(found)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(history.operations()) == 402
    assert bool(anomalies(history.operations())) is stale
