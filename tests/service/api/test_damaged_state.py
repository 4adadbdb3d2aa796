"""What a client gets of a state that is damaged: an error that says so, and nothing else."""

from pathlib import Path
from typing import Any

import pytest

from service.api.reads import Kind, Query, Reads
from service.errors import RequestRejected
from service.ipc import protocol
from service.ipc.client import AgentClient
from service.store.reader import Reader

PAGE = 4096
VALUE = b"v" * 500


def ruin(directory: Path) -> None:
    """Overwrite every page that holds values."""
    path = directory / "state-1.db"
    content = bytearray(path.read_bytes())
    for start in range(0, len(content), PAGE):
        if VALUE in content[start : start + PAGE]:
            content[start : start + PAGE] = b"\xa5" * PAGE
    path.write_bytes(content)


@pytest.mark.parametrize("uri", ["a/0100", "a/0100?stale", "?keys", "a/?recurse", "a/?recurse&stale"])
def test_damage_is_an_error_and_the_agent_is_told(worker: Any, tmp_path: Path, uri: str) -> None:
    """500 with the file and the reason, however it was asked; the agent is told once, however many ask."""
    for number in range(300):
        worker.put(f"a/{number:04}", VALUE)
    worker.agent.machine.checkpoint()
    worker.reader.close()
    ruin(tmp_path)
    for _ in range(3):
        reply = worker.call("GET", f"/v1/kv/{uri}")
        assert (reply.status, reply.headers["Content-Type"]) == (500, "text/plain; charset=utf-8")
        assert b"the state in " in reply.body
        assert b"can't be read: database disk image is malformed" in reply.body
    worker.until(lambda: worker.agent.received(protocol.Suspect))
    assert len(worker.agent.received(protocol.Suspect)) == 1


def test_nothing_is_read_before_the_agent_has_compared_the_state(worker: Any, tmp_path: Path) -> None:
    """A worker that has never met its agent answers ?stale with an error; one that has goes on without it."""
    worker.put("a", b"1")
    alone = Reads(AgentClient(tmp_path / "nobody.sock"), Reader(tmp_path))
    with pytest.raises(RequestRejected, match="the agent of this node has not opened the state yet"):
        alone.read(Query(Kind.KEY, b"a"), fresh=False)
    worker.agent.stop()
    worker.until(lambda: not worker.client.connected)
    assert worker.call("GET", "/v1/kv/a?stale&raw").body == b"1"
    worker.agent.start()
