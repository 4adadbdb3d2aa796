"""An entry that the state machine can't apply, on real processes: the node stops there, by name, as often as it is started."""

from pathlib import Path

import pytest
from cluster import Cluster

from raft.core.model import Entry, EntryKind
from raft.ports import WriteBatch
from raft.storage.sqlite import SqliteLog
from service.domain.commands import KvPut, encode, stamp
from service.store.machine import KvMachine

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


def test_an_entry_that_can_not_be_applied_is_never_skipped(tmp_path: Path) -> None:
    """A command that nobody knows stops the node with exit code 3 and its index, at each start; what follows it is never applied."""
    cluster = Cluster(tmp_path, 1)
    node = cluster.nodes[0]
    try:
        cluster.start_all()
        assert node.put("before", b"1").text == "true"
        assert node.terminate() == 0
        store = SqliteLog(node.data_dir)
        last = store.load().entries[-1]
        poison = last.index + 1
        entries = (
            Entry(poison, last.term, EntryKind.COMMAND, stamp(b"\xff no command", 1)),
            Entry(poison + 1, last.term, EntryKind.COMMAND, stamp(encode(KvPut(b"behind", b"1", 0)), 1)),
        )
        store.write(WriteBatch(None, entries))
        store.close()
        for _ in range(2):
            node.log_path.unlink()
            node.start()
            assert node.wait() == 3
            assert f"the state machine failed at index {poison}" in node.log()
            assert "Traceback" not in node.log()
            state = KvMachine(node.data_dir)
            assert state.applied_index == last.index
            state.close()
    finally:
        cluster.stop_all()
