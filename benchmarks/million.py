"""What does a million keys cost, here and in Consul? ``make bench-million``.

Three nodes on loopback, freshly started, get a million keys of 128 bytes by transactions of 64 operations over HTTP, from several connections to
the leader. Then: what the nodes' processes hold in memory (proportional set size), what their directories hold, how long a listing of ten thousand
keys takes the first time, again, and for other prefixes, and how long a follower that is stopped and started takes until it answers a read: one
that may be stale, and one that may not. Then the same for three nodes of Consul, started for it; then again in the other order, for each pair.

Both write to the same disk and have the machine to themselves. Prints a table of the medians with the ratios, ours to Consul's. Without a Consul
(CONSUL_BIN, PATH, or ``make consul``) the table is ours alone. Ends with 1 when a key is missing or has a wrong value.
"""

import argparse
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import hammer, workload
from benchmarks.consul_nodes import ConsulCluster, find_consul, version
from benchmarks.processes import disk_mib, end_on_sigterm, memory, table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "processes"))

from cluster import Cluster, Node, NotInTime, wait_until

VALUE_BYTES = 128
LISTINGS = 10
"""How often a listing is made again, and of how many other prefixes at most."""
CHECKED = 500
"""How many keys are read back, at random, from each node."""
REST_SECONDS = 5.0
SERVING_SECONDS = 300.0
ASK_AGAIN_SECONDS = 0.005
LOAD = "load, keys/s"


def get(node: Node, target: str, seconds: float = 60.0) -> tuple[int, bytes, float]:
    """A GET on a connection of its own: status, body, seconds from the request to the whole answer."""
    parts = urlsplit(node.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=seconds)
    try:
        connection.connect()
        began = time.perf_counter()
        connection.request("GET", target)
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, body, time.perf_counter() - began
    finally:
        connection.close()


def holdings(cluster: Cluster, when: str) -> dict[str, float]:
    """Memory of the leader and of a follower, by process, and the disk of a node."""
    leader, followers = cluster.leader(), cluster.followers()
    found: dict[str, float] = {}
    for whose, nodes in (("leader", [leader]), ("follower", followers)):
        each = [memory(node) for node in nodes]
        means = {name: statistics.mean(parts[name] for parts in each) for name in each[0]}
        if len(means) > 1:
            found |= {f"{whose}, {name}, {when}, MiB": value for name, value in means.items()}
        found[f"{whose}, PSS of all, {when}, MiB"] = sum(means.values())
    found[f"disk of a node, {when}, MiB"] = statistics.mean(disk_mib(node.data_dir) for node in cluster.nodes)
    return found


