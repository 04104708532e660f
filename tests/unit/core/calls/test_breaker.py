"""Breakers open by the provider's failures alone, are probed by one call, and rest longer each time."""

from __future__ import annotations

from midwatch.core.calls.breaker import PROBE_PATIENCE_S, Breaker, BreakerState
from midwatch.core.models import Breaker as Terms

TERMS = Terms(failures=3, window=60.0, cooldown=(10.0, 35.0))


def opened() -> Breaker:
    breaker = Breaker(TERMS)
    assert [breaker.failed(float(n), "500", float(n)) for n in range(3)] == [False, False, True]
    return breaker


def test_failures_that_lie_far_apart_do_not_open_it() -> None:
    breaker = Breaker(TERMS)
    assert not any(breaker.failed(n * 31.0, "500", n * 31.0) for n in range(20))
    assert breaker.state(600.0) is BreakerState.CLOSED


def test_an_answer_in_between_begins_the_count_anew() -> None:
    breaker = Breaker(TERMS)
    breaker.failed(0, "500", 0)
    breaker.failed(1, "500", 1)
    assert not breaker.answered()
    assert not breaker.failed(2, "500", 2)


def test_while_it_is_open_no_call_goes_through() -> None:
    breaker = opened()
    assert (breaker.state(5.0), breaker.reason) == (BreakerState.OPEN, "500")
    assert breaker.free_at(5.0) == 12.0
    assert not breaker.take(11.9)


def test_after_the_cooldown_one_call_is_the_probe_and_the_others_wait() -> None:
    breaker = opened()
    assert breaker.state(12.0) is BreakerState.HALF_OPEN
    assert [breaker.take(12.0), breaker.take(12.0), breaker.take(13.0)] == [True, False, False]
    assert breaker.answered()
    assert breaker.state(13.0) is BreakerState.CLOSED
    assert breaker.take(13.0)


def test_a_probe_that_fails_doubles_the_rest_up_to_its_bound() -> None:
    breaker, now = opened(), 2.0
    rests: list[float] = []
    for _ in range(4):
        now = breaker.free_at(now)
        assert breaker.take(now)
        assert breaker.failed(now, "503", now)
        rests.append(breaker.free_at(now) - now)
    assert rests == [20.0, 35.0, 35.0, 35.0]


def test_a_call_from_before_that_fails_late_does_not_prolong_the_rest() -> None:
    breaker = opened()
    assert not breaker.failed(4.0, "late", 1.0)
    assert breaker.free_at(5.0) == 12.0


def test_a_probe_whose_client_went_away_gives_its_turn_back() -> None:
    breaker = opened()
    assert breaker.take(12.0)
    breaker.give_back(12.0)
    assert breaker.take(12.1)


def test_a_probe_that_never_says_anything_does_not_block_for_ever() -> None:
    breaker = opened()
    assert breaker.take(12.0)
    assert not breaker.take(12.0 + PROBE_PATIENCE_S - 0.1)
    assert breaker.take(12.0 + PROBE_PATIENCE_S)


def test_a_call_from_before_that_fails_while_the_probe_is_under_way_does_not_reopen_it() -> None:
    breaker = opened()
    assert breaker.take(12.0)
    assert not breaker.failed(12.5, "its time is over", 1.5)
    assert breaker.free_at(13.0) > 13.0, "the probe is under way as before"
    assert breaker.answered()
    assert not any(breaker.failed(14.0 + n, "late, too", 1.9) for n in range(9))


def test_a_call_that_is_no_probe_does_not_give_the_probes_turn_back() -> None:
    breaker = opened()
    assert breaker.take(12.0)
    breaker.give_back(1.0)
    assert not breaker.take(12.1)
    breaker.give_back(12.0)
    assert breaker.take(12.1)


def test_a_probe_that_begins_to_answer_closes_it_and_what_fails_behind_it_counts_from_one() -> None:
    breaker = opened()
    assert breaker.take(12.0)
    assert breaker.begun()
    assert breaker.state(12.1) is BreakerState.CLOSED
    assert [breaker.failed(13.0 + n, "cut", 12.5) for n in range(3)] == [False, False, True]


def test_answers_that_begin_and_break_off_open_it() -> None:
    breaker = Breaker(TERMS)
    found: list[bool] = []
    for n in range(3):
        breaker.begun()
        found.append(breaker.failed(n, "cut", n))
    assert found == [False, False, True]


def test_a_probe_that_was_forgotten_decides_nothing_any_more() -> None:
    breaker = opened()
    assert breaker.take(12.0)
    later = 12.0 + PROBE_PATIENCE_S
    assert breaker.take(later)
    assert not breaker.failed(later + 1, "the first probe", 12.0)
    assert breaker.failed(later + 2, "the second", later)


def test_an_old_stream_that_ends_well_opens_nobodys_way_to_a_place_that_is_down() -> None:
    breaker = Breaker(Terms(failures=3, cooldown=(10.0, 300.0)))
    for n in range(3):
        breaker.failed(100.0 + n, "503", 100.0 + n)
    assert not breaker.begun(50.0)
    assert not breaker.answered(50.0)
    assert breaker.state(105.0) is BreakerState.OPEN
    assert breaker.take(112.0)
    assert not breaker.answered(60.0)
    assert not breaker.take(113.0), "the probe is still out"
    assert breaker.answered(112.0)
    assert [breaker.failed(114.0, "503", 114.0), breaker.answered(50.0)] == [False, False]
    assert not breaker.blank, "nor does it clear what is held against a closed one"
    assert breaker.answered() is False
    assert breaker.blank
