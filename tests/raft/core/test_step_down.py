"""Stepping down for a reason that only the driver knows."""

from raft.core.roles import Role
from raft.testing.cluster import QUICK, Cluster


def test_a_leader_steps_down_when_it_is_told_to() -> None:
    """It follows nobody in the same term, so that it can't vote anew in it, and another is elected; told again it changes nothing."""
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.run(2 * QUICK.heartbeat_ticks)
    cluster["a"].step_down("the disk hangs")
    assert (cluster["a"].role, cluster["a"].leader, cluster["a"].term) == (Role.FOLLOWER, None, 1)
    before = cluster["b"].status()
    cluster["b"].step_down("the disk hangs")
    assert cluster["b"].status() == before
    cluster.elect("b")
    assert (cluster.leaders, cluster.terms) == (["b"], {2})
