"""The chaos moment: real files go in, the leader's container goes down under a writer, then everything does; every byte must be there.

    python tests/docker/chaos_quick.py [--source /etc] [--kill] [--keep] [--seed N]

It works on the running containers of this folder's Compose project (`make up`), under a prefix of its own that it
deletes at the end. Steps: import every regular file of --source (at most 512 KiB each, the store's limit); stop the
leader's container while two writers run; read everything from the two others; start it again, see it catch up and
answer ?stale with the same bytes; stop all three, start all three, read everything again from each; remove the container
and the volume of one node, whose successor must take its place by itself and hold every byte.

A write ends in one of three ways. Acknowledged (2xx): it must be read back from then on. Definite failure (4xx, or
X-Kvorum-Outcome: rejected): there must be none. Anything else is unknown: it may be there or not, never with other
bytes, and once it was read it counts as acknowledged. Exit codes: 0 all of it held, 1 something did not, 2 it could
not be tried.
"""

# ruff: noqa: T201  (the output on the terminal is what this program is for)

import argparse
import itertools
import os
import random
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import requests
from containers import CONNECT_AND_READ_SECONDS, Cluster, ClusterError, Node, wait_until
from ledger import Ledger, Outcome, Phase

VALUE_BYTES_MAX = 524_288
READ_RETRY_SECONDS = 30.0
CATCH_UP_SECONDS = 60.0
WRITER_SECONDS_AFTER_STOP = 4.0
THREADS = 8


class Client(threading.local):
    """HTTP connections of each thread's own."""

    def __init__(self) -> None:
        self.session = requests.Session()

    def put(self, node: Node, key: str, value: bytes) -> tuple[Outcome, str]:
        """Write once, never again: the outcome, and what led to it."""
        try:
            response = self.session.put(address(node, key), data=value, timeout=CONNECT_AND_READ_SECONDS)
        except requests.RequestException as error:
            return Outcome.UNKNOWN, type(error).__name__
        detail = f"{response.status_code} {response.text[:200]!r}"
        if response.ok and response.content == b"true":
            return Outcome.ACKNOWLEDGED, detail
        rejected = response.ok or 400 <= response.status_code < 500 or response.headers.get("X-Kvorum-Outcome") == "rejected"
        return (Outcome.REJECTED if rejected else Outcome.UNKNOWN), detail

    def get(self, node: Node, key: str, parameters: str) -> bytes | None:
        """The raw value, None where there is no such key; a read may be repeated, so it is, for a while.

        Raises:
            ClusterError: no usable answer within READ_RETRY_SECONDS, or one that no repetition changes.
        """
        deadline = time.monotonic() + READ_RETRY_SECONDS
        while True:
            try:
                response = self.session.get(f"{address(node, key)}?raw{parameters}", timeout=CONNECT_AND_READ_SECONDS)
            except requests.RequestException as error:
                problem = type(error).__name__
            else:
                if response.status_code == requests.codes.ok:
                    return response.content
                if response.status_code == requests.codes.not_found:
                    return None
                problem = f"{response.status_code} {response.text[:200]!r}"
                if 400 <= response.status_code < 500:
                    raise ClusterError(f"GET {key} from {node.name}: {problem}")
            if time.monotonic() > deadline:
                raise ClusterError(f"GET {key} from {node.name}: {problem} for {READ_RETRY_SECONDS:g} s")
            time.sleep(0.1)


def address(node: Node, key: str) -> str:
    """The URL of a key; a file name may hold bytes that are no text, which pass as they are."""
    return f"{node.url}/v1/kv/{quote(os.fsencode(key))}"


def regular_files(source: Path) -> Iterator[Path]:
    """Every regular file below a folder, links not followed, in order of names."""
    for folder, _, names in sorted(os.walk(source)):
        for name in sorted(names):
            path = Path(folder, name)
            if stat.S_ISREG(path.lstat().st_mode):
                yield path


def collect(source: Path, prefix: str) -> tuple[dict[str, bytes], list[str]]:
    """The files as keys and values, and what had to be left out, each with its reason."""
    values: dict[str, bytes] = {}
    left_out: list[str] = []
    for path in regular_files(source):
        key = f"{prefix}files/{path.relative_to(source)}"
        try:
            value = path.read_bytes()
        except OSError as error:
            left_out.append(f"{path}: {error.strerror}")
            continue
        if len(value) > VALUE_BYTES_MAX:
            left_out.append(f"{path}: {len(value)} bytes, over the limit of {VALUE_BYTES_MAX}")
        elif not os.fsencode(key).decode(errors="replace").isprintable():
            left_out.append(f"{path}: its name holds a character that no key over HTTP may hold")
        else:
            values[key] = value
    return values, left_out


