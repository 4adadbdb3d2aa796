"""Random requests to the web server: ``python -m tests.service.worker.fuzz --requests 1000000 [--jobs 2] [--seed N]``.

Well-formed requests, cut at random places, have exactly the answers that gunicorn's own worker gives. Of malformed ones, made from these by
mutation, the application sees nothing that gunicorn's worker, another parser, would not let it see: none is hidden in another one. What is
answered is what gunicorn answers, byte for byte, up to the place where the server refuses to go on; where that is not the same place in both, the
difference has a name (:func:`compare`), and those that came up are counted. Nothing fails, every connection is closed, and the memory of the process
does not grow with what it has served.

Most cases are served without a kernel (:mod:`tests.service.worker.wire`), one in twenty over sockets. A case that breaks this is printed with the
line that makes it again: a case depends on its seed alone.
"""

# ruff: noqa: T201  (the output on the terminal is what this program is for)

import argparse
import faulthandler
import logging
import multiprocessing
import random
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple, Self

import gevent

from service.worker.response import refusal
from tests.service.worker.cases import Case, make_case
from tests.service.worker.growth import LOOKS, Look, grown, look
from tests.service.worker.serving import Application, Own, Remembering, Seen, Stock, exchange
from tests.service.worker.wire import Wire, exchange_at_once

PROGRESS_SECONDS = 15.0
HANG_SECONDS = 120.0
"""A case that takes longer ends the program, with where it was; the last line of progress tells the seed from which to look for it."""
NAMED = {
    "no Host": "HTTP/1.1 without Host",
    "an expectation that is not known": "Expect twice",
    "a transfer coding beside chunked": "gzip before chunked",
    " headers": "just above a limit: gunicorn does not count the headers that it leaves out",
}
"""What the server refuses, by words of its log, and gunicorn serves."""
_REFUSAL = re.compile(
    rb"HTTP/1\.1 [45][0-9]{2} [A-Za-z ]+\r\nContent-Type: text/plain; charset=utf-8\r\n"
    rb"Connection: close\r\nContent-Length: [0-9]+\r\n\r\n[ 0-9A-Za-z]+"
)
_LATER = re.compile(rb"HTTP/1\.[2-9] (?=[1-5][0-9]{2} )")
_MAY_STOP_EARLY = ("/lazy", "/part")


class Wrong(Exception):
    """What must not happen, in words."""


class Noted(logging.Handler):
    """What the server logs while it serves one connection.

    :ivar refused: the answer to what it refused, and why.
    :ivar failed: what it calls an error.
    """

    def __init__(self) -> None:
        super().__init__()
        self._logger = logging.getLogger("service.worker")
        self._before = self._logger.level, self._logger.propagate
        self.clear()

    def __enter__(self) -> Self:
        self._logger.addHandler(self)
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        level, self._logger.propagate = self._before
        self._logger.setLevel(level)

    def clear(self) -> None:
        """Forget the connection before."""
        self.refused: tuple[bytes, str] | None = None
        self.failed = ""

    def emit(self, record: logging.LogRecord) -> None:
        """See logging."""
        if record.levelno >= logging.ERROR:
            self.failed = logging.Formatter().format(record)
        elif record.msg.startswith("a request was refused"):
            status, why = record.args  # type: ignore[misc]  # as the line's format has it
            self.refused = refusal(status), str(why)


class Served(NamedTuple):
    """What came of a case at one server; ``connections`` is what each request says of its connection."""

    answered: bytes
    seen: list[Seen]
    connections: list[str]


def check(case: Case, noted: Noted) -> str:
    """Serve a case by both servers.

    :returns: the name of what differs between them, as is meant; empty when nothing does.
    :raises Wrong: something is not as it must be.
    """
    ours, theirs = Remembering(), Application()
    try:
        answered, stock = serve(case, Own(ours), Stock(theirs), noted)
    except (Exception, gevent.Timeout) as error:
        raise Wrong("".join(traceback.format_exception(error))) from error
    if noted.failed or b"HTTP/1.1 500 " in answered:
        raise Wrong(f"it failed: {answered!r}\n{noted.failed}")
    own, other = Served(answered, ours.seen, ours.connections), Served(stock, theirs.seen, theirs.connections)
    if own == other:
        return ""
    if not (case.mutated or case.breaks):
        raise Wrong(f"not as gunicorn: {told(own, other)}")
    spoken = other._replace(answered=_LATER.sub(b"HTTP/1.1 ", other.answered))
    if own == spoken:
        return "gunicorn speaks HTTP/1.2 and later, too"
    return compare(own, spoken, noted.refused, breaks=case.breaks)


