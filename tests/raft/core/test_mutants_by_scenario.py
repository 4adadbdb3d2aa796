"""Each planted fault of the core makes a named scenario fail, and each scenario of the core fails for some fault."""

import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1]))

from planted import FAULTS
from planted_leases import LEASE_FAULTS
from scenarios import NUMBERED, catalogue

from raft.core.messages import Heartbeat, ReadIndexRequest, VoteRequest, VoteResponse
from raft.core.roles import Role
from raft.testing.cluster import configuration
from raft.testing.mutants import MUTANTS, Mutant

EVERY = {mutant.name: mutant for mutant in (*MUTANTS, *FAULTS, *LEASE_FAULTS)}

OF_THE_RUNTIME = {"SN-02", "RD-09"}
"""Scenarios of what surrounds the core: no fault of the core makes them fail."""

NOT_LEVELS_OF_THE_CORE = {"CL", "ST", "SL", "WA"}
"""Levels of the catalogue that are about disks and about the service; ``tests/mutants_service.py`` plants the faults of the latter."""

NOT_OF_THE_CORE = {
    "M24 install in two",
    "M25 apply in two",
    "M26 lost sync",
    "M27 sync tried again",
    "lease from the answers",
    "late ticks caught up",
}
"""Faults of what surrounds the core: of disks, clocks and the runtime. The simulator plants these."""


class Kill(NamedTuple):
    """A fault, and the test that it makes fail.

    :ivar test: ``module::function``, without their common beginnings.
    :ivar arguments: the case of a test that has several.
    """

    fault: str
    test: str
    arguments: dict[str, Any]

    @property
    def scenario(self) -> str:
        """The id in the test's name; empty when there is none, as of a lease, which the catalogue does not have."""
        match = NUMBERED.match(self.test.partition("::")[2])
        return f"{match[1].upper()}-{match[2]}" if match else ""


def kill(fault: str, test: str, **arguments: Any) -> Kill:
    """A row of the table."""
    return Kill(fault, test, arguments)


PROBE = {"own": (1, 2), "last_index": 9, "last_term": 1, "granted": False, "pre_vote": False}
LENGTH = {"tick_ms": 20, "election_timeout_ms": 500, "drift_percent": 10, "lease_ns": 414_000_000}
HEARTBEAT = Heartbeat("a", "c", 1, 3, 9)