def import_files(cluster: Cluster, ledger: Ledger, client: Client, source: Path, prefix: str) -> None:
    """Write each file as a key, from several threads, through all three nodes."""
    with ledger.phase(f"import of {source}") as phase:
        values, left_out = collect(source, prefix)

        def write(item: tuple[str, Node]) -> None:
            key, node = item
            ledger.written(phase, key, values[key], *client.put(node, key, values[key]))

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(write, zip(values, itertools.cycle(cluster.nodes.values()), strict=False)))
        phase.remark = f"{len(values)} files, {sum(map(len, values.values())) / 1e6:.1f} MB, {len(left_out)} left out"
        for text in left_out:
            print(f"  left out: {text}")
        if not values:
            ledger.complain(phase, f"{source} held no file that could be imported")


class Writer(threading.Thread):
    """A client that knows all nodes: it stays with one until a write fails, then goes on with the next, always with a new key."""

    def __init__(self, name: str, nodes: Sequence[Node], write: Callable[[Node, str, bytes], Outcome], prefix: str, seed: int) -> None:
        super().__init__(name=name, daemon=True)
        self.longest_pause_seconds = 0.0
        self._nodes, self._write, self._prefix = nodes, write, f"{prefix}writer/{name}/"
        self._random = random.Random(f"{seed} {name}")
        self._ended = threading.Event()

    def run(self) -> None:
        """Write until told to end."""
        nodes = itertools.cycle(self._nodes)
        node = next(nodes)
        acknowledged_at = time.monotonic()
        for number in itertools.count():
            if self._ended.is_set():
                return
            value = self._random.randbytes(self._random.choice((0, 1, 100, 4_000, 60_000)))
            if self._write(node, f"{self._prefix}{number:06}", value) is Outcome.ACKNOWLEDGED:
                self.longest_pause_seconds = max(self.longest_pause_seconds, time.monotonic() - acknowledged_at)
                acknowledged_at = time.monotonic()
            else:
                node = next(nodes)

    def end(self) -> None:
        """Let the write under way finish, and no other begin."""
        self._ended.set()
        self.join()


def stop_leader(cluster: Cluster, ledger: Ledger, client: Client, prefix: str, *, seed: int, kill: bool) -> Node:
    """Take the leader's container down while one writer speaks to it and another to a follower."""
    leader = cluster.leader()
    followers = cluster.others(leader)
    with ledger.phase(f"leader {'killed' if kill else 'stopped'} under two writers") as phase:

        def write(node: Node, key: str, value: bytes) -> Outcome:
            outcome, detail = client.put(node, key, value)
            ledger.written(phase, key, value, outcome, detail)
            return outcome

        writers = [
            Writer("at-leader", [leader, *followers], write, prefix, seed),
            Writer("at-follower", [*followers, leader], write, prefix, seed),
        ]
        for writer in writers:
            writer.start()
        try:
            wait_until("the first 50 writes", lambda: phase.outcomes[Outcome.ACKNOWLEDGED] >= 50, 30)
            codes = cluster.stop([leader], kill=kill)
            acknowledged_before = phase.outcomes[Outcome.ACKNOWLEDGED]
            time.sleep(WRITER_SECONDS_AFTER_STOP)
        finally:
            for writer in writers:
                writer.end()
        check_exit_codes(ledger, phase, [leader], codes, kill=kill)
        if phase.outcomes[Outcome.ACKNOWLEDGED] == acknowledged_before:
            ledger.complain(phase, f"no write was acknowledged in the {WRITER_SECONDS_AFTER_STOP:g} s after {leader.name} had gone")
        pauses = ", ".join(f"{one.name} {one.longest_pause_seconds:.2f} s" for one in writers)
        phase.remark = f"{leader.name}; longest pause between acknowledgements: {pauses}"
    return leader


def read_back(ledger: Ledger, client: Client, nodes: Sequence[Node], title: str, parameters: str = "") -> None:
    """Compare every key, byte for byte, at each of these nodes."""
    with ledger.phase(title) as phase:
        keys = sorted([*ledger.acknowledged, *ledger.unknown])

        def compare(item: tuple[Node, str]) -> None:
            node, key = item
            try:
                ledger.read(phase, node.name, key, client.get(node, key, parameters))
            except ClusterError as error:
                ledger.complain(phase, str(error))

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(compare, itertools.product(nodes, keys)))
        phase.remark = f"{len(keys)} keys at {', '.join(node.name for node in nodes)}"


