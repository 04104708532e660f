"""What counts as a leak, and what only looks like one. Hours pass in synthetic series."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.core.terms import Limits
from midwatch.core.trends import (
    SAMPLE_EVERY_S,
    SAMPLE_FASTEST_S,
    Growth,
    Leak,
    leak_in,
    next_look,
    slope_of,
)

MIB = 1024 * 1024
LIMIT = 1024 * MIB
HOUR = 3600.0
SHORTEST = Limits().leak_after

Curve = Callable[[float], float]
"""Seconds since the start → MiB."""


def leaks(curve: Curve, hours: float, *, every: float = 10.0) -> Iterator[tuple[float, Leak]]:
    """Yield when a leak is seen in the curve, and which; as a duty asks, span by span."""
    growth = Growth(0.0, SHORTEST)
    for index in range(int(hours * HOUR / every)):
        now = index * every
        used = int(curve(now) * MIB)
        if used >= LIMIT:
            return
        if growth.take(now, used) and (found := growth.leak(used, LIMIT)):
            yield now, found


def first(curve: Curve, hours: float) -> tuple[float, Leak] | None:
    return next(leaks(curve, hours), None)


def noise(seed: int, size: float) -> Callable[[], float]:
    source = random.Random(seed)
    return lambda: source.uniform(-size, size)


def test_a_steady_leak_is_seen_hours_before_its_limit_with_rate_and_time() -> None:
    found = first(lambda t: 200 + 40 * t / HOUR, 24)
    assert found is not None
    at, leak = found
    full_at = (1024 - 200) / 40 * HOUR
    assert full_at - at > 6 * HOUR
    assert leak.per_hour == pytest.approx(40 * MIB, rel=0.02)
    assert at + leak.reaches_in_s == pytest.approx(full_at, rel=0.02)


@pytest.mark.parametrize("rate", [20, 60, 240, 900, 2400])
@pytest.mark.parametrize("seed", range(3))
def test_leaks_of_any_speed_are_seen_before_the_limit_despite_noise(rate: int, seed: int) -> None:
    jitter = noise(seed, 15)
    found = first(lambda t: 150 + rate * t / HOUR + jitter(), 60)
    assert found is not None
    at, leak = found
    full_at = (1024 - 150) / rate * HOUR
    assert at < full_at - 60
    assert at + leak.reaches_in_s == pytest.approx(full_at, rel=0.15)


def test_a_leak_under_a_collectors_sawtooth_is_seen_by_its_floor() -> None:
    assert first(lambda t: 100 + 100 * t / HOUR + 120 * ((t / 97) % 1), 8) is not None


def test_a_leak_by_large_batches_is_seen_once_the_batches_are_many() -> None:
    assert first(lambda t: 100 + 25 * (t // 600), 5) is not None


def sawtooth(t: float, period: float, low: float, high: float) -> float:
    return low + (high - low) * ((t / period) % 1)


CONTROLS: dict[str, Curve] = {
    "flat": lambda _t: 300,
    "flat near the limit": lambda _t: 942,
    "loads for four minutes, then stays": lambda t: min(80 + 3 * t, 800),
    "loads for twenty minutes, then stays": lambda t: min(80 + 0.4 * t, 560),
    "one big step": lambda t: 200 if t < 2 * HOUR else 900,
    "two big steps": lambda t: 200 + 300 * (t > 2 * HOUR) + 300 * (t > 2.1 * HOUR),
    "a sawtooth of seconds": lambda t: sawtooth(t, 40, 200, 900),
    "a sawtooth of minutes": lambda t: sawtooth(t, 420, 200, 800),
    "a sawtooth of half an hour": lambda t: sawtooth(t, 1800, 250, 700),
    "a sawtooth of two hours": lambda t: sawtooth(t, 7200, 250, 640),
    "a cache that fills": lambda t: 150 + 600 * (1 - math.exp(-t / 2400)),
    "a cache that fills slowly": lambda t: 150 + 600 * (1 - math.exp(-t / 5 / HOUR)),
    "a cache that fills to 90 %": lambda t: 150 + 770 * (1 - math.exp(-t / 5400)),
    "day and night": lambda t: 400 + 220 * math.sin(t / (24 * HOUR) * 2 * math.pi),
    "a plateau after a climb": lambda t: 200 + min(t, HOUR) / HOUR * 250,
    "falls": lambda t: 900 - 10 * t / HOUR,
    "a burst each hour": lambda t: 300 + (600 if t % HOUR < 60 else 0),
    "a leak that will not matter for days": lambda t: 100 + 2 * t / HOUR,
}


@pytest.mark.parametrize("name", CONTROLS)
def test_what_is_no_leak(name: str) -> None:
    jitter, curve = noise(7, 4), CONTROLS[name]
    assert first(lambda t: curve(t) + jitter(), 48) is None


@pytest.mark.parametrize("seed", range(24))
def test_an_agent_whose_memory_wanders_does_not_leak(seed: int) -> None:
    source = random.Random(seed)
    level = 400.0

    def curve(_: float) -> float:
        nonlocal level
        level = min(700.0, max(150.0, level + source.gauss(0, 2)))
        return level

    assert first(curve, 48) is None


def test_the_second_tooth_of_a_great_sawtooth_alarms_nobody() -> None:
    # the first one cannot be told from a leak; once its fall was seen, as much growth proves nothing
    seen = [at for at, _ in leaks(lambda t: sawtooth(t, 3 * HOUR, 100, 980), 24)]
    assert all(at < 3 * HOUR for at in seen)


def test_time_in_which_nobody_looked_begins_the_evidence_anew() -> None:
    growth = Growth(0.0, SHORTEST)
    for index in range(100):
        growth.take(index * 10.0, 300 * MIB + index * 6 * MIB)
    assert growth.leak(900 * MIB, LIMIT) is not None
    growth.take(5000.0, 950 * MIB)
    assert growth.leak(950 * MIB, LIMIT) is None


@given(
    st.lists(st.integers(0, LIMIT), min_size=12, max_size=12),
    st.integers(0, LIMIT),
    st.integers(0, LIMIT),
)
@settings(max_examples=300, deadline=None)
def test_whatever_is_called_a_leak_has_risen_and_reaches_its_limit_in_time(
    lows: list[int], used: int, given_back: int
) -> None:
    leak = leak_in(lows, 50.0, used=used, limit=LIMIT, given_back=given_back)
    if leak is None:
        return
    assert lows[-1] - lows[0] > given_back
    assert leak.per_hour > 0
    assert 0 <= leak.reaches_in_s <= leak.seen_s == 600.0
    assert sum(b > a for a, b in pairwise(lows)) >= 10


@given(st.integers(1, 12 * 50), st.integers(0, 11))
@settings(max_examples=100, deadline=None)
def test_a_single_step_is_never_a_leak_whatever_its_size_and_place(size: int, place: int) -> None:
    lows = [100 * MIB + (size * MIB if index > place else 0) for index in range(12)]
    assert leak_in(lows, 50.0, used=lows[-1], limit=LIMIT) is None


def test_the_slope_is_bytes_per_hour() -> None:
    history = [(t, 100 * MIB + int(t / 3600 * 40 * MIB)) for t in range(0, 600, 10)]
    slope = slope_of([(float(t), b) for t, b in history])
    assert slope == pytest.approx(40 * MIB, rel=0.01)


def test_too_little_history_says_nothing() -> None:
    assert slope_of([]) is None
    assert slope_of([(1.0, 5)]) is None
    assert slope_of([(1.0, 5), (1.5, 9)]) is None


def test_a_calm_old_run_is_sampled_at_the_usual_distance() -> None:
    assert next_look([(90.0, 10), (100.0, 10)], 1000, 100.0) == SAMPLE_EVERY_S


def test_above_half_of_the_limit_it_is_sampled_every_second() -> None:
    assert next_look([(90.0, 600), (100.0, 600)], 1000, 100.0) == 1.0


def test_a_race_towards_the_limit_is_watched_closely() -> None:
    assert next_look([(90.0, 100), (100.0, 300)], 1000, 100.0) == pytest.approx(8.75)
    assert next_look([(99.9, 100), (100.0, 900)], 1000, 100.0) == SAMPLE_FASTEST_S


def test_a_young_run_is_sampled_early() -> None:
    assert next_look([(0.5, 10)], 1000, 0.5) == 0.5
    assert next_look([(4.0, 10)], 1000, 4.0) == 4.0


def test_without_a_limit_nothing_presses() -> None:
    assert next_look([(1.0, 10)], None, 1.0) == SAMPLE_EVERY_S
