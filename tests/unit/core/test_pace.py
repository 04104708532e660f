from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.pace import Pace


def test_a_burst_goes_at_once_and_what_follows_is_spaced() -> None:
    pace = Pace(0.2, burst=3)
    now, taken = 100.0, list[float]()
    for _ in range(5):
        now += pace.pause(now)
        pace.step(now)
        taken.append(now)
    assert taken == pytest.approx([100.0, 100.0, 100.0, 100.2, 100.4])


def test_rest_fills_the_burst_again_and_never_more() -> None:
    pace = Pace(0.2, burst=2)
    pace.step(0.0)
    pace.step(0.0)
    assert pace.pause(0.0) == pytest.approx(0.2)
    assert pace.pause(1000.0) == 0.0
    pace.step(1000.0)
    pace.step(1000.0)
    assert pace.pause(1000.0) == pytest.approx(0.2)


@given(st.lists(st.floats(0, 2), max_size=60), st.integers(1, 5))
def test_no_stretch_of_time_has_more_steps_than_promised(rests: list[float], burst: int) -> None:
    pace, now, taken = Pace(0.2, burst), 0.0, list[float]()
    for rest in rests:
        now += rest
        now += pace.pause(now)
        pace.step(now)
        taken.append(now)
    for first, start in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + (taken[last] - start) / 0.2 + 1e-6


def test_it_is_full_when_a_whole_burst_may_be_taken_and_not_before() -> None:
    pace = Pace(0.25, burst=2)
    assert pace.is_full(0.0)
    pace.step(0.0)
    assert [pace.is_full(at) for at in (0.0, 0.125, 0.25, 9.0)] == [False, False, True, True]
    pace.step(9.0)
    pace.step(9.0)
    assert [pace.is_full(at) for at in (9.25, 9.5)] == [False, True]
