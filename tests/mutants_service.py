"""Do the tests of the service notice? ``python -m tests.mutants_service`` plants deliberate faults of the service in a copy; a test must find each.

Numbers such as M34 are those of the catalogue of scenarios. A fault is a piece of text that stands exactly once in its file, and what stands there
instead. The tests of each fault pass on the copy as it is, and at least one fails with the fault in it: an error before any test ran doesn't
count. Prints a line a fault; the exit status is 1 when one survived.
"""

# ruff: noqa: T201  (the output on the terminal is what this program is for)

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).resolve().parent.parent
SECONDS_MAX = 900
COPIED = ("raft", "service", "tests", "pyproject.toml")

EXPIRY = "tests/service/agent/test_session_expiry.py"
STORE = "tests/service/store/test_sessions.py"
BLOCKING = "tests/service/api/test_blocking.py"
ONCE = "tests/service/store/test_once.py"
CLIENT = "tests/service/api/test_client.py"
KEPT = "tests/service/api/test_kept.py"
PERMITTED = "tests/service/store/test_permitted.py"
PERMISSIONS = "tests/service/api/test_acl_wire.py"
UNDER_FAULTS = "tests/processes/test_under_faults.py"


class Mutant(NamedTuple):
    """A fault to plant.

    :ivar name: short; with the number of the catalogue, if it has one.
    :ivar fault: what is wrong with it.
    :ivar path: the file; ``before`` stands in it once, and is replaced by ``after``.
    :ivar tests: of which one must fail, as pytest names them.
    """

    name: str
    fault: str
    path: str
    before: str
    after: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "M30 nothing remembered",
        "a request that comes again under its key is carried out again",
        "service/store/apply/once.py",
        "    once_rows.remember(view.open(), command.key, once_rows.Remembered(index, command.digest, result, command.memo))\n",
        "",
        (f"{ONCE}::test_a_second_attempt_gets_the_first_one_s_answer",),
    ),
    Mutant(
        "M31 local clock",
        "when remembered requests are forgotten depends on the clock of each node",
        "service/store/apply/once.py",
        "command.bytes_max)\n    known = ",
        'command.bytes_max if __import__("time").time_ns() >> 10 & 1 else 0)\n    known = ',
        (f"{ONCE}::test_cl_03_replicas_agree_however_the_log_is_cut",),
    ),
    Mutant(
        "conditions before the log",
        "a condition on a key counts as held when it is applied",
        "service/store/apply/conditions.py",
        "if not command.condition.holds(found):",
        "if False:",
        ("tests/service/api/test_conditions_wire.py::test_judged_where_it_is_applied",),
    ),
    Mutant(
        "permission forgotten on the way",
        "a write is carried out though the ACL has changed since its sender was permitted",
        "service/store/apply/acl.py",
        "if view.acl_index() == command.seen_index else",
        "if True else",
        (f"{PERMITTED}::test_counts_while_the_acl_is_the_same",),
    ),
    Mutant(
        "permission of the batch",
        "a change of the ACL is not seen by what comes behind it in its batch",
        "service/store/transaction.py",
        "        self.tables.append(table)\n        self._acl_index = None\n",
        "        self.tables.append(table)\n",
        (f"{PERMITTED}::test_replicas_agree_however_the_log_is_cut",),
    ),
    Mutant(
        "permission remembered",
        "a write that is permitted by what a worker remembers is not compared with the ACL where it is applied",
        "service/api/acl/permissions.py",
        "return write(*remembered)",
        "return write(remembered[0], None)",
        (f"{PERMISSIONS}::test_a_permission_counts_when_the_write_is_applied",),
    ),
    Mutant(
        "M32 wall clock",
        "the time of sessions is that of the wall clock, which may be set",
        "service/agent/session_expiry.py",
        "self.tick(loop.time(), has_leader",
        'self.tick(__import__("time").time(), has_leader',
        (f"{EXPIRY}::test_sl_02_the_wall_clock_does_not_count",),
    ),
    Mutant(
        "M32 any node",
        "every node proposes the end of sessions, not the leader alone",
        "service/agent/session_expiry.py",
        "if server.leads and (due := self.due()):",
        "if due := self.due():",
        (f"{EXPIRY}::test_only_a_leader_proposes",),
    ),
    Mutant(
        "M32 no leader",
        "time without a leader counts, though nobody could renew in it",
        "service/agent/session_expiry.py",
        "if has_leader and self._ticked is not None:",
        "if self._ticked is not None:",
        (f"{EXPIRY}::test_time_without_a_leader_does_not_count",),
    ),
    Mutant(
        "M32 overtaken",
        "a session is ended though it was renewed after its time was counted",
        "service/store/apply/sessions.py",
        "if view.renewed_index(command.id) != command.renewed_index:",
        "if view.renewed_index(command.id) == 0:",
        (f"{STORE}::test_renewals",),
    ),
    Mutant(
        "lock-delay forgotten",
        "the loss of a lock leaves no delay",
        "service/store/apply/sessions.py",
        "if session.lock_delay_ns > 0:",
        "if session.lock_delay_ns < 0:",
        (f"{STORE}::test_lock_delays",),
    ),
    Mutant(
        "M34 late registration",
        "a blocking query is evaluated first, and registered a turn of the loop later",
        "service/api/blocking.py",
        """\
        group = self._register(query, waiter)
        try:
            self._watch()
            first = self._reads.read(query, **freshness._asdict())
""",
        """\
        self._watch()
        first = self._reads.read(query, **freshness._asdict())
        gevent.sleep(0)
        group = self._register(query, waiter)
        try:
""",
        (f"{BLOCKING}::test_wa_02_no_wakeup_is_lost",),
    ),
    Mutant(
        "M34 change in an evaluation",
        "a change that comes while a query is evaluated anew is forgotten",
        "service/api/blocking.py",
        "            while group.dirty and group.waiters:\n                forced,",
        "            for _ in range(1):\n                forced,",
        (f"{BLOCKING}::test_wa_02_no_wakeup_is_lost",),
    ),
    Mutant(
        "M40 late",
        "a proposal that was sent and not answered in time is called rejected",
        "service/ipc/client.py",
        "wake(proposal.waiter, OutcomeUnknown(LATE) if proposal.sent else",
        "wake(proposal.waiter, RequestRejected(LATE) if proposal.sent else",
        (CLIENT,),
    ),
    Mutant(
        "M40 broken",
        "a proposal whose connection broke before the answer is called rejected",
        "service/ipc/client.py",
        'wake(proposal.waiter, OutcomeUnknown("the connection to the agent broke before it answered"))',
        'wake(proposal.waiter, RequestRejected("the connection to the agent broke before it answered"))',
        (CLIENT,),
    ),
    Mutant(
        "M40 kind",
        "an unknown outcome that the agent tells is called rejected",
        "service/ipc/client.py",
        'return RequestRejected(reason) if kind == "rejected" else OutcomeUnknown(reason)',
        "return RequestRejected(reason)",
        (CLIENT,),
    ),
    Mutant(
        "M40 timeout",
        "a write that is in a log and is not answered in time is called rejected",
        "raft/runtime/proposals.py",
        "batch.settle(ProposalTimeout(round(now - batch.began, 1)))",
        "batch.settle(DeadlinePassed(str(ProposalTimeout(round(now - batch.began, 1)))))",
        (f"{UNDER_FAULTS}::test_cl_05_failed_means_not_applied",),
    ),
    Mutant(
        "answers outdated",
        "an answer that is kept is given again although something newer must be seen",
        "service/api/fastpath.py",
        "if required > kept.as_of:",
        "if False:",
        (KEPT,),
    ),
    Mutant(
        "answers of others",
        "an answer that is kept is given again to whoever asks for the same, with whatever headers",
        "service/api/kept.py",
        "return self._by_head.get(head)",
        "return next((kept for known, kept in self._by_head.items() if known.split()[1] == head.split()[1]), None)",
        (KEPT,),
    ),
    Mutant(
        "answers by old permissions",
        "an answer counts as new as its value, however old the permission is that it was given by",
        "service/api/reads.py",
        "return Result(index, applied, row, as_of=min(as_of, applied))",
        "return Result(index, applied, row, as_of=applied)",
        (KEPT,),
    ),
    Mutant(
        "batch in two",
        "keys that a transaction loads in the midst of a batch can be seen before the batch is whole",
        "service/store/transaction.py",
        "if (index, self._term) == self._last:",
        "if index:",
        ("tests/service/store/test_txn.py",),
    ),
)


