"""Looking at a state file that nobody uses, without changing it: how far it is, what it holds, whether it is whole."""

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import StateUnreadable
from service.store import engine
from service.store.digest import Digest, digest
from service.store.schema import UNSUMMED_VERSION
from service.store.sums import PageSums

_FINDINGS_MAX = 100


@dataclass(slots=True)
class StateReport:
    """What a state file says.

    :ivar digest: None when the file can't be read; then there is a problem that says why.
    :ivar superseded_by: the generation that took its place; 0 for the live one.
    :ivar problems: everything that is wrong with it.
    """

    format_version: int = 0
    digest: Digest | None = None
    tombstones: int = 0
    superseded_by: int = 0
    problems: list[str] = field(default_factory=list)


def inspect_state(path: Path, original: Path) -> StateReport:
    """Read and verify a whole file.

    :param path: a file that holds everything in itself: no write-ahead log lies beside it, and nobody writes it.
    :param original: where it lies in the data directory, with its sums.
    """
    report = StateReport()
    try:
        with closing(engine.open_still(path)) as connection:
            report.format_version = connection.execute("PRAGMA user_version").fetchone()[0]
            findings = [row[0] for row in connection.execute(f"PRAGMA quick_check({_FINDINGS_MAX})")]
            report.problems += [f"SQLite finds: {finding}" for finding in findings if finding != "ok"]
            found = connection.execute("SELECT superseded_by, (SELECT count(*) FROM tombstones) FROM meta WHERE id = 1").fetchone()
            if found is None:
                report.problems.append("it does not say which entries it holds: it was never completed")
                return report
            report.superseded_by, report.tombstones = found
            report.digest = digest(connection)
    except StateUnreadable as error:
        report.problems.append(str(error))
    except engine.DATABASE_ERRORS as error:
        report.problems.append(f"it can't be read: {error}")
    if report.format_version != UNSUMMED_VERSION:
        report.problems += _page_problems(original, report.digest)
    return report


def _page_problems(path: Path, held: Digest | None) -> list[str]:
    try:
        with closing(PageSums(path)) as pages:
            pages.check(mend=False)
            if held is not None:
                pages.check_index(held.index)
    except StateUnreadable as error:
        return [str(error)]
    return []
