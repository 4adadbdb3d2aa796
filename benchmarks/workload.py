"""Requests for the load generator: writes, reads and transactions over numbered keys, as Consul's API has them.

Every write carries a new value: to write what is there already may cost a store less.
"""

import random
from base64 import b64encode
from collections.abc import Iterable, Iterator
from itertools import count, islice
from typing import Final

from benchmarks import hammer

A_PREFIX: Final = 10_000
"""How many keys have the same prefix."""
OPERATIONS_MAX: Final = 64
TXN_BYTES_MAX: Final = 384 * 1024
FILLING_CONNECTIONS: Final = 16
_HEAD: Final = b"%b /v1/%b HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n"
_MARK_BYTES: Final = 16


def prefix(number: int) -> str:
    """The prefix of the keys that begin with number times ten thousand."""
    return f"data/{number:03}/"


def key(number: int) -> bytes:
    """The name of a key."""
    return b"data/%03d/%04d" % divmod(number, A_PREFIX)


class Values:
    """Values of a length that never repeat.

    :param length: in bytes, at least 16.
    """

    def __init__(self, length: int, seed: int) -> None:
        if length < _MARK_BYTES:
            raise ValueError(f"a value needs {_MARK_BYTES} bytes, not {length}")
        self._marks = count(seed << 40)
        self._rest = random.Random(seed).randbytes(length - _MARK_BYTES)

    def next(self) -> bytes:
        """Another one."""
        return b"%016x" % next(self._marks) + self._rest


def puts(keys: int, value_bytes: int, seed: int) -> Iterator[bytes]:
    """Writes of single keys at random, without end."""
    dice, values = random.Random(seed), Values(value_bytes, seed)
    while True:
        yield _HEAD % (b"PUT", b"kv/" + key(dice.randrange(keys)), value_bytes) + values.next()


def gets(keys: int, seed: int, query: str = "") -> Iterator[bytes]:
    """Reads of single keys at random, without end.

    :param query: with its question mark.
    """
    dice, asked = random.Random(seed), query.encode()
    while True:
        yield _HEAD % (b"GET", b"kv/" + key(dice.randrange(keys)) + asked, 0)


def transactions(numbers: Iterable[int], value_bytes: int, seed: int) -> Iterator[bytes]:
    """Transactions that set keys, 64 in each, or fewer when the values are large.

    :param numbers: of the keys.
    """
    values = Values(value_bytes, seed)
    operations = max(1, min(OPERATIONS_MAX, TXN_BYTES_MAX // (value_bytes * 4 // 3 + 100)))
    left = iter(numbers)
    while some := list(islice(left, operations)):
        sets = [b'{"KV":{"Verb":"set","Key":"%b","Value":"%b"}}' % (key(number), b64encode(values.next())) for number in some]
        body = b"[" + b",".join(sets) + b"]"
        yield _HEAD % (b"PUT", b"txn", len(body)) + body


def random_transactions(keys: int, value_bytes: int, seed: int) -> Iterator[bytes]:
    """Transactions over keys at random, without end."""
    dice = random.Random(seed)
    return transactions((dice.randrange(keys) for _ in count()), value_bytes, seed)


def fill(url: str, keys: int, value_bytes: int, connections: int = FILLING_CONNECTIONS, told_every: int = 0) -> float:
    """Write every key once, by transactions; large values one by one.

    :param url: of the node that is written to.
    :param told_every: after how many keys a line is printed; 0 for none.
    :returns: the seconds it took.
    :raises hammer.LoadFailed: when not everything was written.
    """
    numbers = _told(keys, told_every) if told_every else iter(range(keys))
    if value_bytes * 4 // 3 + 100 <= TXN_BYTES_MAX:
        requests = transactions(numbers, value_bytes, seed=0)
    else:
        values = Values(value_bytes, seed=0)
        requests = (_HEAD % (b"PUT", b"kv/" + key(number), value_bytes) + values.next() for number in numbers)
    return hammer.send_all([url], requests, connections)


def _told(keys: int, every: int) -> Iterator[int]:
    for number in range(keys):
        if number % every == 0 and number:
            print(f"    {number:,} of {keys:,} keys", flush=True)
        yield number