def start_again(cluster: Cluster, ledger: Ledger, client: Client, prefix: str, node: Node) -> None:
    """Start the stopped node, and wait until its own state holds what was written last while it was down."""
    with ledger.phase(f"{node.name} started, catches up") as phase:
        key, value = f"{prefix}marker", b"written while one node was down"
        ledger.written(phase, key, value, *client.put(cluster.others(node)[0], key, value))
        cluster.start([node])
        seconds = wait_until(f"{node.name} catches up", lambda: client.get(node, key, "&stale") == value, CATCH_UP_SECONDS)
        phase.remark = f"{seconds:.1f} s after its start"


def restart_all(cluster: Cluster, ledger: Ledger, *, kill: bool) -> None:
    """Take all three containers down, then start all three."""
    with ledger.phase(f"all three {'killed' if kill else 'stopped'}, all three started") as phase:
        nodes = list(cluster.nodes.values())
        codes = cluster.stop(nodes, kill=kill)
        check_exit_codes(ledger, phase, nodes, codes, kill=kill)
        cluster.start(nodes)
        phase.remark = f"all answer consistent reads {cluster.wait_ready(nodes):.1f} s after their start"


def lose_volume(cluster: Cluster, ledger: Ledger) -> Node:
    """Remove a follower with its data; the empty one that starts in its place must become a voter under an id of its own."""
    node = cluster.others(cluster.leader())[0]
    with ledger.phase(f"{node.name} loses its volume, replaces itself") as phase:
        before = cluster.incarnation(node)
        node = cluster.wipe(node)
        seconds = wait_until(f"{node.name} votes again", lambda: cluster.incarnation(node) not in {None, before}, CATCH_UP_SECONDS)
        phase.remark = f"a voter {seconds:.1f} s after its start"
        cluster.wait_ready([node])
    return node


def check_exit_codes(ledger: Ledger, phase: Phase, nodes: Sequence[Node], codes: Sequence[int], *, kill: bool) -> None:
    """A node that is asked to stop exits with 0; one that is killed cannot."""
    for node, code in zip(nodes, codes, strict=True):
        if code != 0 and not kill:
            ledger.complain(phase, f"{node.name} was asked to stop and exited with {code}")


def scenario(cluster: Cluster, ledger: Ledger, arguments: argparse.Namespace, prefix: str) -> None:
    """The whole story, step by step."""
    client = Client()
    everyone = list(cluster.nodes.values())
    cluster.wait_ready(everyone)
    import_files(cluster, ledger, client, arguments.source, prefix)
    leader = stop_leader(cluster, ledger, client, prefix, seed=arguments.seed, kill=arguments.kill)
    read_back(ledger, client, cluster.others(leader), "read back from the two others")
    start_again(cluster, ledger, client, prefix, leader)
    read_back(ledger, client, [leader], f"read back from {leader.name} with ?stale", "&stale")
    restart_all(cluster, ledger, kill=arguments.kill)
    read_back(ledger, client, everyone, "read back from all three")
    replaced = lose_volume(cluster, ledger)
    read_back(ledger, client, [replaced], f"read back from the new {replaced.name} with ?stale", "&stale")
    if not arguments.keep:
        client.session.delete(f"{address(everyone[0], prefix)}?recurse", timeout=CONNECT_AND_READ_SECONDS)


def main() -> int:
    """Run the scenario on the cluster that is up, print the table, and say whether every acknowledged byte survived."""
    parser = argparse.ArgumentParser(description="Stop containers under load; every acknowledged byte must survive.")
    parser.add_argument("--source", type=Path, default=Path("/etc"), help="folder whose regular files are imported (default: /etc)")
    parser.add_argument("--kill", action="store_true", help="kill -9 the containers instead of stopping them")
    parser.add_argument("--keep", action="store_true", help="leave the keys in the store")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9), help="what the writers write")
    arguments = parser.parse_args()
    prefix = f"chaos-quick/{arguments.seed}/"
    ledger = Ledger()
    print(f"seed {arguments.seed}, keys under {prefix}")
    try:
        cluster = Cluster()
        with cluster.left_running():
            scenario(cluster, ledger, arguments, prefix)
    except ClusterError as error:
        print(f"chaos-quick: {error}", file=sys.stderr)
        if not ledger.phases:
            return 2
        ledger.complain(ledger.phases[-1], str(error))
    ledger.print_table()
    total = {outcome: sum(phase.outcomes[outcome] for phase in ledger.phases) for outcome in Outcome}
    print(
        f"\n{total[Outcome.ACKNOWLEDGED]} acknowledged, {total[Outcome.REJECTED]} definite failures, {total[Outcome.UNKNOWN]} unknown"
        f" ({total[Outcome.UNKNOWN] - len(ledger.unknown)} of these were found written); {len(ledger.complaints)} complaints"
    )
    return 1 if ledger.complaints else 0


if __name__ == "__main__":
    raise SystemExit(main())
