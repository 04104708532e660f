"""Request limits as buckets that fill with time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.calls.rate import BURST_S, Bucket, Rates
from midwatch.core.models import CallLimits


def test_a_bucket_gives_what_comes_in_within_ten_seconds_at_once_and_then_by_the_rate() -> None:
    bucket = Bucket(60)
    for _ in range(10):
        assert bucket.delay(1, 5.0) == 0
        bucket.take(1, 5.0)
    assert bucket.delay(1, 5.0) == pytest.approx(1.0)
    assert bucket.delay(1, 5.5) == pytest.approx(0.5)
    assert bucket.delay(1, 6.0) == 0


def test_a_call_larger_than_a_bucket_needs_a_full_one_and_leaves_a_debt() -> None:
    bucket = Bucket(6_000)  # holds 1,000
    assert bucket.delay(5_000, 0) == 0
    bucket.take(5_000, 0)
    assert bucket.delay(1, 0) == pytest.approx(40.01)
    bucket.give_back(4_900, 0)
    assert bucket.delay(1, 0) == 0
    assert bucket.delay(1_000, 0) == pytest.approx(1.0)


def test_time_that_goes_back_fills_nothing() -> None:
    bucket = Bucket(60)
    bucket.take(10, 100.0)
    assert bucket.delay(1, 50.0) == pytest.approx(1.0)
    assert bucket.delay(1, 100.5) == pytest.approx(0.5)


@given(
    rate=st.floats(1, 1e6),
    steps=st.lists(st.tuples(st.floats(0, 30), st.integers(1, 2_000)), max_size=60),
)
def test_what_is_admitted_never_exceeds_the_rate_and_one_bucket(
    rate: float, steps: list[tuple[float, int]]
) -> None:
    bucket, now, taken, largest = Bucket(rate), 0.0, 0.0, 0
    for pause, need in steps:
        now += pause
        if bucket.delay(need, now) == 0:
            bucket.take(need, now)
            taken += need
            largest = max(largest, need)
        # the last call may leave a debt of no more than itself
        assert taken <= (rate * now / 60 + bucket.size + largest) * (1 + 1e-6)
    assert bucket.level <= bucket.size


@given(pause=st.floats(0.001, 100), need=st.integers(1, 5_000))
def test_after_the_delay_there_is_room(pause: float, need: int) -> None:
    bucket = Bucket(600)
    bucket.take(need, 0.0)
    bucket.take(need, pause)
    delay = bucket.delay(need, pause)
    assert bucket.delay(need, pause + delay * (1 + 1e-9) + 1e-9) == pytest.approx(0, abs=1e-6)


def test_all_three_limits_hold_and_the_longest_wait_is_told() -> None:
    limits = CallLimits(requests=60, tokens=60_000, concurrent=2)
    rates = Rates(limits)
    rates.take(9_000, 0.0)
    full = rates.full(5_000, 0.0)
    assert full is not None
    assert full.what == "60,000 tokens a minute"
    assert full.delay_s == pytest.approx(4.0)
    rates.take(100, 0.0)
    full = rates.full(0, 0.0)
    assert full is not None
    assert (full.what, full.delay_s) == ("2 calls at one time", None)
    rates.settle(9_000, 0, 0.0)
    assert rates.full(5_000, 0.0) is None


def test_limits_that_change_keep_the_buckets_whose_rate_stays() -> None:
    rates = Rates(CallLimits(requests=60))
    for _ in range(10):
        rates.take(0, 0.0)
    rates.set(CallLimits(requests=60, concurrent=99))
    assert rates.full(0, 0.0) is not None
    rates.set(CallLimits(requests=120))
    assert rates.full(0, 0.0) is None
    assert BURST_S == 10
