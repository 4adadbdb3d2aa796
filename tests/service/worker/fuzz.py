"""Random requests to the web server: ``python -m tests.service.worker.fuzz --requests 1000000 [--seed N]``.

Well-formed requests, cut at random places, have exactly the answers that gunicorn's own worker gives. Of malformed ones, made from these by
mutation, the application sees nothing that gunicorn's worker, another parser, would not let it see: none is hidden in another one. Nothing fails, and
every connection ends. A case that breaks this is printed with the seed that makes it again.
"""

# ruff: noqa: T201  (the output on the terminal is what this program is for)

import argparse
import random
import sys
import time
from typing import NamedTuple

from tests.service.worker.serving import Application, Own, Seen, Stock, exchange

METHODS = ["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "FOO", "get", "M-SEARCH"]
TARGETS = [
    "/",
    "/v1/kv/a",
    "/v1/kv/a?raw&index=7",
    "/stream",
    "/lazy",
    "/part",
    "/none",
    "/known",
    "/a%20b%2Fc",
    "/\xc3\xbc?q=\xc3\xbc",
    "//a",
    "/a#b",
]
TARGETS += ["http://x/v1/kv/a?b", "/" + "k" * 5000]
HEADERS = [
    "X-Request-Id: r1",
    "x-consul-token:  6e1f3a52 ",
    "X-Many: a",
    "x-many: b",
    "Accept:\t*/*",
    "Content-Type: text/plain",
    "X_Hidden: 1",
    "X-Empty:",
]
CONNECTIONS = ["close", "Close", "keep-alive", "Keep-Alive", "x"]
BAITS = [
    *(
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\n\n",
        b" ",
        b"\t",
        b"\x00",
        b"\x0b",
        b":",
        b",",
        b";",
        b"0",
        b"1",
        b"f",
        b"-",
        b"+",
        b"0x",
        b"\xa0",
        b"_",
    ),
    *(b"\r\n ", b"Content-Length: 3\r\n", b"Content-Length : 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n"),
    *(b"Transfer-Encoding: xchunked\r\n", b"Transfer_Encoding: chunked\r\n", b"Transfer-Encoding:\x0bchunked\r\n", b"chunked, ", b"0\r\n\r\n"),
    *(b"5;a=b\r\n", b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n", b"Expect: 100-continue\r\n", b"Host: y\r\n", b" HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0"),
]
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
CASE_REQUESTS_MAX = 5


class Case(NamedTuple):
    """What one connection sends.

    :ivar requests: how many requests it was made of.
    """

    pieces: list[bytes]
    requests: int
    mutated: bool

    @property
    def data(self) -> bytes:
        """All of it."""
        return b"".join(self.pieces)


def make_case(dice: random.Random) -> Case:
    """Requests for one connection: half of them malformed."""
    count = dice.randint(1, CASE_REQUESTS_MAX)
    data = b"".join(make_request(dice) for _ in range(count))
    mutated = dice.random() < 0.5
    if mutated:
        for _ in range(dice.randint(1, 3)):
            data = mutate(dice, data)
    return Case(cut(dice, data), count, mutated)


def make_request(dice: random.Random) -> bytes:
    """A well-formed request."""
    minor = 0 if dice.random() < 0.1 else 1
    lines = [f"{dice.choice(METHODS)} {dice.choice(TARGETS)} HTTP/1.{minor}"]
    headers = ["Host: x", *dice.sample(HEADERS, dice.randint(0, 4))]
    if dice.random() < (0.7 if minor == 0 else 0.1):
        headers.append(f"Connection: {dice.choice(CONNECTIONS)}")
    if dice.random() < 0.1:
        headers.append("Expect: 100-continue")
    body, form = make_body(dice), dice.random()
    if form < 0.4:
        headers.append(f"Content-Length: {len(body)}")
    elif form < 0.7 and minor:
        headers.append(dice.choice(["Transfer-Encoding: chunked", "transfer-encoding: Chunked "]))
        body = in_chunks(dice, body)
    else:
        body = b""
    dice.shuffle(headers)
    blank = b"\r\n" if dice.random() < 0.05 else b""
    return blank + "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body


def make_body(dice: random.Random) -> bytes:
    """A body, often one that looks like a request."""
    kind = dice.random()
    if kind < 0.4:
        return HIDDEN * dice.randint(1, 3)
    if kind < 0.42:
        return dice.randbytes(1000) * dice.randint(60, 200)
    return dice.randbytes(dice.randint(0, 300))


def in_chunks(dice: random.Random, body: bytes) -> bytes:
    """A body in chunks, with extensions and trailers now and then."""
    made, position = b"", 0
    while position < len(body):
        piece = body[position : position + dice.randint(1, max(1, len(body)))]
        extension = dice.choice([b"", b"", b";a", b" ; a=b", b';a="b;c"'])
        made += (b"%X" if dice.random() < 0.5 else b"%04x") % len(piece) + extension + b"\r\n" + piece + b"\r\n"
        position += len(piece)
    return made + b"0\r\n" + dice.choice([b"", b"", b"X-After: 1\r\n"]) + b"\r\n"


def mutate(dice: random.Random, data: bytes) -> bytes:
    """The data with one thing changed, most often in the beginning, where heads are."""
    at = dice.randint(0, min(len(data), 400) if dice.random() < 0.7 else len(data))
    length = dice.choice([1, 1, 1, 2, 5, 40])
    match dice.randint(0, 4):
        case 0:
            return data[:at] + dice.choice(BAITS) + data[at:]
        case 1:
            return data[:at] + data[at + length :]
        case 2:
            return data[:at] + dice.choice(BAITS) + data[at + length :]
        case 3:
            return data[:at] + data[at : at + length] * 2 + data[at + length :]
        case _:
            line = data.find(b"\r\n", at)  # as a whole header line
            return data if line < 0 else data[: line + 2] + dice.choice(BAITS) + data[line + 2 :]


def cut(dice: random.Random, data: bytes) -> list[bytes]:
    """The data in pieces."""
    places = sorted(dice.randint(0, len(data)) for _ in range(dice.choice([0, 0, 1, 2, 5])))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


def check(case: Case) -> str:
    """What is wrong with how a case is served; empty when nothing is."""
    ours, theirs = Application(), Application()
    own = exchange(Own(ours), case.pieces)
    stock = exchange(Stock(theirs), [case.data], pause=False)
    if b"HTTP/1.1 500 " in own:
        return f"it failed: {own!r}"
    if not case.mutated and (own, ours.seen) != (stock, theirs.seen):
        return f"not as gunicorn:\n{own!r}\n{stock!r}"
    if not is_within(ours.seen, theirs.seen):
        return f"a request that gunicorn does not see:\n{ours.seen}\n{theirs.seen}"
    return ""


def is_within(ours: list[Seen], theirs: list[Seen]) -> bool:
    """Whether one server let the application see the same requests as the other, or fewer. A body that could not be read is like any other."""
    return len(ours) <= len(theirs) and all(
        own[:2] == other[:2] and (own.body == other.body or None in (own.body, other.body)) for own, other in zip(ours, theirs, strict=False)
    )


def main() -> int:
    """Check cases until that many requests were sent."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--requests", type=int, default=100_000)
    arguments.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    given = arguments.parse_args()
    began, requests, malformed, seed = time.monotonic(), 0, 0, given.seed
    while requests < given.requests:
        case = make_case(random.Random(seed))
        if problem := check(case):
            print(f"--requests 1 --seed {seed}: {problem}\nsent: {case.pieces!r}")
            return 1
        requests, malformed, seed = requests + case.requests, malformed + case.mutated * case.requests, seed + 1
    cases = seed - given.seed
    print(
        f"{requests} requests on {cases} connections from seed {given.seed}, {malformed} of them on malformed ones: {time.monotonic() - began:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
