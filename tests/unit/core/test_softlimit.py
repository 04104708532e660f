"""The soft limit: how long is a stay, when a restart helped, and when none will."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.softlimit import BLIND_S, TRIES, SoftLimit
from midwatch.core.terms import Limits

TERMS = Limits(restart_after=600.0)


def live(
    soft: SoftLimit,
    share: Callable[[float], float],
    start: float,
    seconds: float,
    terms: Limits = TERMS,
) -> tuple[float, str | None]:
    """Begin a run; return after how long something was asked for, and what."""
    soft.begin(start)
    for at in range(0, int(seconds), 10):
        asked = soft.take(start + at, int(share(at) * 10), 1000, terms)
        if asked:
            return at, asked
    return seconds, None


def test_a_stay_is_ten_minutes_without_one_value_below() -> None:
    assert live(SoftLimit(), lambda _: 92, 0, 3600) == (600, "restart")
    assert live(SoftLimit(), lambda t: 92 if t % 590 else 80, 0, 36_000) == (36_000, None)


def test_after_two_restarts_that_did_not_help_the_agent_needs_it() -> None:
    soft, asked = SoftLimit(), []
    for start in range(0, 40_000, 10_000):
        asked.append(live(soft, lambda t: 20 if t < 300 else 92, start, 3600)[1])
        if asked[-1] == "restart":
            soft.restarted()
    assert asked == ["restart", "restart", "needs", "needs"]


def test_ten_minutes_below_are_help_enough() -> None:
    soft = SoftLimit()
    for start in range(0, 100_000, 10_000):
        assert live(soft, lambda t: 20 if t < 700 else 92, start, 3600)[1] == "restart"
        soft.restarted()
        assert soft.tries <= TRIES


def test_time_in_which_nobody_looked_is_no_stay() -> None:
    soft = SoftLimit()
    soft.begin(0)
    assert soft.take(10, 950, 1000, TERMS) is None
    assert soft.take(10 + 5000, 950, 1000, TERMS) is None
    assert soft.take(10 + 5000 + BLIND_S, 950, 1000, TERMS) is None


def test_another_limit_is_another_trial() -> None:
    soft = SoftLimit()
    soft.tries = TRIES
    assert live(soft, lambda _: 92, 0, 3600)[1] == "restart"  # the first words that it hears of
    soft.tries = TRIES
    assert live(soft, lambda _: 92, 5000, 3600)[1] == "needs"
    assert live(soft, lambda _: 92, 9000, 3600, Limits(restart_at=0.85))[1] == "restart"


def test_switched_off_it_asks_for_nothing() -> None:
    assert live(SoftLimit(), lambda _: 99, 0, 90_000, Limits(restart_after=None))[1] is None


@given(st.lists(st.tuples(st.integers(1, 900), st.booleans()), max_size=60))
def test_nothing_is_asked_without_a_stay_and_never_more_restarts_than_tries(
    steps: list[tuple[int, bool]],
) -> None:
    """Whatever the values are: a restart was preceded by a stay, and two without help are the last."""
    soft, now, above_since, in_a_row = SoftLimit(), 0.0, None, 0
    soft.begin(0.0)
    for seconds, above in steps:
        for _ in range(0, seconds, 10):
            now += 10
            above_since = None if not above else (now if above_since is None else above_since)
            asked = soft.take(now, 950 if above else 100, 1000, TERMS)
            if asked is None:
                continue
            assert above_since is not None
            assert now - above_since >= 600
            assert (asked == "needs") == (soft.tries >= TRIES)
            if asked == "restart":
                in_a_row = soft.tries + 1
                soft.restarted()
                soft.begin(now)
                above_since = None
    assert in_a_row <= TRIES
