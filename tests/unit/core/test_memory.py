"""Growth of memory, and when to look again."""

from __future__ import annotations

import pytest

from midwatch.core.memory import SAMPLE_EVERY_S, SAMPLE_FASTEST_S, next_look, slope_of

MIB = 1024 * 1024


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
