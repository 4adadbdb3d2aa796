"""A real Consul and kvorum answer alike; and the program that finds out would notice if they did not."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.differential import __main__ as program
from tests.differential.compare import INSIDE_DELETED, Order, compare
from tests.differential.differences import DIFFERENCES
from tests.differential.generate import sequence
from tests.differential.operations import Memory, Operation, Sequence
from tests.differential.run import Failure, shorten
from tests.differential.servers import CONSUL_VERSION, Pair, consul_version, find_consul, wait_until
from tests.differential.wire import Reply

CONSUL = find_consul()
RECORD = Path(__file__).parents[2] / "docs" / "differential.json"
with_consul = pytest.mark.skipif(
    not CONSUL or consul_version(CONSUL) != CONSUL_VERSION, reason=f"no Consul {CONSUL_VERSION}: CONSUL_BIN names the program, or PATH"
)
OK: dict[str, str] = {"content-type": "application/json"}


@with_consul
@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_answers_agree(capsys: pytest.CaptureFixture[str]) -> None:
    """Random sequences of a fresh seed (it is printed) meet no difference but those that are meant."""
    code = program.main(["--operations", "1500"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "other differences: 0" in said


@with_consul
@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_sessions_end_alike() -> None:
    """A session whose time is up lets go of its keys or takes them along, and its keys can't be locked for the lock-delay, on both alike."""
    with Pair(CONSUL) as pair:
        urls = [f"http://127.0.0.1:{port}/v1" for port in pair.ports]
        sessions = [[_session(url, Behavior=behavior, TTL="10s", LockDelay="8s") for behavior in ("release", "delete")] for url in urls]
        other = [_session(url, LockDelay="0s") for url in urls]
        for url, pair_of_sessions in zip(urls, sessions, strict=True):
            for key, session in zip("rd", pair_of_sessions, strict=True):
                assert requests.put(f"{url}/kv/{key}?acquire={session}", data=b"held", timeout=15).text == "true"
        seen = [_after_the_end(url, found, session) for url, found, session in zip(urls, sessions, other, strict=True)]
    assert seen[0] == seen[1]
    assert seen[0]["refused at first"] == ["false", "false"]
    assert seen[0]["keys"] == [[["held", 1, False]], 404]


def _session(url: str, **fields: str) -> str:
    created: str = requests.put(f"{url}/session/create", json=fields, timeout=15).json()["ID"]
    return created


def _after_the_end(url: str, sessions: list[str], other: str) -> dict[str, Any]:
    """What is seen once none of the sessions is there any more, and when their keys can be locked again."""
    for session in sessions:
        wait_until(lambda session=session: requests.get(f"{url}/session/info/{session}", timeout=15).json() == [], "the session has ended", 60)
    refused = [requests.put(f"{url}/kv/{key}?acquire={other}", timeout=15).text for key in "rd"]
    answers = [requests.get(f"{url}/kv/{key}", timeout=15) for key in "rd"]
    keys = [
        [[requests.get(f"{url}/kv/{entry['Key']}?raw", timeout=15).text, entry["LockIndex"], "Session" in entry] for entry in answer.json()]
        if answer.ok
        else answer.status_code
        for answer in answers
    ]
    for key in "rd":
        wait_until(lambda key=key: requests.put(f"{url}/kv/{key}?acquire={other}", timeout=15).text == "true", "the delay is over", 60)
    locked = [requests.get(f"{url}/kv/{key}", timeout=15).json()[0]["LockIndex"] for key in "rd"]
    return {"refused at first": refused, "keys": keys, "locked": locked}


def test_the_recorded_run() -> None:
    """What the page tells was run without a difference that is not meant, and each that came up is one that has a name."""
    runs = json.loads(RECORD.read_text(encoding="utf-8"))["runs"]
    assert len({run["seed"] for run in runs}) == len(runs) > 0
    for run in runs:
        assert (run["differences"], run["consul"]) == (0, CONSUL_VERSION)
        assert run["operations"] == sum(run["kinds"].values()) == sum(run["statuses"].values())
        assert set(run["meant"]) <= {difference.name for difference in DIFFERENCES}


def test_sequences_come_from_their_seed() -> None:
    """The same seed and number give the same requests, others give others."""
    assert sequence(1, 2) == sequence(1, 2)
    assert len({sequence(seed, number).operations for seed in (1, 2) for number in (1, 2)}) == 4


