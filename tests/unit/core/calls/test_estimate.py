"""What a batch will cost, and when it has gone wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.calls.estimate import Estimate

MONEY = st.integers(0, 10**12)


@given(st.integers(1, 10**6), st.floats(0.01, 100), MONEY, st.floats(1, 10))
def test_an_estimate_is_never_below_its_parts(
    items: int, each: float, nusd: int, margin: float
) -> None:
    made = Estimate(items, each, nusd, margin)
    assert made.calls >= items * each
    assert made.nusd >= made.bare_nusd * 0.999999999
    assert made.bare_nusd == made.calls * nusd


@pytest.mark.parametrize(
    "given_", [(0, 1.0, 1, 1.3), (1, 0.0, 1, 1.3), (1, 1.0, -1, 1.3), (1, 1.0, 1, 0.9)]
)
def test_what_is_no_batch_is_refused(given_: tuple[int, float, int, float]) -> None:
    with pytest.raises(ValueError, match="expected at least one item"):
        Estimate(*given_)


def test_progress_is_measured_against_what_is_done() -> None:
    made = Estimate(100, 4, 1_000, 1.3)  # 520,000 in all
    half = made.progress(260_000, 50)
    assert (half.expected_nusd, half.ratio, half.forecast_nusd, half.tripped) == (
        260_000,
        1.0,
        520_000,
        False,
    )
    assert made.progress(390_001, 50).tripped
    assert not made.progress(390_000, 50).tripped
    assert not made.progress(390_001).tripped, "without a count the whole estimate is the measure"


def test_what_should_cost_nothing_and_does_not_has_gone_wrong() -> None:
    assert Estimate(5, 1, 0).progress(1).tripped
    assert not Estimate(5, 1, 0).progress(0).tripped
    assert Estimate(5, 1, 0).progress(1).to_json()["ratio"] is None
