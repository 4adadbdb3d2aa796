"""The book-keeping of the chaos run: it must notice what it is there to notice."""

import pytest
from ledger import Ledger, Outcome, Phase


@pytest.fixture
def ledger() -> Ledger:
    """One acknowledged and one unknown key."""
    ledger = Ledger()
    with ledger.phase("import") as phase:
        ledger.written(phase, "sure", b"1", Outcome.ACKNOWLEDGED, "200")
        ledger.written(phase, "perhaps", b"2", Outcome.UNKNOWN, "ReadTimeout")
    return ledger


def complaints_after(ledger: Ledger, key: str, found: bytes | None) -> int:
    """How many complaints reading this answer adds."""
    before = len(ledger.complaints)
    ledger.read(Phase("read"), "node1", key, found)
    return len(ledger.complaints) - before


def test_right_bytes_are_no_complaint(ledger: Ledger) -> None:
    """An acknowledged key that is read with its bytes, and an unknown one that is missing, are both fine."""
    assert complaints_after(ledger, "sure", b"1") == 0
    assert complaints_after(ledger, "perhaps", None) == 0


@pytest.mark.parametrize("found", [None, b"", b"2"])
def test_lost_or_changed_acknowledged_key(ledger: Ledger, found: bytes | None) -> None:
    """An acknowledged key that is missing or has other bytes is a complaint."""
    assert complaints_after(ledger, "sure", found) == 1


def test_unknown_key_with_other_bytes(ledger: Ledger) -> None:
    """An unknown write may be there or not, but never with bytes that nobody sent."""
    assert complaints_after(ledger, "perhaps", b"3") == 1


def test_unknown_key_that_was_read_may_not_vanish(ledger: Ledger) -> None:
    """Once an unknown write was seen it happened, so it must stay."""
    assert complaints_after(ledger, "perhaps", b"2") == 0
    assert complaints_after(ledger, "perhaps", None) == 1


def test_definite_failure_is_a_complaint(ledger: Ledger) -> None:
    """A rejected write is counted and complained about."""
    phase = Phase("write")
    ledger.written(phase, "refused", b"", Outcome.REJECTED, "400 'Missing key name'")
    assert phase.outcomes[Outcome.REJECTED] == 1
    assert len(ledger.complaints) == 1


def test_table_names_every_phase_and_complaint(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    """The table at the end holds each step, and each complaint follows."""
    ledger.complain(ledger.phases[0], "node2 exited with 137")
    ledger.print_table()
    printed = capsys.readouterr().out
    assert "import" in printed
    assert "WRONG: node2 exited with 137" in printed