def test_broken_bodies_hold_nothing_of_one_server() -> None:
    """The message about one may show any byte of it, so an index or a session that each server gave itself would be a difference."""
    made = [operation for number in range(300) for operation in sequence(658801, number).operations]
    bodies = [operation.body or b"" for operation in made if operation.kind == "txn odd"]
    assert sum(b'"KV"' in body for body in bodies) > 10
    assert not [body for body in bodies if b"<M" in body or b"<S" in body]


def memories() -> tuple[Memory, Memory]:
    """Two servers that made one session each."""
    return Memory("q1/", ("<P>a",), ["0" * 8 + "-0000-0000-0000-" + "0" * 12]), Memory("q1/", ("<P>a",), ["1" * 8 + "-1111-1111-1111-" + "1" * 12])


def answer(number: int, index: int, session: str = "", **changes: Any) -> Reply:
    """The answer to a GET of a key."""
    body = json.dumps([{"Key": "a", "Session": session, "ModifyIndex": number, **changes}]).encode()
    return Reply(200, {**OK, "x-consul-index": str(index)}, body)


GET = Operation("get one", "GET", "/v1/kv/<P>a")


@pytest.mark.parametrize(
    ("left", "right", "told"),
    [
        (answer(5, 5), answer(50, 50), []),
        (answer(5, 5, "0" * 8 + "-0000-0000-0000-" + "0" * 12), answer(50, 50, "1" * 8 + "-1111-1111-1111-" + "1" * 12), []),
        (answer(5, 5), answer(50, 51), ["X-Consul-Index"]),
        (answer(5, 5), answer(50, 50, Flags=1), ["body"]),
        (answer(5, 5), answer(50, 50, "1" * 8 + "-1111-1111-1111-" + "1" * 12), ["body"]),
        (Reply(200, OK, b"true"), Reply(200, {}, b"true"), ["header content-type"]),
        (Reply(200, OK, b"true"), Reply(200, OK, b"true\n"), ["body"]),
        (Reply(200, OK, b"true"), Reply(404, OK, b"true"), ["status"]),
        (Reply(200, {**OK, "x-consul-index": "1"}, b"true"), Reply(200, OK, b"true"), ["header x-consul-index"]),
    ],
)
def test_what_is_a_difference(left: Reply, right: Reply, told: list[str]) -> None:
    """Status, headers, body, sessions and indexes are compared; names of each server's own are not."""
    found = compare(GET, memories(), (left, right), Order())
    assert len(found) == len(told)
    assert all(message.startswith(start) for message, start in zip(found, told, strict=True))


def test_indexes_stand_in_the_same_order() -> None:
    """Less, equal and greater must be so on both sides, whatever came between."""
    order = Order()
    assert [order.add(*pair) for pair in ((5, 50), (9, 90), (7, 70), (5, 50), (1, 1))] == [""] * 5
    for pair in ((5, 51), (6, 50), (6, 49), (6, 70), (8, 95), (10, 90), (4, 60)):
        assert order.add(*pair), pair
    assert order.add(6, 60, keep=False) == order.add(6, 61) == ""


def test_below_a_deleted_prefix_the_index_is_not_compared() -> None:
    """That is the difference that is meant; elsewhere the same contradiction is another matter."""
    found = []
    for path in ("<P>a", "<P>ab", "<P>b"):
        both, order = memories(), Order()
        order.add(5, 50)
        for memory in both:
            memory.learn(Operation("delete recurse", "DELETE", "/v1/kv/<P>a?recurse"), Reply(200, OK, b"true"))
        listing = Operation("get recurse", "GET", f"/v1/kv/{path}?recurse")
        found += compare(listing, both, (Reply(404, {"x-consul-index": "5"}, b""), Reply(404, {"x-consul-index": "51"}, b"")), order)
    assert [message.startswith(INSIDE_DELETED) for message in found] == [False, True, False]


def test_a_failing_sequence_is_made_short() -> None:
    """Only what the failure needs is left."""
    operations = tuple(Operation("", "PUT", str(number)) for number in range(40))

    def run(tried: Sequence) -> Failure | None:
        targets = [operation.target for operation in tried.operations]
        return Failure(targets.index("30"), operations[30], ("differs",)) if {"3", "17", "30"} <= set(targets) else None

    made = Sequence((), operations)
    failure = run(made)
    assert failure is not None
    short, last = shorten(made, failure, run)
    assert [operation.target for operation in short.operations] == ["3", "17", "30"]
    assert last.position == 2


def test_differences_have_names_of_their_own() -> None:
    """Each can be counted."""
    assert len({difference.name for difference in DIFFERENCES}) == len(DIFFERENCES)
