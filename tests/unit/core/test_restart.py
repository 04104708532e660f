"""When an ended agent is started again, and when that stops being wise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.exits import End, Verdict
from midwatch.core.restart import Next, decide, delay_of, hang_hold
from midwatch.core.terms import Restart

FAILED = Verdict(End.FAILED, "exit code 1")
RULES = Restart(attempts=3, backoff=(5.0, 300.0), stable_after=600.0)


def test_failures_in_a_row_are_restarted_then_parked() -> None:
    decisions = []
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
