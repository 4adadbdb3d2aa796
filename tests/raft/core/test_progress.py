"""What a leader knows of one follower: the three states and the window."""

from raft.core.progress import Progress, ProgressState

APPENDS, BYTES = 3, 100


def probing(match: int = 0, next_index: int = 5) -> Progress:
    """A follower that is being probed."""
    progress = Progress("b", next_index, tick=0)
    progress.match = match
    return progress


def replicating(match: int = 4) -> Progress:
    """A follower whose log agrees up to ``match``."""
    progress = probing(match)
    progress.become_replicate()
    return progress


def test_a_probe_is_one_append_at_a_time() -> None:
    """After one append a probed follower gets no other before an answer or a heartbeat interval."""
    progress = probing()
    assert progress.may_send(APPENDS, BYTES)
    progress.sent(7, 10)
    assert not progress.may_send(APPENDS, BYTES)
    assert (progress.next, progress.inflight) == (5, 0)
    progress.retry()
    assert progress.may_send(APPENDS, BYTES)
    assert not progress.nudge


def test_the_window_is_bounded_by_count_and_by_bytes() -> None:
    """Appends are sent ahead until the count or the bytes in flight reach their limits."""
    progress = replicating()
    for index in (5, 6, 7):
        assert progress.may_send(APPENDS, BYTES)
        progress.sent(index, 10)
    assert not progress.may_send(APPENDS, BYTES)
    assert (progress.next, progress.inflight, progress.inflight_bytes) == (8, 3, 30)
    large = replicating()
    large.sent(5, 500)
    assert not large.may_send(APPENDS, BYTES)


def test_an_acceptance_frees_the_window_up_to_its_index() -> None:
    """An answer covers every append up to its index; one that is old is no news and frees nothing."""
    progress = replicating()
    for index in (5, 6, 7):
        progress.sent(index, 10)
    assert progress.accepted(6)
    assert (progress.match, progress.next, progress.inflight, progress.inflight_bytes) == (6, 8, 1, 10)
    assert not progress.accepted(5)
    assert (progress.match, progress.inflight) == (6, 1)
    assert progress.accepted(9)
    assert (progress.match, progress.next, progress.inflight) == (9, 10, 0)


def test_an_empty_append_takes_no_room() -> None:
    """An append without entries moves neither the window nor the next index; it ends a nudge."""
    progress = replicating()
    progress.retry()
    assert progress.nudge
    progress.sent(4, 0)
    assert (progress.next, progress.inflight, progress.nudge) == (5, 0, False)


def test_a_refusal_sends_a_probe_back() -> None:
    """A refused probe goes back to where the logs may agree, and may be sent again."""
    progress = probing(match=1, next_index=9)
    progress.sent(9, 1)
    assert progress.refused(8, 3)
    assert (progress.next, progress.probe_sent) == (4, False)


def test_a_refusal_never_goes_below_the_match() -> None:
    """However far back a hint points, what is known to match stays known."""
    progress = probing(match=5, next_index=9)
    assert progress.refused(8, 0)
    assert progress.next == 6


def test_lr_06_late_refusals() -> None:
    """A refusal older than what is known changes nothing: while probing, while replicating, and with a snapshot under way."""
    probe = probing(match=2, next_index=9)
    assert not probe.refused(5, 1)
    assert probe.next == 9
    ahead = replicating(match=4)
    ahead.sent(5, 1)
    assert not ahead.refused(4, 0)
    assert (ahead.state, ahead.next) == (ProgressState.REPLICATE, 6)
    waiting = probing()
    waiting.become_snapshot()
    assert not waiting.refused(4, 0)
    assert waiting.state is ProgressState.SNAPSHOT


def test_fc_02_a_gap_costs_one_rewind() -> None:
    """A refusal in the window rewinds to match + 1, once; the refusals of the later appends change nothing more."""
    progress = replicating(match=4)
    for index in (5, 6, 7):
        progress.sent(index, 10)
    assert progress.refused(5, 4)
    assert (progress.state, progress.next, progress.inflight, progress.inflight_bytes) == (ProgressState.PROBE, 5, 0, 0)
    progress.sent(7, 30)
    assert not progress.refused(6, 4)
    assert progress.probe_sent


def test_a_snapshot_stops_appends() -> None:
    """Nothing is sent while a snapshot is on its way, not even after a heartbeat interval."""
    progress = probing()
    progress.become_snapshot()
    progress.retry()
    assert not progress.may_send(APPENDS, BYTES)
    assert not progress.nudge
