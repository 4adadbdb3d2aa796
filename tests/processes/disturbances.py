"""What is done to a running cluster while clients use it, one disturbance after the other."""

import os
import random
import signal
import time

import requests
from cluster import Cluster, Node, wait_until

PAUSE_SECONDS = 3.0
"""How long a leader is paused: long enough for its followers to elect another one."""
PAUSED_EVERY = 5
RESTARTED_EVERY = 4

WHOLE_LOG = {"KVORUM_RAFT_SNAPSHOT_THRESHOLD_ENTRIES": "100000000", "KVORUM_RAFT_SNAPSHOT_THRESHOLD_BYTES": "10000000000"}
"""Settings with which the log is never cut, so that all of it can be judged."""


def ports(cluster: Cluster) -> list[int]:
    """The ports of the nodes' APIs."""
    return [int(node.url.rpartition(":")[2]) for node in cluster.nodes]


def disturb(cluster: Cluster, number: int, dice: random.Random) -> float:
    """Kill the leader and start it again; every fifth one is paused instead, so that it comes back as a deposed one. All are ready afterwards.

    After every fourth time a follower is restarted in good order, too.

    :param number: counts the disturbances, from 1 on.
    :returns: when, in seconds of the wall clock.
    """
    leader, moment = cluster.leader(), time.time()
    if number % PAUSED_EVERY == 0:
        pause(leader)
    else:
        kill(leader, dice)
    cluster.wait_ready()
    if number % RESTARTED_EVERY == 0:
        restart(cluster, dice.choice(cluster.followers()))
    return moment


def hand_over(cluster: Cluster, dice: random.Random) -> bool:
    """Ask the leader to hand over to another node; a write goes through afterwards.

    :returns: whether it says that somebody else leads.
    """
    leader = cluster.leader()
    target = dice.choice([node for node in cluster.nodes if node is not leader])
    answer = requests.post(f"{leader.url}/v1/cluster/transfer?to={target.name}", timeout=30)
    wait_until(lambda: target.put("handed over", target.name.encode()).text == "true", "a write goes through", 60)
    return answer.status_code == 200


def kill(node: Node, dice: random.Random) -> None:
    """Kill all of a node, and start it again; it is not ready yet."""
    node.kill()
    time.sleep(dice.uniform(0, 1))
    node.start()


def pause(node: Node) -> None:
    """Let the agent of a node stand still for a while."""
    pid = node.agent_pid()
    os.kill(pid, signal.SIGSTOP)
    time.sleep(PAUSE_SECONDS)
    os.kill(pid, signal.SIGCONT)


def restart(cluster: Cluster, node: Node) -> None:
    """Stop a node in good order and start it again. All are ready afterwards."""
    code = node.terminate()
    assert code == 0, f"{node.name} ended with {code}: {node.log()[-2000:]}"
    node.start()
    cluster.wait_ready()


def told(cluster: Cluster, kills: int) -> str:
    """What was done, in words."""
    paused, restarted = kills // PAUSED_EVERY, kills // RESTARTED_EVERY
    return f"{kills - paused} leaders of {len(cluster.nodes)} nodes killed, {paused} paused, {restarted} followers restarted"
