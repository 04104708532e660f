"""Runaway cycles: who is one, and what is learned."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.core.baseline import Baseline
from midwatch.core.loop import Cycle, judge, learn
from midwatch.core.terms import Loop

LOOP = Loop()


def _run(beats: list[dict[str, Any]], loop: Loop = LOOP) -> tuple[list[Cycle], Baseline, Baseline]:
    tokens, cost = Baseline(), Baseline()
    cycles: list[Cycle] = []
    for number, beat in enumerate(beats):
        cycle = judge({"at": float(number), **beat}, tokens, cost, loop)
        learn(cycle, tokens, cost)
        cycles.append(cycle)
    return cycles, tokens, cost


def _alarms(beats: list[dict[str, Any]], loop: Loop = LOOP) -> list[int]:
    return [n for n, cycle in enumerate(_run(beats, loop)[0]) if cycle.excess]


def _tokens(*counts: int) -> list[dict[str, Any]]:
    return [{"tokens": count} for count in counts]


@pytest.mark.parametrize(
    ("beats", "alarms"),
    [
        pytest.param(_tokens(*[190] * 10, 41_200), [10], id="a cycle of 200 times the usual"),
        pytest.param(
            _tokens(*[4_000] * 5, 40_000), [5], id="exactly ten times, at the first chance"
        ),
        pytest.param(_tokens(*[4_000] * 5, 39_999), [], id="just under ten times"),
        pytest.param(_tokens(*[10] * 20, 4_999), [], id="small numbers stay under the floor"),
        pytest.param(_tokens(*[10] * 20, 5_000), [20], id="small numbers that reach the floor"),
        pytest.param(_tokens(*[0] * 50, 20_000), [], id="a baseline of zeros is no baseline"),
        pytest.param(_tokens(60_000, 80_000, 70_000), [], id="the first cycles of a big agent"),
        pytest.param(_tokens(500_000), [0], id="an enormous first cycle"),
        pytest.param(
            _tokens(*[round(2_000 * 1.1**n) for n in range(80)]),
            [],
            id="honest growth, 10% a cycle",
        ),
        pytest.param(_tokens(*[round(700 * n) for n in range(1, 200)]), [], id="cumulative usage"),
        pytest.param(
            [{"cost_usd": 0.01, "cost_nusd": 10_000_000}] * 9 + [{"cost_nusd": 100_000_000}],
            [9],
            id="money without tokens",
        ),
        pytest.param(
            [{"cost_nusd": 10_000}] * 9 + [{"cost_nusd": 40_000_000}],
            [],
            id="cents under the floor",
        ),
        pytest.param(
            [*_tokens(*[190] * 10), *[{"tokens": 90_000, "draining": True}] * 5, *_tokens(190)],
            [],
            id="a burst of clean-up",
        ),
        pytest.param([{}] * 20, [], id="beats that report nothing"),
    ],
)
def test_a_cycle_is_a_runaway_when_it_is_far_over_the_usual(
    beats: list[dict[str, Any]], alarms: list[int]
) -> None:
    assert _alarms(beats) == alarms


def test_a_runaway_never_becomes_usual() -> None:
    cycles, tokens, _ = _run(_tokens(*[190] * 10, *[41_200] * 100))
    assert tokens.usual == 190
    assert all(cycle.excess for cycle in cycles[10:])


def test_clean_up_does_not_enter_the_baseline() -> None:
    _, tokens, _ = _run([*_tokens(*[190] * 10), {"tokens": 1_500, "draining": True}])
    assert tokens.to_json() == [190] * 10


def test_a_runaway_of_money_still_teaches_its_usual_tokens() -> None:
    usual = {"tokens": 500, "cost_nusd": 20_000_000}
    cycles, tokens, cost = _run([usual] * 6 + [{"tokens": 500, "cost_nusd": 900_000_000}])
    assert [e.measure for e in cycles[-1].excess] == ["cost"]
    assert (len(tokens), len(cost)) == (7, 6)


def test_a_ratio_of_zero_switches_the_measure_off() -> None:
    assert _alarms(_tokens(*[190] * 10, 10**9), Loop(tokens_per_cycle=0.0)) == []


def test_an_excess_names_what_it_was_compared_with() -> None:
    cycles, _, _ = _run(_tokens(*[1_000] * 10, 41_200))
    (excess,) = cycles[-1].excess
    assert (excess.value, excess.usual, excess.threshold, excess.ratio) == (
        41_200,
        1_000,
        10_000,
        10.0,
    )
