"""What a client may send to a web server: well-formed requests, and malformed ones made from them by mutation; cut into pieces, and read slowly.

Everything is drawn from one source of randomness, so a case is made again by its seed.
"""

import random
import re
from typing import NamedTuple

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
    *(
        b"5;a=b\r\n",
        b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n",
        b"Expect: 100-continue\r\n",
        b"Host: y\r\n",
        b"Connection: close\r\n",
        b"Content-Length: 3, 3\r\n",
        b"Trailer: x\r\n",
        b" HTTP/1.1",
        b"HTTP/1.0",
        b"HTTP/2.0",
        b"2",
    ),
]
LARGE = [b"X-Large: a\r\n", b"X-Large: " + b"a" * 80 + b", ", b"k" * 700]
"""Repeated a hundred times, they are about at the limits of a head."""
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
_NUMBER = re.compile(rb"(?<=Content-Length: )[0-9]{1,5}(?=\r)|(?<=\r\n)[0-9A-Fa-f]{1,4}(?=\r\n|;)")
CASE_REQUESTS_MAX = 5
BY_SOCKETS = 0.05
"""The share of cases in which the kernel has a part: such a one takes four times as long."""


class Case(NamedTuple):
    """What one connection sends, and how it is treated.

    :ivar requests: how many requests it was made of.
    :ivar takes: how many bytes each of the server's sends may take; see :class:`~tests.service.worker.wire.Wire`.
    :ivar breaks: whether the client resets the connection, instead of saying that it sends no more.
    :ivar by_sockets: whether the kernel is between client and server.
    """

    pieces: list[bytes]
    requests: int
    mutated: bool
    takes: list[int]
    breaks: bool
    by_sockets: bool

    @property
    def data(self) -> bytes:
        """All of it."""
        return b"".join(self.pieces)


def make_case(seed: int) -> Case:
    """Requests for one connection: half of them malformed."""
    dice = random.Random(seed)
    count = dice.randint(1, CASE_REQUESTS_MAX)
    data = b"".join([make_request(dice) for _ in range(count)])
    mutated = dice.random() < 0.5
    if mutated:
        for _ in range(dice.randint(1, 3)):
            data = mutate(dice, data)
    treated = dice.random()
    takes = [dice.choice((0, 1, 10, 100)) for _ in range(dice.randint(1, 5))] if treated < 0.1 else []
    return Case(cut(dice, data), count, mutated, takes, breaks=0.1 < treated < 0.15, by_sockets=treated > 1 - BY_SOCKETS)


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
    kind = dice.random()
    if kind < 0.15:
        return in_line(data, at, dice.choice(BAITS))
    if kind < 0.155:
        return in_line(data, at, dice.choice(LARGE) * dice.randint(90, 110))
    if kind < 0.165:
        return data[:at]  # the client ends in the middle
    if kind < 0.25:
        return miscount(dice, data)
    length = dice.choice([1, 1, 1, 2, 5, 40])
    taken = data[at : at + length]
    bait = dice.choice(BAITS)
    return data[:at] + dice.choice([b"", bait, bait, bait + taken, bait + taken, taken * 2, dice.randbytes(1)]) + data[at + length :]


def miscount(dice: random.Random, data: bytes) -> bytes:
    """The data with one of its lengths changed a little."""
    numbers = list(_NUMBER.finditer(data))
    if not numbers:
        return data
    found = dice.choice(numbers)
    number = max(0, int(found[0], 16) + dice.choice([-2, -1, 1, 2, 16]))
    return data[: found.start()] + b"%X" % number + data[found.end() :]


def in_line(data: bytes, at: int, more: bytes) -> bytes:
    """The data with more as header lines, from the first line end behind that place on."""
    line = data.find(b"\r\n", at)
    return data if line < 0 else data[: line + 2] + more + data[line + 2 :]


def cut(dice: random.Random, data: bytes) -> list[bytes]:
    """The data in pieces."""
    places = sorted(dice.randint(0, len(data)) for _ in range(dice.choice([0, 0, 1, 2, 5])))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
