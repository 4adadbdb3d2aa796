"""The tables of the library's pages are those that follow from the code, and what they say of the messages is so."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from raft.core.messages import Message, ProposeResponse, VoteResponse
from raft.core.node import RaftNode
from raft.core.roles import Role
from raft.core.state import State
from raft.testing import pages, scripts
from raft.testing.world import World

SCRIPTS = sorted((Path(__file__).parents[1] / "scripts").glob("*.txt"))
SEEDS = range(70, 72)
MESSAGES = get_args(Message)


def roles(kind: type, fact: str) -> set[Role]:
    """The roles that a message's text names."""
    text = pages.told(kind)[fact]
    return set(Role) if text == "every role" else {Role(name) for name in text.split(", ")}


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_the_tables_are_up_to_date(page: Path) -> None:
    """Every page of the library is what ``python -m raft.testing.pages`` makes of it."""
    text = page.read_text(encoding="utf-8")
    assert pages.render(text) == text, f"{page.name} is out of date: python -m raft.testing.pages"


def test_every_table_has_its_place() -> None:
    """Each table stands in a page, once."""
    found = [name for page in pages.PAGES for name in pages.names(page.read_text(encoding="utf-8"))]
    assert sorted(found) == sorted(pages.TABLES)


def test_a_page_is_written_on_request_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With ``--check`` an old page is named and left; without, its table is replaced and everything around it stays."""
    page = tmp_path / "PAGE.md"
    old = "# Roles\n\n<!-- roles: made by raft.testing.pages -->\n| old |\n<!-- end -->\n\nAfter.\n"
    page.write_text(old, encoding="utf-8")
    assert pages.main(["--check", str(page)]) == 1
    assert page.read_text(encoding="utf-8") == old
    assert "PAGE.md: out of date" in capsys.readouterr().out
    assert pages.main([str(page)]) == 0
    assert page.read_text(encoding="utf-8") == old.replace("| old |\n", pages.role_table())
    assert pages.main(["--check", str(page)]) == 0


def test_every_message_tells_its_facts() -> None:
    """The text of each message names its senders, who acts on it and after what it leaves, in the words of the roles."""
    for kind in MESSAGES:
        assert {"sent by", "acted on by", "after"} <= set(pages.told(kind)), kind.__name__
        assert roles(kind, "sent by")
        assert kind is ProposeResponse or roles(kind, "acted on by")


class Watched:
    """What the nodes of a run did with messages."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: set[tuple[type, Role]] = set()
        self.at_once: set[type] = set()
        self.after_persist: set[type] = set()
        self.acted: set[tuple[type, Role]] = set()
        monkeypatch.setattr(State, "send", self._sending(State.send, self.at_once))
        monkeypatch.setattr(State, "send_after_persist", self._sending(State.send_after_persist, self.after_persist))
        monkeypatch.setattr(RaftNode, "_dispatch", self._dispatching(RaftNode._dispatch))

    def _sending(self, send: Callable[[State, Message], None], bucket: set[type]) -> Callable[[State, Message], None]:
        def watched(state: State, message: Message) -> None:
            self.sent.add((type(message), state.role))
            if not (isinstance(message, VoteResponse) and not message.granted):
                bucket.add(type(message))
            send(state, message)

        return watched

    def _dispatching(self, dispatch: Callable[[RaftNode, Message], None]) -> Callable[[RaftNode, Message], None]:
        def watched(node: RaftNode, message: Message) -> None:
            role, before = node.role, _picture(node)
            dispatch(node, message)
            if _picture(node) != before:
                self.acted.add((type(message), role))

        return watched


def _picture(node: RaftNode) -> tuple[Any, ...]:
    """Everything that a message could change."""
    outbox = node.state.outbox
    waiting = (len(outbox.messages), len(outbox.messages_after_persist), len(outbox.reads), len(outbox.appended), node.state.reads.wants_round)
    return (node.status(), node.state.election_elapsed, dict(node.state.votes), waiting)


@pytest.fixture(scope="module")
def watched() -> Watched:
    """All the scripts and a few simulated schedules, looked at."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        found = Watched(monkeypatch)
        for file in SCRIPTS:
            scripts.run(file.read_text(encoding="utf-8"), file.name)
        for seed in SEEDS:
            World(seed).run()
    return found


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_the_senders_are_the_named_ones(watched: Watched, kind: type) -> None:
    """In every script and in simulated schedules a message is sent by the roles that its text names, and by no other."""
    assert {role for sent, role in watched.sent if sent is kind} <= roles(kind, "sent by")
    assert kind in {sent for sent, _ in watched.sent}
    if pages.told(kind)["sent by"] != "every role":
        assert {role for sent, role in watched.sent if sent is kind} == roles(kind, "sent by")


@pytest.mark.parametrize("kind", [kind for kind in MESSAGES if kind is not ProposeResponse], ids=lambda kind: kind.__name__)
def test_the_others_pass_it_over(watched: Watched, kind: type) -> None:
    """A message changes nothing at a node in a role that its text does not name; in one that it names it does."""
    acted = {role for seen, role in watched.acted if seen is kind}
    assert acted <= roles(kind, "acted on by")
    assert acted


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_what_depends_on_the_disk_waits_for_it(watched: Watched, kind: type) -> None:
    """Exactly the messages whose text says so wait for the disk; refusals of votes aside, they never leave before."""
    waits = "durable" in pages.told(kind)["after"]
    assert (kind in watched.after_persist) == waits
    assert not (waits and kind in watched.at_once)


def test_markers_must_name_a_table() -> None:
    """A marker with another name is an error, not an empty place."""
    with pytest.raises(KeyError, match="nonsense"):
        pages.render("<!-- nonsense: made by raft.testing.pages -->\n<!-- end -->\n")


def test_nothing_of_this_is_loaded_with_the_library() -> None:
    """``import raft`` loads neither the generator nor anything else that is for tests."""
    program = "import raft, sys; print([name for name in sys.modules if name.startswith('raft.testing')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
