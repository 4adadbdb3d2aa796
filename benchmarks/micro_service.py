"""The rows of the micro benchmarks about the service: the state machine, worker and agent, requests and answers. See :mod:`micro`."""

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from types import MappingProxyType

import gevent
from micro_case import Case, Run, over, plain, repeated

from service.api.app import create_app
from service.api.fastpath import FastPath
from service.domain import commands
from service.domain.commands import KvPut, Txn, TxnOperation
from service.ipc.client import AgentClient
from service.settings import load
from service.store.machine import KvMachine
from service.store.reader import Reader
from service.worker import parser
from service.worker.response import Complete, Date

KEYS = 10_000
VALUE = random.Random(1).randbytes(128)
STAMP_MS = 1_700_000_000_000
START_SECONDS = 20.0
AGENT = Path(__file__).with_name("micro_agent.py")
FIELDS = b"Host: 127.0.0.1:8500\r\nUser-Agent: Go-http-client/1.1\r\nX-Consul-Token: 6e1f3a52\r\nAccept-Encoding: gzip\r\n"
GET = b"GET /v1/kv/bench/1 HTTP/1.1\r\n" + FIELDS[:-2]
HEADERS = [("Content-Type", "application/json"), ("X-Consul-Index", "1234"), ("X-Consul-Knownleader", "true"), ("X-Consul-Lastcontact", "0")]


def key(number: int) -> bytes:
    """One of the keys, round and round."""
    return b"bench/%d" % (number * 7919 % KEYS)


def put(number: int) -> bytes:
    """A write as it stands in the log."""
    return commands.stamp(commands.encode(KvPut(key(number), VALUE)), STAMP_MS)


def txn(number: int, operations: int) -> bytes:
    """A transaction of writes to different keys, as it stands in the log."""
    made = [TxnOperation("set", key(number * operations + offset), VALUE) for offset in range(operations)]
    return commands.stamp(commands.encode(Txn(made)), STAMP_MS)


@contextmanager
def machine(batch: int, directory: Path) -> Iterator[Run]:
    """Batches of writes, applied to a state file that has all the keys."""
    made = [put(number) for number in range(KEYS)]
    with filled(directory) as state:

        def apply(number: int) -> None:
            first = state.applied_index + 1
            state.apply([(first + offset, 1, made[(number * batch + offset) % KEYS]) for offset in range(batch)])
            state.take_changes()

        yield over(apply, count())


@contextmanager
def transaction(operations: int, directory: Path) -> Iterator[Run]:
    """Transactions, one entry each."""
    made = [txn(number, operations) for number in range(KEYS // operations)]
    with filled(directory) as state:

        def apply(number: int) -> None:
            state.apply([(state.applied_index + 1, 1, made[number % len(made)])])
            state.take_changes()

        yield over(apply, count())


@contextmanager
def filled(directory: Path) -> Iterator[KvMachine]:
    """A state with all the keys."""
    with closing(KvMachine(directory)) as state:
        state.apply([(index, 1, put(index)) for index in range(1, KEYS + 1)])
        state.take_changes()
        state.checkpoint()
        yield state


@contextmanager
def agent(directory: Path, index: int) -> Iterator[AgentClient]:
    """A worker's end of the socket, connected to an agent in a process of its own."""
    path = directory / "agent.sock"
    process = subprocess.Popen([sys.executable, AGENT, path, str(index)])
    client = AgentClient(path)
    client.start()
    try:
        deadline = time.monotonic() + START_SECONDS
        while not client.node_state.leader_known:
            if time.monotonic() > deadline:
                raise TimeoutError("the agent does not answer")
            gevent.sleep(0.01)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait()


@contextmanager
def proposals(at_once: int, directory: Path) -> Iterator[Run]:
    """Writes from that many greenlets, there and back; nothing is done with them."""
    command = commands.encode(KvPut(key(1), VALUE))
    with agent(directory, 1) as client:

        def run(calls: int) -> None:
            for _ in range(calls):
                gevent.joinall([gevent.spawn(client.propose, command) for _ in range(at_once)], raise_error=True)

        yield run if at_once > 1 else repeated(partial(client.propose, command))


@contextmanager
def barriers(directory: Path) -> Iterator[Run]:
    """A question of one read, there and back."""
    with agent(directory, 1) as client:
        yield repeated(client.barrier)


@contextmanager
def reads(uri: str, directory: Path, *, kept: bool) -> Iterator[Run]:
    """A GET under the lease, from the request's bytes or values to the answer's bytes.

    :param kept: whether answers are kept, as for a request that stands alone.
    """
    with filled(directory) as state, agent(directory, state.applied_index) as client, closing(Reader(directory)) as reader:
        settings = load({"KVORUM_NAME": "one", "KVORUM_DATA_DIR": str(directory)})
        fast = FastPath(create_app(client, reader, settings))
        date, variables, head = Date(), MappingProxyType({"HTTP_HOST": "bench"}), f"GET {uri} HTTP/1.1\r\nHost: bench".encode()
        while client.lease_index() is None:
            gevent.sleep(0.01)

        def get() -> None:
            recalled = fast.recall(head) if kept else None
            answer = recalled if isinstance(recalled, Complete) else fast.fast("GET", uri, variables, b"", recalled)
            if answer is None or not answer.status.startswith(b"200 "):
                raise RuntimeError(f"{uri} was not answered")
            answer.to_bytes(date, 1, keeps=True)

        yield repeated(get)


def parse_new(number: int) -> parser.Head:
    """A head whose lines were never seen before."""
    return parser.parse(b"%b\r\nX-Request-Id: %d" % (GET, number))


@contextmanager
def new_heads(_: Path) -> Iterator[Run]:
    """Heads with a line that differs in each."""
    yield over(parse_new, count())


def answer(date: Date) -> bytes:
    """An answer from status, headers and body to bytes."""
    return Complete("200 OK", [*HEADERS, ("Content-Length", "128")], VALUE).to_bytes(date, 1, keeps=True)


ONE = "/v1/kv/bench/1"
LISTING = "/v1/kv/bench/12?recurse"
CASES = (
    Case("apply: 1 put of 128 bytes a batch", partial(machine, 1)),
    Case("apply: 16 puts of 128 bytes a batch", partial(machine, 16), 16),
    Case("apply: 64 puts of 128 bytes a batch", partial(machine, 64), 64),
    Case("apply: a transaction of 64 puts, each", partial(transaction, 64), 64),
    Case("worker and agent: a write there and back, 1 at a time", partial(proposals, 1)),
    Case("worker and agent: a write there and back, 64 at a time", partial(proposals, 64), 64),
    Case("worker and agent: a barrier there and back", barriers),
    Case("HTTP: a head whose lines are known", plain(lambda: parser.parse(GET))),
    Case("HTTP: a head with a new line", new_heads),
    Case("HTTP: an answer to bytes", plain(partial(answer, Date()))),
    Case("GET of one key, answer kept", partial(reads, ONE, kept=True)),
    Case("GET of one key, read from the state", partial(reads, ONE, kept=False)),
    Case("GET of a prefix with 111 keys, answer kept", partial(reads, LISTING, kept=True)),
    Case("GET of a prefix with 111 keys, read from the state", partial(reads, LISTING, kept=False)),
)
