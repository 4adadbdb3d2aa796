"""A client's connection to a cluster: one node at a time, and the truth about what became of each request."""

import http.client
from collections.abc import Mapping, Sequence
from typing import NamedTuple

ANSWER_SECONDS = 20.0


class Reply(NamedTuple):
    """An answer; ``status`` 0 stands for none at all.

    :ivar outcome: of one that is no success: ``rejected`` or ``unknown``.
    :ivar index: X-Consul-Index; 0 when there is none.
    :ivar written: X-Kvorum-Index, that of the entry by which a write was carried out; 0 when there is none.
    """

    status: int
    body: bytes
    outcome: str
    index: int = 0
    written: int = 0


class Connection:
    """Requests to one node as long as it answers, to the next one after it did not.

    :param ports: of the nodes' APIs on loopback.
    :ivar last: the outcome of the last request.
    """

    def __init__(self, ports: Sequence[int], first: int) -> None:
        self._ports = ports
        self._at = first
        self._link: http.client.HTTPConnection | None = None
        self.last = ""

    def ask(self, method: str, path: str, body: bytes = b"", seconds: float = ANSWER_SECONDS, headers: Mapping[str, str] | None = None) -> Reply:
        """Make a request, once.

        :returns: the answer; its outcome is ``rejected`` when it was surely not carried out, ``unknown`` when nobody can tell.
        """
        reply = self._ask(method, path, body, seconds, headers or {})
        self.last = reply.outcome
        return reply

    def _ask(self, method: str, path: str, body: bytes, seconds: float, headers: Mapping[str, str]) -> Reply:
        try:
            self._open(seconds)
        except OSError:
            self._next()
            return Reply(0, b"", "rejected")
        assert self._link is not None
        try:
            self._link.request(method, path, body, headers)
            answer = self._link.getresponse()
            told = answer.headers
            indexes = int(told.get("X-Consul-Index", "0")), int(told.get("X-Kvorum-Index", "0"))
            reply = Reply(answer.status, answer.read(), told.get("X-Kvorum-Outcome", ""), *indexes)
        except (OSError, http.client.HTTPException):
            self._next()
            return Reply(0, b"", "unknown")
        if reply.outcome:
            self._next()
        return reply

    def close(self) -> None:
        """Let go."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _open(self, seconds: float) -> None:
        if self._link is None:
            self._link = http.client.HTTPConnection("127.0.0.1", self._ports[self._at % len(self._ports)], timeout=seconds)
            try:
                self._link.connect()
            except OSError:
                self.close()
                raise
        elif self._link.sock is not None:
            self._link.sock.settimeout(seconds)

    def _next(self) -> None:
        self.close()
        self._at += 1
