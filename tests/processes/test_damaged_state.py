"""A node whose state is damaged, as a real process: it says so and ends, before it starts or while it runs; its peers go on."""

from pathlib import Path

import pytest
from cluster import Node, free_ports, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

PAGE = 4096
DAMAGED = "is not what was written"


def damage(node: Node, page: int) -> None:
    """Flip a bit of a page of its state."""
    path = node.data_dir / "state-1.db"
    with path.open("r+b") as file:
        file.seek(page * PAGE - 100)
        byte = file.read(1)[0]
        file.seek(page * PAGE - 100)
        file.write(bytes([byte ^ 1]))


def filled(directory: Path) -> Node:
    """A node of its own that was stopped after some writes."""
    api, peer = free_ports(2)
    node = Node("n1", directory, api_port=api, peer_port=peer, initial="", settings={"KVORUM_SCRUB_MIB_PER_SECOND": "50", "KVORUM_REPAIR": "refuse"})
    node.start()
    wait_until(node.ready, "the node is ready")
    for number in range(200):
        assert node.put(f"key/{number}", b"v" * 1_000).text == "true"
    assert node.terminate() == 0
    return node


def test_damage_before_the_start(tmp_path: Path) -> None:
    """A flipped bit anywhere ends the start with exit code 3, the file, the page and the way out."""
    node = filled(tmp_path)
    damage(node, 40)
    node.start()
    assert node.wait() == 3
    assert "Traceback" not in node.log()
    assert "state-1.db: page 40 of" in node.log()
    assert f"{DAMAGED} (not repaired: the setting repair is 'refuse'; the node must not run on these data" in node.log()


def test_damage_while_it_runs(tmp_path: Path) -> None:
    """The node finds it by itself and ends with exit code 3, naming the page."""
    node = filled(tmp_path)
    node.start()
    wait_until(node.ready, "the node is ready")
    assert node.get("key/7", "raw").content == b"v" * 1_000
    damage(node, 40)
    assert node.wait() == 3
    assert "the node can't go on: compare the state with its sums: " in node.log()
    assert DAMAGED in node.log()
    assert "Traceback" not in node.log()
