"""When an ended agent is started again, and when that stops being wise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.exits import End, Verdict
from midwatch.core.restart import (
    NO_FAILURE,
    QUOTA_REFUSALS,
    QUOTA_WAIT_S,
    REFUSAL_MAX_S,
    REFUSALS,
    Decision,
    Next,
    Streak,
    decide,
    delay_of,
    hang_hold,
)
from midwatch.core.terms import Restart

FAILED = Verdict(End.FAILED, "exit code 1")
RULES = Restart(attempts=3, backoff=(5.0, 300.0), stable_after=600.0)


def test_failures_in_a_row_are_restarted_then_parked() -> None:
    decisions: list[tuple[Next, float]] = []
    failures = 0
    for _ in range(4):
        decision = decide(RULES, FAILED, failures=failures, ran_s=1.0, jitter=0.5)
        failures = decision.failures
        decisions.append((decision.next, decision.delay_s))
    assert decisions == [
        (Next.RESTART, 7.5),
        (Next.RESTART, 12.5),
        (Next.RESTART, 22.5),
        (Next.PARK, 0.0),
    ]


def test_parking_says_how_often_it_was_tried() -> None:
    decision = decide(RULES, FAILED, failures=3, ran_s=1.0, jitter=0.0)
    assert decision.reason == "exit code 1; failed again after 3 restarts in a row"


def test_a_stable_run_starts_a_new_count() -> None:
    decision = decide(RULES, FAILED, failures=3, ran_s=600.0, jitter=0.0)
    assert (decision.next, decision.failures) == (Next.RESTART, 1)


def test_a_refused_credential_is_parked_at_once() -> None:
    verdict = Verdict(End.CREDENTIALS, "refused", "OPENAI_API_KEY", useless=True)
    assert decide(RULES, verdict, failures=0, ran_s=1.0, jitter=0.0).next is Next.PARK


def test_a_refusal_that_may_concern_one_piece_of_work_parks_when_it_comes_twice() -> None:
    verdict = Verdict(End.CREDENTIALS, "401 for url: shop.example", mark="credentials: shop")
    first = decide(RULES, verdict, failures=0, ran_s=1.0, jitter=0.0)
    second = decide(RULES, verdict, failures=1, ran_s=1.0, jitter=0.0, streak=first.streak)
    assert (first.next, second.next) == (Next.RESTART, Next.PARK)
    other = Verdict(End.CREDENTIALS, "401 for url: bank.example", mark="credentials: bank")
    third = decide(RULES, other, failures=1, ran_s=1.0, jitter=0.0, streak=first.streak)
    assert third.next is Next.RESTART


@pytest.mark.parametrize("end", [End.OPERATOR, End.SUSPENDED, End.SHUTDOWN])
@pytest.mark.parametrize("when", ["always", "failure", "never"])
def test_what_was_wanted_is_not_undone(end: End, when: str) -> None:
    rules = Restart.model_validate({"when": when})
    decision = decide(rules, Verdict(end, "wanted"), failures=1, ran_s=1.0, jitter=0.0)
    assert (decision.next, decision.failures) == (Next.STOP, 0)


def test_finished_work_is_started_again_only_when_always_is_asked_for() -> None:
    done = Verdict(End.FINISHED, "finished its work")
    assert decide(RULES, done, failures=0, ran_s=1.0, jitter=0.0).next is Next.STOP
    always = Restart(when="always", backoff=(2.0, 9.0))
    decision = decide(always, done, failures=0, ran_s=1.0, jitter=0.9)
    assert (decision.next, decision.delay_s, decision.failures) == (Next.RESTART, 2.0, 0)


def test_never_means_never_and_the_failure_still_counts() -> None:
    decision = decide(Restart(when="never"), FAILED, failures=0, ran_s=1.0, jitter=0.0)
    assert (decision.next, decision.failures) == (Next.STOP, 1)


def test_no_attempts_park_at_the_first_failure() -> None:
    assert decide(Restart(attempts=0), FAILED, failures=0, ran_s=1.0, jitter=0.0).next is Next.PARK


def test_a_backoff_from_0_restarts_at_once_the_first_time_only() -> None:
    rules = Restart(backoff=(0.0, 60.0))
    assert [delay_of(rules, n, 0.999) for n in (1, 2, 3)] == pytest.approx([0.0, 1.998, 3.996])


def test_a_backoff_of_0_to_0_is_always_at_once() -> None:
    assert delay_of(Restart(backoff=(0.0, 0.0)), 1000, 0.9) == 0.0


@given(
    low=st.floats(0, 1e4),
    span=st.floats(0, 1e4),
    failures=st.integers(1, 10_000),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_every_delay_lies_between_the_bounds(
    low: float, span: float, failures: int, jitter: float
) -> None:
    rules = Restart(backoff=(low, low + span))
    delay = delay_of(rules, failures, jitter)
    assert 0 <= delay <= low + span
    assert delay >= low or low == 0


def test_after_a_hang_the_next_hang_waits_for_the_cooldown() -> None:
    rules = Restart(cooldown=300.0)
    assert hang_hold(rules, None, 1000.0) == 0.0
    assert hang_hold(rules, 900.0, 1000.0) == 200.0
    assert hang_hold(rules, 700.0, 1000.0) == 0.0


# -- by class ---------------------------------------------------------------------------------------

MISSING = Verdict(End.DEPENDENCY, "a module is missing", mark="m")
WRONG = Verdict(End.CONFIGURATION, "a setting is missing", mark="s")
REFUSED = Verdict(End.RATE_LIMITED, "refused", mark="r")
EMPTY = Verdict(End.QUOTA, "used up", "OPENAI_API_KEY", mark="q")


def _row(*verdicts: Verdict, rules: Restart = RULES, jitter: float = 0.0) -> list[Decision]:
    """Return what follows each of these failures in a row."""
    decisions: list[Decision] = []
    failures, streak = 0, NO_FAILURE
    for verdict in verdicts:
        made = decide(rules, verdict, failures=failures, ran_s=1.0, jitter=jitter, streak=streak)
        failures, streak = made.failures, made.streak
        decisions.append(made)
    return decisions


@pytest.mark.parametrize("verdict", [MISSING, WRONG])
def test_the_same_wrong_setting_twice_is_parked(verdict: Verdict) -> None:
    first, second = _row(verdict, verdict)
    assert (first.next, second.next) == (Next.RESTART, Next.PARK)
    assert "the same failure twice" in second.reason


def test_two_different_ones_are_not_the_same_failure() -> None:
    other = Verdict(End.CONFIGURATION, "another setting is missing", mark="t")
    assert [d.next for d in _row(WRONG, other, WRONG)] == [Next.RESTART] * 3


def test_a_crash_in_between_breaks_the_row() -> None:
    assert [d.next for d in _row(WRONG, FAILED, WRONG)] == [Next.RESTART] * 3


def test_a_failure_without_words_is_like_no_other() -> None:
    silent = Verdict(End.CONFIGURATION, "?")
    assert [d.next for d in _row(silent, silent, silent)] == [Next.RESTART] * 3


def test_a_crash_that_repeats_itself_has_its_usual_attempts() -> None:
    same = Verdict(End.FAILED, "exit code 1", mark="f")
    assert [d.next for d in _row(*[same] * 4)] == [Next.RESTART] * 3 + [Next.PARK]


def test_after_a_refusal_it_waits_as_asked_and_not_all_come_back_together() -> None:
    asked = Verdict(End.RATE_LIMITED, "refused", retry_after_s=20.0)
    assert _row(asked)[0].delay_s == 20.0
    late = _row(asked, jitter=0.999)[0].delay_s
    assert 20.0 < late < 24.0


def test_a_refusal_that_names_no_time_waits_longer_each_time() -> None:
    delays = [d.delay_s for d in _row(*[REFUSED] * 7)]
    assert delays == [30.0, 60.0, 120.0, 240.0, 450.0, 450.0, 450.0]
    assert max(d.delay_s for d in _row(*[REFUSED] * 7, jitter=0.999)) <= REFUSAL_MAX_S


def test_a_second_refusal_does_not_trust_a_second_of_patience() -> None:
    asked = Verdict(End.RATE_LIMITED, "refused", retry_after_s=1.0)
    assert [d.delay_s for d in _row(asked, asked, asked)] == [1.0, 60.0, 120.0]


def test_refusals_are_parked_late_but_not_never() -> None:
    decisions = _row(*[REFUSED] * REFUSALS)
    assert [d.next for d in decisions] == [Next.RESTART] * (REFUSALS - 1) + [Next.PARK]
    assert sum(d.delay_s for d in decisions) > 3600.0


def test_a_used_up_quota_is_tried_hourly_over_a_weekend() -> None:
    decisions = _row(*[EMPTY] * QUOTA_REFUSALS)
    assert {d.delay_s for d in decisions[:-1]} == {QUOTA_WAIT_S}
    assert decisions[-1].next is Next.PARK
    assert QUOTA_REFUSALS * QUOTA_WAIT_S >= 72 * 3600.0


@pytest.mark.parametrize("verdict", [REFUSED, EMPTY])
def test_refusals_leave_the_attempts_of_crashes_alone(verdict: Verdict) -> None:
    *_, last = _row(*[verdict] * 6, FAILED)
    assert (last.next, last.streak.crashes, last.failures) == (Next.RESTART, 1, 7)


@pytest.mark.parametrize("verdict", [REFUSED, EMPTY, MISSING, WRONG])
def test_the_fleet_file_has_the_last_word(verdict: Verdict) -> None:
    never = Restart.model_validate({"when": "never"})
    assert _row(verdict, rules=never)[0].next is Next.STOP
    assert _row(verdict, rules=Restart(attempts=0))[0].next is Next.PARK


def test_a_machine_that_stays_up_gets_its_agents_back_and_their_failures_stand() -> None:
    down = Verdict(End.HOST_SHUTDOWN, "stopped with the machine")
    before = Streak(crashes=2, mark="f", alike=2)
    decision = decide(RULES, down, failures=2, ran_s=1.0, jitter=0.0, streak=before)
    assert (decision.next, decision.failures, decision.streak) == (Next.RESTART, 2, before)
    assert decision.delay_s >= 60.0


@given(
    ends=st.lists(st.sampled_from(sorted(End)), max_size=40),
    marks=st.sampled_from(["", "a"]),
    jitter=st.floats(0, 1, exclude_max=True),
    wait=st.one_of(st.none(), st.floats(0, 21600)),
)
def test_whatever_ends_come_restarting_is_bounded_and_parking_has_a_reason(
    ends: list[End], marks: str, jitter: float, wait: float | None
) -> None:
    verdicts = [Verdict(e, "it ended", retry_after_s=wait, mark=marks) for e in ends]
    for decision in _row(*verdicts, jitter=jitter):
        assert decision.delay_s >= 0
        if decision.next is Next.PARK:
            assert decision.reason != "it ended"
        if decision.next is not Next.RESTART:
            return  # nothing runs that could end
        assert decision.streak.crashes <= RULES.attempts
        assert decision.streak.refusals < QUOTA_REFUSALS


@given(
    st.dictionaries(
        st.sampled_from(["crashes", "refusals", "mark", "alike"]),
        st.one_of(st.none(), st.integers(), st.text(), st.floats(), st.booleans()),
    ),
    st.integers(0, 9),
)
def test_a_streak_survives_whatever_the_journal_holds(
    data: dict[str, object], failures: int
) -> None:
    streak = Streak.of(data, failures)
    assert min(streak.crashes, streak.refusals, streak.alike) >= 0
    assert Streak.of(streak.to_json(), 0) == streak


def test_an_agent_out_of_budget_waits_for_the_budget_each_time_and_no_longer() -> None:
    spent = Verdict(End.BUDGET, "its budget is used up", retry_after_s=3600.0)
    streak = NO_FAILURE
    for count in range(1, 72):
        decision = decide(RULES, spent, failures=count - 1, ran_s=1.0, jitter=0.0, streak=streak)
        assert (decision.next, decision.delay_s) == (Next.RESTART, 3600.0)
        streak = decision.streak
    assert decide(RULES, spent, failures=71, ran_s=1.0, jitter=0.0, streak=streak).next is Next.PARK