class Verdict(NamedTuple):
    """What became of a fault.

    :ivar killed_by: the tests that failed with it; empty when it survived.
    :ivar problem: why nothing can be said; else empty.
    """

    mutant: Mutant
    killed_by: tuple[str, ...]
    problem: str
    seconds: float


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of what the tests need."""
    with tempfile.TemporaryDirectory(prefix="kvorum-mutant-") as folder:
        for name in COPIED:
            source, target = TOP / name, Path(folder, name)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        yield Path(folder)


def run_tests(folder: Path, tests: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Run tests in a copy.

    :returns: the names of those that failed, and what kept them from running, if anything did.
    """
    report = folder / "report.xml"
    # The copy's packages are imported, and not those that are installed: also by the nodes that a test starts.
    environ = {**os.environ, "PYTHONPATH": str(folder)}
    argv = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--junit-xml={report}", *tests]
    try:
        done = subprocess.run(argv, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        return (), f"not over within {SECONDS_MAX} s"
    if done.returncode not in {0, 1} or not report.exists():
        return (), f"pytest ended with {done.returncode}: {done.stdout[-500:]}{done.stderr[-500:]}"
    cases = list(ET.parse(report).iter("testcase"))
    if not cases or any(case.find("error") is not None for case in cases):
        return (), f"the tests could not run: {done.stdout[-500:]}"
    return tuple(case.get("name", "") for case in cases if case.find("failure") is not None), ""


@cache
def sound(tests: tuple[str, ...]) -> str:
    """Why the tests say nothing: they fail without any fault. Empty when they pass."""
    with copied() as folder:
        failed, problem = run_tests(folder, tests)
    return problem or (f"{', '.join(failed)} failed without a fault" if failed else "")


def hunt(mutant: Mutant) -> Verdict:
    """Plant a fault and run its tests."""
    began = time.monotonic()
    if problem := sound(mutant.tests):
        return Verdict(mutant, (), problem, time.monotonic() - began)
    with copied() as folder:
        path = folder / mutant.path
        text = path.read_text(encoding="utf-8")
        if text.count(mutant.before) != 1:
            return Verdict(mutant, (), f"{mutant.path} has {mutant.before!r} {text.count(mutant.before)} times", time.monotonic() - began)
        path.write_text(text.replace(mutant.before, mutant.after), encoding="utf-8")
        killed_by, problem = run_tests(folder, mutant.tests)
    return Verdict(mutant, killed_by, problem, time.monotonic() - began)


def main(arguments: list[str] | None = None) -> int:
    """Hunt all faults, or those that are named.

    :returns: the exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.mutants_service", description="Planted faults of the service: a test must notice each.")
    parser.add_argument("--only", action="append", metavar="NAME", help="only faults whose name begins so (may be given several times)")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(arguments)
    chosen = [mutant for mutant in MUTANTS if not options.only or mutant.name.startswith(tuple(options.only))]
    if not chosen:
        parser.error(f"no fault is called so; there are {', '.join(mutant.name for mutant in MUTANTS)}")
    survived = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for verdict in pool.map(hunt, chosen):
            survived += not verdict.killed_by
            became = f"killed by {', '.join(verdict.killed_by)}" if verdict.killed_by else verdict.problem or "SURVIVED"
            print(f"{verdict.mutant.name:<28} {became}  ({verdict.seconds:.0f} s)  {verdict.mutant.fault}", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} faults were noticed")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
