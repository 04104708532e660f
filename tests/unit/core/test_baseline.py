"""The rolling baseline: what it takes for usual, and what must not move it."""

from __future__ import annotations

import json
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.baseline import LEFT_OUT, MIN_CYCLES, WINDOW, Baseline

VALUES = st.lists(st.integers(min_value=0, max_value=10**12), max_size=160)


def test_nothing_is_usual_before_the_fifth_cycle() -> None:
    baseline = Baseline([190] * (MIN_CYCLES - 1))
    assert baseline.usual is None
    baseline.add(190)
    assert baseline.usual == 190


def test_cycles_without_usage_say_nothing_about_what_work_costs() -> None:
    assert Baseline([0] * 100).usual is None
    assert Baseline([0, 200] * 10).usual == 200


def test_one_large_warm_up_does_not_hide_a_later_runaway() -> None:
    assert Baseline([100_000, *[190] * 9]).usual == 190


def test_an_agent_that_works_in_three_cycles_of_ten_has_its_work_counted_as_usual() -> None:
    usual = Baseline(([190] * 7 + [8_000] * 3) * 5).usual
    assert usual is not None
    assert 10 * usual > 8_000


def test_only_the_last_fifty_cycles_count() -> None:
    baseline = Baseline([9_000] * 200 + [100] * WINDOW)
    assert baseline.usual == 100
    assert len(baseline) == WINDOW


@given(VALUES)
def test_usual_is_the_mean_of_the_window_without_its_largest_tenth(values: list[int]) -> None:
    window = [v for v in values if v > 0][-WINDOW:]
    usual = Baseline(values).usual
    if len(window) < MIN_CYCLES:
        assert usual is None
        return
    kept = sorted(window)[: len(window) - ceil(len(window) * LEFT_OUT)]
    assert usual == pytest.approx(sum(kept) / len(kept), rel=1e-12)
    assert min(window) <= usual <= max(window)


@given(VALUES, VALUES)
def test_a_baseline_survives_a_round_trip_through_json(values: list[int], more: list[int]) -> None:
    baseline = Baseline(values)
    copy = Baseline(json.loads(json.dumps(baseline.to_json())))
    for value in more:
        baseline.add(value)
        copy.add(value)
    assert copy.usual == baseline.usual
    assert copy.to_json() == baseline.to_json()


@given(st.permutations([*range(1, 30)]))
def test_within_one_window_the_order_does_not_matter(values: list[int]) -> None:
    assert Baseline(values).usual == Baseline(sorted(values)).usual