def listings(leader: Node, keys: int) -> dict[str, float]:
    """How long listings take, in milliseconds."""
    count = min(keys, workload.A_PREFIX)

    def listed(number: int) -> float:
        status, body, seconds = get(leader, f"/v1/kv/{workload.prefix(number)}?recurse")
        if status != 200 or len(json.loads(body)) != count:
            raise SystemExit(f"million: the listing of {workload.prefix(number)} at {leader.name}: {status}, {len(body)} bytes, not {count} keys")
        return seconds * 1000

    found = {
        f"listing of {count:,} keys, first, ms": listed(0),
        f"listing of {count:,} keys, again, ms": statistics.median(listed(0) for _ in range(LISTINGS)),
    }
    if others := range(1, min(keys // workload.A_PREFIX, LISTINGS + 1)):
        found[f"listing of {count:,} keys, other prefixes, ms"] = statistics.median(listed(number) for number in others)
    return found


def restart(node: Node, key: str, times: int) -> dict[str, float]:
    """Stop a node and start it, again and again: seconds from the start to a stale read and to one that is not."""
    stale: list[float] = []
    default: list[float] = []
    for _ in range(times):
        node.terminate()
        began = time.monotonic()
        node.start()
        for query, seconds in (("?stale", stale), ("", default)):
            _until_read(node, f"/v1/kv/{key}{query}", began)
            seconds.append(time.monotonic() - began)
    return {"restart to a stale read, s": statistics.median(stale), "restart to a default read, s": statistics.median(default)}


def _until_read(node: Node, target: str, began: float) -> None:
    while time.monotonic() < began + SERVING_SECONDS:
        try:
            if get(node, target)[0] == 200:
                return
        except (OSError, http.client.HTTPException):
            pass  # it does not listen yet
        if node.ended():
            raise SystemExit(f"million: {node.name} ended instead of starting again: {node.log()[-2000:]}")
        time.sleep(ASK_AGAIN_SECONDS)
    raise SystemExit(f"million: {node.name} did not answer {target} within {SERVING_SECONDS:g} s of its start")


def check(cluster: Cluster, keys: int) -> None:
    """Wait until every node holds the last key, then read some at random from each."""
    dice = random.Random(1)
    last, some = workload.key(keys - 1).decode(), [workload.key(dice.randrange(keys)).decode() for _ in range(CHECKED)]
    for node in cluster.nodes:
        wait_until(partial(_holds, node, last), f"{node.name} holds {last}")
    for node in cluster.nodes:
        for key in some:
            status, body, _ = get(node, f"/v1/kv/{key}?raw")
            if status != 200 or len(body) != VALUE_BYTES:
                raise SystemExit(f"million: {key} at {node.name}: {status}, {len(body)} bytes")


def _holds(node: Node, key: str) -> bool:
    return get(node, f"/v1/kv/{key}?stale")[0] == 200


def measure(cluster: Cluster, options: argparse.Namespace) -> dict[str, float]:
    """All figures of one cluster, by what they are."""
    cluster.start_all()
    time.sleep(REST_SECONDS)
    found, leader = {LOAD: 0.0, **holdings(cluster, "empty")}, cluster.leader()
    seconds = workload.fill(leader.url, options.keys, VALUE_BYTES, options.connections, told_every=max(1, options.keys // 10))
    found[LOAD] = options.keys / seconds
    print(f"  loaded {options.keys:,} keys in {seconds:.1f} s; reading some back", flush=True)
    check(cluster, options.keys)
    time.sleep(REST_SECONDS)  # what the last writes began is done: checkpoints, collections of garbage
    found |= holdings(cluster, "loaded")
    print("  listing", flush=True)
    found |= listings(cluster.leader(), options.keys)
    found["leader, PSS of all, after listing, MiB"] = sum(memory(cluster.leader()).values())
    print("  restarting a follower", flush=True)
    return found | restart(cluster.followers()[0], workload.key(options.keys // 2).decode(), options.restarts)


def one_side(name: str, program: str, options: argparse.Namespace) -> dict[str, float]:
    """Start a cluster in a directory of its own, measure it, and remove it."""
    print(f"{name}: {options.keys:,} keys; load average {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory(prefix=f"kvorum-million-{name}-") as directory:
        cluster = ConsulCluster(Path(directory), program) if program else Cluster(Path(directory))
        try:
            return measure(cluster, options)
        except (hammer.LoadFailed, NotInTime, subprocess.TimeoutExpired) as failed:
            raise SystemExit(f"million: {name}: {failed}") from failed
        finally:
            cluster.stop_all()


def report(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> str:
    """The table: medians, and the ratio of each pair."""
    rows = []
    for name in list(dict.fromkeys([*ours[0], *(theirs[0] if theirs else {})])):
        cells = [_middle(side, name) for side in (ours, theirs)]
        ratios = [mine[name] / its[name] for mine, its in zip(ours, theirs, strict=False) if name in mine and name in its]
        ratio = f"{statistics.median(ratios):.2f}" + (f" ({min(ratios):.2f}..{max(ratios):.2f})" if len(ratios) > 1 else "") if ratios else ""
        rows.append([name, *cells, ratio])
    return table(["", "kvorum", "Consul", "ratio"], rows)


def _middle(side: list[dict[str, float]], name: str) -> str:
    if not side or name not in side[0]:
        return ""
    value = statistics.median(figures[name] for figures in side)
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def main() -> int:
    """Run it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--keys", type=int, default=1_000_000)
    arguments.add_argument("--connections", type=int, default=workload.FILLING_CONNECTIONS, help="that load")
    arguments.add_argument("--restarts", type=int, default=3)
    arguments.add_argument("--pairs", type=int, default=1)
    arguments.add_argument("--consul-first", action="store_true", help="in the first pair; the order changes with every pair")
    arguments.add_argument("--alone", action="store_true", help="without Consul")
    arguments.add_argument("--json", type=Path, help="a file for all figures")
    options = arguments.parse_args()
    end_on_sigterm()
    program = "" if options.alone else find_consul()
    print(version(program) if program else "without Consul: " + ("not asked for" if options.alone else "none was found"), flush=True)
    sides: dict[str, list[dict[str, float]]] = {"kvorum": [], "consul": []}
    for pair in range(options.pairs):
        order = ["kvorum", "consul"] if program else ["kvorum"]
        for name in order[::-1] if options.consul_first != bool(pair % 2) else order:
            sides[name].append(one_side(name, program if name == "consul" else "", options))
    if options.json:
        options.json.write_text(json.dumps(sides, indent=1))
    print(f"\n{options.keys:,} keys of {VALUE_BYTES} bytes, {options.pairs} pair(s); more is better for the load, less for everything else\n")
    print(report(sides["kvorum"], sides["consul"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