KILLED_BY = (
    # Those that the simulator hunts too
    kill("M01 figure 8", "replication::test_cs_01_figure_8"),
    kill("M01 figure 8", "replication::test_cs_03_no_op_at_term_start"),
    kill("M02 follower commit", "replication::test_re_07_follower_commit_bound", kind="heartbeat"),
    kill("M02 follower commit", "repair::test_lr_07_rejoin_of_a_deposed_leader"),
    kill("M03 any log", "election::test_el_06_up_to_date_comparison", **PROBE),
    kill("M03 any log", "replication::test_cs_02_figure_8_the_other_ending"),
    kill("M03 any log", "repair::test_lr_01_figure_7_who_can_not_win", loser="e"),
    kill("M04 longest log", "election::test_el_06_up_to_date_comparison", **PROBE),
    kill("M05 early replies", "election::test_el_04_one_vote_a_term_across_crashes", crash_at="before the write"),
    kill("M06 vote unwritten", "election::test_el_04_a_vote_in_a_term_that_is_on_the_disk", power_cut=True),
    kill("M13 own sync", "replication::test_re_02_the_leader_counts_itself_only_when_durable"),
    kill("M14 no round", "linearizable::test_rd_01_confirmed_read"),
    kill("M14 no round", "linearizable::test_rd_03_partitioned_old_leader"),
    kill("M15 early reads", "linearizable::test_rd_02_first_commit_of_the_term"),
    kill("M18 early change", "changes::test_ms_03_no_change_before_a_commit_of_the_term"),
    kill("M19 change stays", "changes::test_ms_06_configuration_follows_truncation"),
    kill("M20 union", "joint::test_mj_01_commits_elections_and_reads"),
    kill("M21 learners count", "changes::test_mj_06_learners_never_decide"),
    kill("M37 pre-vote's term", "prevote::test_pv_01_return_of_an_isolated_node"),
    kill("M37 pre-vote's term", "prevote::test_pv_02_pre_vote_leaves_no_trace"),
    kill("M38 no check-quorum", "prevote::test_pv_04_leader_without_quorum_contact"),
    kill("M38 no check-quorum", "election::test_el_10_old_leader_returns"),
    kill("two changes", "changes::test_ms_02_one_change_at_a_time"),
    kill("leaves early", "joint::test_mj_01_it_is_not_left_before_both_halves_hold_it"),
    kill("label too new", "repair::test_sn_06_a_label_names_the_configuration_at_its_index"),
    kill("commit goes back", "replication::test_re_06_reordered_and_duplicated_appends"),
    kill("commit goes back", "replication::test_cs_08_figure_8_randomised", seed=1),
    kill("truncates always", "replication::test_re_06_reordered_and_duplicated_appends"),
    kill("truncates always", "log::test_lr_03_truncation_starts_at_the_first_conflict", held=(1, 1), terms=(1,), first=1, after=[1, 1], added=0),
    kill("votes twice", "election::test_el_04_one_vote_a_term_across_crashes", crash_at="after the write"),
    kill("vote forgotten", "election::test_el_04_one_vote_a_term_across_crashes", crash_at="after the write"),
    kill("old votes", "election::test_el_02_stale_term_traffic", role=Role.CANDIDATE, message=VoteResponse("b", "a", 2, granted=True)),
    kill("old acknowledgements", "election::test_el_02_an_acknowledgement_of_an_earlier_leadership_does_not_count"),
    kill("applies early", "replication::test_re_02_the_leader_counts_itself_only_when_durable"),
    kill("appends blindly", "repair::test_lr_01_figure_7", winner="l"),
    kill("counts what it sent", "replication::test_re_02_a_commit_is_a_durable_majority"),
    kill("old snapshots", "repair::test_sn_03_old_snapshot_ignored"),
    kill("applied on arrival", "repair::test_sn_06_the_machine_is_late_with_its_reports"),
    kill("half a quorum", "quorum::test_cs_07_quorum_arithmetic_commit", count=2),
    # The lease and the silence it rests on
    kill("lease without answers", "lease::test_a_round_that_a_quorum_answered_carries_a_lease"),
    kill("lease too long", "lease::test_the_lease_is_shorter_than_the_silence", **LENGTH),
    kill("lease without margin", "lease::test_the_lease_is_shorter_than_the_silence", **LENGTH),
    kill("lease before a commit", "lease::test_no_lease_before_the_first_commit_of_the_term"),
    kill("lease in a transfer", "lease::test_a_called_successor_ends_the_lease_for_the_rest_of_the_term"),
    kill("lease after a transfer", "lease::test_a_called_successor_ends_the_lease_for_the_rest_of_the_term"),
    kill("votes after a start", "lease::test_who_has_just_started_votes_for_nobody", request_=VoteRequest("a", "b", 1, 0, 0)),
    kill("forgets its promise", "lease::test_lost_time_is_like_a_start"),
    kill("promise by term", "lease::test_a_promise_outlives_the_term", heard=Heartbeat("a", "b", 3, 0, 1), news=ReadIndexRequest("c", "b", 4, 9)),
    # Elections
    kill("silent leader", "election::test_el_01_first_election"),
    kill("one timeout", "election::test_el_07_timeouts_are_drawn_for_every_candidacy"),
    kill("own vote early", "election::test_el_09_own_vote_counts_only_when_durable"),
    kill("stubborn candidate", "election::test_el_11_candidate_gives_way", role=Role.CANDIDATE, kind="heartbeat"),
    kill("patient candidate", "election::test_el_12_refused_by_a_majority", role=Role.CANDIDATE),
    kill("anybody campaigns", "election::test_el_13_nothing_to_campaign_with", membership=configuration("bc", "a")),
    kill("takes what is old", "election::test_el_02_stale_term_traffic", role=Role.FOLLOWER, message=Heartbeat("b", "a", 2, 1, 1)),
    kill("term forgotten", "election::test_el_04_one_vote_a_term_across_crashes", crash_at="after the write"),
    # Replication
    kill("M26 lost writes", "replication::test_re_02_a_commit_is_a_durable_majority"),
    kill("contact is agreement", "replication::test_re_02_a_commit_is_a_durable_majority"),
    kill("forwards twice", "replication::test_re_01_basic_agreement"),
    kill("everybody", "replication::test_re_03_progress_without_a_minority", ids="abcde", away="de"),
    kill("a minority", "replication::test_re_04_no_quorum_no_success", successor="c", expected=[]),
    kill("commit kept secret", "replication::test_re_08_idle_cluster_learns_the_commit"),
    kill("chatty", "replication::test_re_10_message_economy"),
    # Log repair and snapshots
    kill("one step back", "repair::test_lr_02_fast_backtracking"),
    kill("rewinds always", "repair::test_lr_06_late_refusal"),
    kill("keeps its tail", "repair::test_lr_07_rejoin_of_a_deposed_leader"),
    kill("no snapshots", "repair::test_sn_01_catch_up_by_snapshot"),
    kill("always replaced", "repair::test_sn_04_a_snapshot_that_matches_the_log_keeps_the_tail"),
    kill("no snapshots", "repair::test_sn_07_install_while_writes_continue"),
    kill("stays in snapshot", "repair::test_sn_09_an_older_snapshot_suffices"),
    kill("term of a snapshot", "repair::test_sn_12_term_not_lowered_by_a_snapshot"),
    # Reads, pre-vote and check-quorum
    kill("quiet follower", "linearizable::test_rd_06_a_change_of_leader_fails_fast", loss="another leader"),
    kill("reads kept", "linearizable::test_rd_06_a_leader_that_steps_down_refuses_what_waits"),
    kill("reads kept", "prevote::test_pv_04_leader_without_quorum_contact"),
    kill("no read alone", "linearizable::test_rd_08_single_node_reads"),
    kill("disloyal", "prevote::test_pv_03_voters_with_a_live_leader_refuse"),
    kill("deaf to refusals", "prevote::test_pv_07_stuck_higher_term_candidate"),
    kill("loyal for ever", "prevote::test_pv_09_quorum_of_doubters"),
    # Transfers
    kill("no hand-over", "transfer::test_tr_01_transfer_to_a_current_follower"),
    kill("hand-over at once", "transfer::test_tr_02_slow_target"),
    kill("no end of a transfer", "transfer::test_tr_02_timeout"),
    kill("any target", "transfer::test_tr_03_bad_targets", target="d", text="d is no voter"),
    kill("takes on", "transfer::test_tr_05_transfers_under_continuous_writes"),
    # Membership
    kill("old members", "changes::test_ms_01_grow_and_shrink"),
    kill("leads on", "changes::test_ms_08_leader_removes_itself"),
    kill("disloyal", "changes::test_ms_10_disruptive_removed_server"),
    kill("acquaintances", "changes::test_ms_11_votes_ignore_the_voters_own_view"),
    kill("votes for the slow", "joint::test_ms_12_no_vote_before_it_has_caught_up"),
    kill("any recipient", "identity::test_ms_13_messages_for_the_old_self_are_refused", message=HEARTBEAT),
    kill("change at commit", "changes::test_ms_14_quorum_shrinks_under_a_pending_entry"),
    kill("one half", "joint::test_mj_03_joint_state_in_snapshots"),
    kill("no hand-over", "joint::test_mj_04_replace_the_leader_in_one_change"),
    # Flow control
    kill("no window", "flow::test_fc_01_window_full"),
    kill("rewinds for each", "flow::test_fc_02_one_gap_one_rewind"),
    kill("no count", "flow::test_fc_04_bounded_uncommitted_tail"),
    kill("slowest first", "flow::test_fc_05_one_hung_peer"),
    kill("page twice", "flow::test_fc_06_paged_apply_across_crashes"),
)


