"""The public names of the library, pinned; and that they need nothing but Python."""

import inspect
import subprocess
import sys

import raft
from raft import errors

PUBLIC = {
    "AddLearner AddVoter Change Demote JointChange LeaveJoint Remove Step",
    "Boundary Configuration Entry EntryKind HardState Member NodeId Promotion",
    "ConfigurationChanged LeaderChanged Observation PeerContact RoleChanged SnapshotMoved",
    "Capture Ports RaftConfig RaftServer StateMachine",
    "Outcome PeerStatus Role Status",
}


def test_exported_names() -> None:
    """A name that comes or goes is seen here: the listed ones, and every error."""
    classes = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert set(raft.__all__) == classes | {name for line in PUBLIC for name in line.split()}
    assert sorted(raft.__all__) == raft.__all__
    assert all(hasattr(raft, name) for name in raft.__all__)


def test_nothing_else_is_needed() -> None:
    """With every other package out of reach, ``import raft`` and the adapters in memory work."""
    program = """
import sys
class Nobody:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in sys.stdlib_module_names and name.split(".")[0] != "raft":
            raise ImportError(f"{name} is out of reach")
sys.meta_path.insert(0, Nobody())
import raft, raft.storage.memory, raft.transport.memory, raft.testing.cluster
print(raft.RaftServer.__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("RaftServer\n", "")


def test_signatures_of_the_server() -> None:
    """What applications call keeps its parameters."""
    found = {
        name: list(inspect.signature(value).parameters)[1:]
        for name, value in vars(raft.RaftServer).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    assert found == {
        "start": [],
        "observe": ["observer"],
        "failure": [],
        "propose": ["commands", "within"],
        "barrier": ["within", "lease"],
        "change": ["wanted", "within"],
        "know": ["addresses"],
        "transfer": ["target", "within"],
        "status": [],
        "successors": [],
        "hand_over": ["within"],
        "retire": ["within"],
        "reconfigure": ["config"],
        "stop": [],
    }
    assert list(inspect.signature(raft.RaftServer).parameters) == ["node_id", "config", "ports", "stamp", "on_applied", "on_lease", "jitter"]


def test_everything_that_an_application_calls_is_typed() -> None:
    """Each public method of the server says the types of its parameters and of its result; a batch gives the same type everywhere."""
    for name, value in vars(raft.RaftServer).items():
        if inspect.isfunction(value) and not name.startswith("_"):
            signature = inspect.signature(value)
            assert signature.return_annotation is not inspect.Signature.empty, name
            untyped = [one.name for one in list(signature.parameters.values())[1:] if one.annotation is inspect.Parameter.empty]
            assert untyped == [], name
    assert inspect.signature(raft.RaftServer.propose).return_annotation == tuple[bytes, ...]