def serve(case: Case, own: Own, stock: Stock, noted: Noted) -> tuple[bytes, bytes]:
    """What both servers answer."""
    noted.clear()
    if case.by_sockets:
        return exchange(own, case.pieces), exchange(stock, [case.data], pause=False)
    return exchange_at_once(own, Wire(case.pieces, case.takes, breaks=case.breaks)), exchange_at_once(stock, Wire([case.data]))


def compare(own: Served, other: Served, refused: tuple[bytes, str] | None, *, breaks: bool) -> str:
    """See :func:`check`, for what gunicorn serves otherwise.

    :param refused: the answer to what this server refused, and why.
    :param breaks: whether the client did not say that it had ended; to gunicorn it did.
    """
    if differs_in_keeping(own, other):
        return "a list in Connection"
    if not is_within(own.seen, other.seen):
        raise Wrong(f"a request that gunicorn does not see: {told(own, other)}")
    last, why = refused or (b"", "without a word")
    served = own.answered.removesuffix(last)
    if not own.answered.endswith(last) or not other.answered.startswith(served):
        raise Wrong(f"another answer than gunicorn's: {told(own, other)}")
    more = other.seen[len(own.seen) :]
    name = name_of_end(more, other.answered[len(served) :], why) if refused or not more else ""
    if not name and (refused or not breaks or len(more) > 1):
        raise Wrong(f"it ends otherwise than gunicorn ({why}): {told(own, other)}")
    return name or "a request that its client did not end"


def name_of_end(more: list[Seen], rest: bytes, why: str) -> str:
    """Why one server serves less than the other; empty when that is not known.

    :param more: what gunicorn's application has seen besides.
    :param rest: what gunicorn has answered behind what both have.
    :param why: this server has refused to go on.
    """
    if not more and _REFUSAL.fullmatch(rest):
        return "a head that both refuse, in other words or silently"
    if len(more) <= 1 and "body ended early" in why:
        return "chunks that end early"
    if len(more) == 1 and (more[0].body is None or more[0].target.startswith(_MAY_STOP_EARLY)):
        return "chunks that are malformed: the application is not asked"
    return next((name for words, name in NAMED.items() if words in why), "")


def differs_in_keeping(own: Served, other: Served) -> bool:
    """Whether one of the servers ended the connection behind a request that says several things of it, of which gunicorn heeds none.

    All before that is the same, and nothing was served by that one that the other has not served.
    """
    shorter, longer = sorted((own, other), key=lambda served: len(served.answered))
    count = len(shorter.seen)
    return (
        0 < count == len(shorter.connections)
        and "," in shorter.connections[-1]
        and longer.seen[:count] == shorter.seen
        and b"\nConnection: close\r" in shorter.answered  # the last one, of course
        and closing(longer.answered).startswith(closing(shorter.answered))
    )


def closing(answered: bytes) -> bytes:
    """Answers as if each were the last one."""
    return answered.replace(b"\nConnection: keep-alive\r", b"\nConnection: close\r")


def told(own: Served, other: Served) -> str:
    """Both, for people, from a little before the place on where their answers differ."""
    at = next((place for place, (one, two) in enumerate(zip(own.answered, other.answered, strict=False)) if one != two), 0)
    text = ""
    for name, served in (("kvorum", own), ("gunicorn", other)):
        seen = [(*each[:2], None if each.body is None else len(each.body)) for each in served.seen]
        text += f"\n{name}: {seen}\n  {served.answered[max(0, at - 200) :]!r}"
    return text


def is_within(ours: Sequence[Seen], theirs: Sequence[Seen]) -> bool:
    """Whether one server let the application see the same requests as the other, or fewer. A body that could not be read is like any other."""
    return len(ours) <= len(theirs) and all(
        own[:2] == other[:2] and (own.body == other.body or None in (own.body, other.body)) for own, other in zip(ours, theirs, strict=False)
    )


