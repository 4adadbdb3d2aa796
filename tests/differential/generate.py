"""Random sequences of requests, each from its seed and number alone."""

import base64
import json
import random
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from tests.differential import samples
from tests.differential.operations import NOBODY, Operation, Sequence

LENGTH = (15, 60)
"""Requests of a sequence, least and most."""
KV_BYTES_MAX = 524_288


class _Maker:
    """Makes the operations of one sequence."""

    def __init__(self, choice: random.Random) -> None:
        self.random = choice
        self.keys = tuple("<P>" + name for name in (*choice.sample(samples.PLAIN, 4), *choice.sample(samples.ODD, 2)))
        self.hidden = tuple("<P>" + name for name in choice.sample(samples.ONLY_IN_TXN, 2))

    # -- parts --

    def key(self) -> str:
        return self.random.choice(self.keys)

    def number(self) -> str:
        """A conditional index: mostly one that may hold."""
        return self.one_of((8, f"<M{self.random.randrange(len(self.keys))}>"), (2, "0"), (1, self.random.choice(samples.UNSIGNED)))

    def one_of(self, *choices: tuple[float, Any]) -> Any:
        """One of them, by weight."""
        return self.random.choices([value for _, value in choices], [weight for weight, _ in choices])[0]

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def session(self) -> str:
        return self.one_of((10, f"<S{self.random.randrange(4)}>"), (1, NOBODY), (0.5, self.random.choice(samples.IDS)))

    def value(self) -> bytes:
        return self.one_of(
            (4, self.random.choice((b"", b"x", b"y", b"value"))),
            (1, self.random.randbytes(self.random.randrange(40))),
            (0.5, "ü<&>\u2028".encode()),
            (0.3, b'{"a": [1, 2]}'),
        )

    def path(self, key: str) -> str:
        """A key as part of a target, one way or another."""
        prefix, _, name = key.rpartition("<P>")
        start = "<P>" if key.startswith("<P>") else prefix
        style = self.random.randrange(6)
        if style == 0:
            return start + "".join(f"%{byte:02x}" for byte in name.encode())
        if style == 1:
            return start + quote(name, safe="")
        if style == 2:
            return start + quote(name, safe="/+;=&$,:@!*'()")
        if style == 3 and name.isprintable() and not set(name) & set(" ?#%"):
            return start + name
        return start + quote(name)

    def query(self, *parts: str) -> str:
        """The parts, with now and then something else among them."""
        found = [part for part in parts if part]
        if self.chance(0.08):
            found.append(self.random.choice(samples.PRETTY))
        if self.chance(0.05):
            found.append(self.random.choice(samples.OTHERS))
        if self.chance(0.02) and found:
            found.append(self.random.choice(found))
        if self.chance(0.2):
            self.random.shuffle(found)
        return "?" + "&".join(found) if found or self.chance(0.02) else ""

    def headers(self) -> tuple[tuple[str, str], ...]:
        return self.random.choice(samples.HEADERS) if self.chance(0.03) else ()

    def freshness(self) -> str:
        """How fresh a read is to be, and whether it waits."""
        asked = self.one_of(
            (12, ""), (2, "consistent"), (2, "stale"), (0.3, "stale&consistent"), (0.2, "stale=false"), (0.2, "cached"), (0.1, "cached&consistent")
        )
        if self.chance(0.08):
            wait = self.one_of((10, self.random.choice(samples.DURATIONS)), (1, self.random.choice(samples.BAD_DURATIONS)))
            index = self.one_of((6, "<I>"), (2, f"<M{self.random.randrange(len(self.keys))}>"), (1, self.random.choice(samples.UNSIGNED)))
            return f"{asked}&index={index}&wait={wait}".lstrip("&")
        return str(asked)

    # -- keys --

    def get(self) -> Operation:
        what = self.one_of(
            (10, ""),
            (4, "raw"),
            (5, "recurse"),
            (4, "keys"),
            (4, "keys&separator=/"),
            (1, "keys&separator="),
            (1, "keys&separator=b/"),
            (0.5, "keys&separator=%2F"),
            (0.5, "keys&separator=ü"),
            (0.5, "keys&recurse"),
            (0.5, "raw&recurse"),
            (0.5, "keys&seperator=/"),
            (0.3, "recurse=false"),
            (0.3, "recurse&separator=/"),
            (0.3, "keys=false&raw"),
            (0.3, "separator=/"),
        )
        many = "recurse" in what or "keys" in what
        key = self.one_of((6, self.key()), (4 if many else 0.3, self.random.choice(("<P>", "<P>a", "<P>a/", "<P>nothing", "", "nothing"))))
        return Operation(
            "get " + (what.partition("&")[0] or "one"), "GET", f"/v1/kv/{self.path(key)}{self.query(what, self.freshness())}", None, self.headers()
        )

    def put(self) -> Operation:
        condition = self.one_of(
            (6, ""),
            (3, f"cas={self.number()}"),
            (5, f"acquire={self.session()}"),
            (3, f"release={self.session()}"),
            (0.3, f"cas=0&acquire={self.session()}"),
            (0.2, "acquire=x&release=<S0>&b=c d"),
            (0.2, "acquire"),
            (0.2, "release="),
            (0.1, "cas"),
            (0.1, "acquire=%ff"),
            (0.1, "release=" + "x" * 36),
            (0.1, "cas=1&cas=<M0>"),
        )
        flags = self.one_of((6, ""), (2, f"flags={self.random.randrange(5)}"), (0.5, f"flags={self.random.choice(samples.UNSIGNED)}"))
        body = self.value() if self.chance(0.97) else None
        kind = "put " + (condition.partition("=")[0].partition("&")[0] or "plain")
        key = self.key() if self.chance(0.98) else ""
        return Operation(
            kind,
            "PUT",
            f"/v1/kv/{self.path(key)}{self.query(condition, flags)}",
            body,
            self.headers(),
            chunked=body is not None and self.chance(0.03),
        )

    def put_large(self) -> Operation:
        size = self.random.choice((KV_BYTES_MAX, KV_BYTES_MAX + 1, KV_BYTES_MAX + 1, 100_000))
        return Operation("put large", "PUT", f"/v1/kv/{self.path(self.key())}{self.query(self.one_of((1, ''), (1, 'flags=x')))}", b"x" * size)

    def delete(self) -> Operation:
        what = self.one_of((6, ""), (4, f"cas={self.number()}"), (2, "recurse"), (0.4, "recurse&cas=0"), (0.2, "recurse=false"))
        key = self.random.choice((*self.keys, "<P>a", "<P>a/", "<P>nothing", "<P>")) if self.chance(0.98) else ""
        return Operation(
            "delete " + (what.partition("=")[0].partition("&")[0] or "one"),
            "DELETE",
            f"/v1/kv/{self.path(key)}{self.query(what)}",
            None,
            self.headers(),
        )

    # -- transactions --

    def operation(self) -> dict[str, Any]:
        verb = self.random.choice(samples.VERBS) if self.chance(0.97) else self.random.choice(samples.BAD_VERBS)
        found: dict[str, Any] = {
            "Verb": verb,
            "Key": self.one_of((20, self.key()), (3, self.random.choice(self.hidden)), (2, "<P>a"), (0.3, ""), (1, "<P>")),
        }
        if self.chance(0.5):
            found["Value"] = base64.b64encode(self.value()).decode()
        if self.chance(0.2):
            found["Flags"] = self.random.choice((0, 1, 2, 2**64 - 1))
        if verb in {"cas", "delete-cas", "check-index"} or self.chance(0.05):
            found["Index"] = self.one_of((8, f"<M{self.random.randrange(len(self.keys))}>"), (2, 0), (1, 1))
        if verb in {"lock", "unlock", "check-session"} or self.chance(0.05):
            found["Session"] = self.session().replace("%", "") if self.chance(0.95) else ""
        return found

    def txn(self) -> Operation:
        count = self.one_of((4, 1), (4, 2), (3, 3), (2, 5), (1, 8), (0.1, 64), (0.1, 65), (0.1, 0))
        found = [{"KV": self.operation()} for _ in range(count)]
        if self.chance(0.2):
            for item in found:
                item["KV"]["Verb"] = self.random.choice(("get", "get-tree", "check-index", "check-session", "check-not-exists"))
        text = json.dumps(found, ensure_ascii=self.chance(0.5), separators=self.random.choice(((",", ":"), (", ", ": "))))
        for number in range(len(self.keys)):
            text = text.replace(f'"<M{number}>"', f"<M{number}>")
        return Operation(
            "txn",
            "PUT",
            "/v1/txn" + self.query(self.one_of((8, ""), (1, self.freshness()))),
            text.encode(),
            self.headers(),
            chunked=self.chance(0.02),
        )

    def txn_odd(self) -> Operation:
        body = self.random.choice(samples.BAD_JSON)
        if self.chance(0.3):
            # A message may show any byte of the body: none may be a server's own.
            whole = re.sub(rb"<S[0-9]+>", NOBODY.encode(), json.dumps([{"KV": self.operation()}]).encode())
            whole = re.sub(rb"<M[0-9]+>", b"7", whole)
            position = self.random.randrange(len(whole))
            body = self.one_of((1, whole[:position]), (1, whole[:position] + bytes([self.random.randrange(256)]) + whole[position + 1 :]))
        return Operation("txn odd", "PUT", "/v1/txn" + self.query(), body, self.headers())

    # -- sessions --

    def session_create(self) -> Operation:
        fields: dict[str, Any] = {}
        if self.chance(0.7):
            fields["LockDelay"] = self.one_of((4, "0s"), (2, "60s"), (2, self.random.choice(samples.LOCK_DELAYS)))
        if self.chance(0.5):
            fields["Behavior"] = self.one_of((4, self.random.choice(("release", "delete"))), (1, self.random.choice(samples.BEHAVIORS)))
        if self.chance(0.3):
            fields["TTL"] = self.one_of((2, "3600s"), (2, self.random.choice(samples.TTLS)))
        if self.chance(0.2):
            fields["Name"] = self.random.choice(("", "name", "ü<>", "x" * 200))
        body = json.dumps(fields).encode() if self.chance(0.85) else self.random.choice((None, *samples.BAD_SESSIONS))
        return Operation("session create", "PUT", "/v1/session/create" + self.query(), body, self.headers())

    def session_write(self) -> Operation:
        verb = self.random.choice(("destroy", "renew"))
        return Operation(
            f"session {verb}", "PUT", f"/v1/session/{verb}/{self.session_id()}{self.query()}", self.one_of((9, None), (1, b"{}")), self.headers()
        )

    def session_read(self) -> Operation:
        path = self.one_of(
            (4, "info/" + self.session_id()), (2, "list"), (2, "node/" + self.random.choice(("n1", "n1", "N1", "other", "", "n1/", "n%31", "ü")))
        )
        return Operation("session " + path.partition("/")[0], "GET", f"/v1/session/{path}{self.query(self.freshness())}", None, self.headers())

    def session_id(self) -> str:
        return self.one_of((8, f"<S{self.random.randrange(4)}>"), (2, self.random.choice(samples.IDS)))

    # -- whatever else a client may send --

    def method(self) -> Operation:
        path = self.one_of((3, f"/v1/kv/{self.path(self.key())}"), (3, self.random.choice(samples.ELSEWHERE)))
        method = self.random.choice(samples.METHODS)
        return Operation(
            "method", method, path + self.query(), self.one_of((3, None), (1, b"x")) if method not in {"GET", "DELETE"} else None, self.headers()
        )

    def path_odd(self) -> Operation:
        method = self.random.choice(("GET", "PUT", "DELETE"))
        if self.chance(0.5):
            path = self.random.choice(samples.ELSEWHERE)
        else:
            path = "/v1/kv/<P>" + self.random.choice(samples.BAD_PATHS) + self.random.choice(("", "", "a", "/"))
        return Operation("path", method, path + self.query(), b"x" if method == "PUT" else None)

    def next(self) -> Operation:
        """Any of them."""
        makers: list[tuple[float, Callable[[], Operation]]] = [
            (26, self.get),
            (24, self.put),
            (0.15, self.put_large),
            (8, self.delete),
            (18, self.txn),
            (2, self.txn_odd),
            (5, self.session_create),
            (5, self.session_write),
            (5, self.session_read),
            (2, self.method),
            (3, self.path_odd),
        ]
        made: Operation = self.one_of(*makers)()
        return made


def sequence(seed: int, number: int) -> Sequence:
    """The sequence of this number: always the same."""
    maker = _Maker(random.Random(f"{seed}:{number}"))
    return Sequence(maker.keys, (maker.session_create(), *(maker.next() for _ in range(maker.random.randint(*LENGTH)))))