@cache
def module(name: str) -> ModuleType:
    """A file of tests beside this one, imported apart from what pytest runs."""
    spec = importlib.util.spec_from_file_location(f"planted_{name}", Path(__file__).with_name(f"test_{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def failure(mutant: Mutant, test: Callable[..., None], arguments: dict[str, Any]) -> BaseException | None:
    """What a test fails with while the fault is there."""
    with mutant.planted():
        try:
            test(**arguments)
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001  # whatever stops a test makes it fail
            return error
    return None


@pytest.mark.parametrize("row", KILLED_BY, ids=lambda row: f"{row.fault}: {row.scenario or row.test}")
def test_a_fault_fails_its_scenario(row: Kill) -> None:
    """The named test passes on the core as it is, and fails with the fault in it."""
    name, _, function = row.test.partition("::")
    test = getattr(module(name), function)
    test(**row.arguments)
    assert failure(EVERY[row.fault], test, row.arguments) is not None, f"{function} passes although the core {EVERY[row.fault].fault}"


def test_every_fault_has_a_scenario() -> None:
    """No fault is in the tables that only chance would find."""
    assert set(EVERY) - NOT_OF_THE_CORE == {row.fault for row in KILLED_BY}


def test_every_scenario_has_a_fault() -> None:
    """No scenario of the core is in the catalogue that was never seen to fail."""
    of_the_core = {scenario for level in catalogue() if level.name not in NOT_LEVELS_OF_THE_CORE for scenario in level.titles}
    assert of_the_core - OF_THE_RUNTIME == {row.scenario for row in KILLED_BY} - OF_THE_RUNTIME - {""}