class Done(NamedTuple):
    """What was executed.

    :ivar by_sockets: how many of the requests went through the kernel.
    :ivar cut: how many of the connections got their bytes in pieces, and how many were reset, or could not send at once.
    :ivar wrong: what went wrong; empty when nothing did.
    """

    requests: int
    cases: int
    malformed: int
    by_sockets: int
    cut: int
    hindered: int
    looks: list[Look]
    differences: Counter[str]
    wrong: str


def run(first: int, step: int, requests: int, *, speaks: bool = True) -> Done:
    """Check cases and notice what the server logs; see :func:`run_noting`."""
    try:
        with Noted() as noted:
            return run_noting(noted, first, step, requests, speaks=speaks)
    finally:
        faulthandler.cancel_dump_traceback_later()


def run_noting(noted: Noted, first: int, step: int, requests: int, *, speaks: bool) -> Done:
    """Check cases until that many requests were sent, of this process.

    :param first: the seed of the first case.
    :param step: from one seed to the next.
    :param speaks: tell now and then how far it is, and end the program when it hangs.
    """
    differences, looks = Counter[str](), list[Look]()
    sent = cases = malformed = by_sockets = cut = hindered = 0
    wrong, seed, speak_at = "", first, time.monotonic()
    while sent < requests and not wrong:
        if speaks and time.monotonic() >= speak_at:
            speak_at += PROGRESS_SECONDS
            faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
            print(f"{sent} of {requests} requests; seed {seed}, every {step}", flush=True)
        case = make_case(seed)
        try:
            if difference := check(case, noted):
                differences[difference] += 1
        except Wrong as problem:
            wrong = f"{problem}\nsent: {case.pieces!r}\nagain: python -m tests.service.worker.fuzz --requests 1 --seed {seed}"
        sent, cases, seed = sent + case.requests, cases + 1, seed + step
        malformed += case.mutated * case.requests
        by_sockets += case.by_sockets * case.requests
        cut += len(case.pieces) > 1
        hindered += case.breaks or bool(case.takes)
        if sent >= requests * (len(looks) + 1) / LOOKS:
            looks.append(look(sent))
    wrong = wrong or grown(looks)
    return Done(sent, cases, malformed, by_sockets, cut, hindered, looks, differences, wrong)


def main() -> int:
    """Check cases until that many requests were sent, in as many processes as are asked for."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--requests", type=int, default=100_000)
    arguments.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    arguments.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    given = arguments.parse_args()
    began = time.monotonic()
    share = -(-given.requests // given.jobs)
    if given.jobs == 1:
        parts = [run(given.seed, 1, share)]
    else:
        with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool:
            asked = [pool.submit(run, given.seed + job, given.jobs, share) for job in range(given.jobs)]
            parts = [each.result() for each in asked]
    report(parts, given.seed, time.monotonic() - began)
    return 1 if any(part.wrong for part in parts) else 0


def report(parts: Sequence[Done], seed: int, seconds: float) -> None:
    """Print what was executed and what came of it."""
    requests, cases, malformed, by_sockets, cut, hindered = (sum(part[field] for part in parts) for field in range(6))
    print(f"{requests} requests on {cases} connections from seed {seed}, {len(parts)} at a time: {seconds:.0f} s")
    print(f"{malformed} of them on malformed connections, {by_sockets} through the kernel")
    print(f"{cut} connections in pieces, {hindered} reset or slow to read")
    for difference, count in sum((part.differences for part in parts), Counter[str]()).most_common():
        print(f"{count:>9} connections on which gunicorn does otherwise: {difference}")
    for part in parts:
        for when, taken in (("half", part.looks[len(part.looks) // 2 :][:1]), ("the end", part.looks[-1:])):
            for each in taken:
                print(f"memory of a process at {when}: {each.blocks} blocks, {each.size >> 10} KiB, {each.files} files")
        if part.wrong:
            print(f"WRONG: {part.wrong}")


if __name__ == "__main__":
    sys.exit(main())
