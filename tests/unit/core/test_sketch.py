"""Quantiles that add up: error, order, bytes, size."""

from __future__ import annotations

import random

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.sketch import (
    BUCKETS,
    MAX_BYTES,
    MAX_VALUE,
    PRECISION,
    SQL,
    Sketch,
    bounds,
    bucket,
    merged,
)

VALUES = st.one_of(
    st.integers(0, 300), st.integers(0, 10**12), st.integers(0, MAX_VALUE), st.just(MAX_VALUE)
)
SHARES = st.sampled_from((0.0, 0.01, 0.5, 0.9, 0.95, 0.99, 1.0))
SKETCHES = st.lists(st.tuples(VALUES, st.integers(-5, 5)), max_size=20).map(lambda v: of(*v))


def of(*values: int | tuple[int, int]) -> Sketch:
    sketch = Sketch()
    for value in values:
        sketch.add(*(value if isinstance(value, tuple) else (value,)))
    return sketch


def exact(values: list[int], share: float) -> int:
    rank = max(1, -(-round(share * 100) * len(values) // 100))
    return sorted(values)[rank - 1]


@given(st.lists(VALUES, min_size=1, max_size=200), SHARES)
def test_a_quantile_is_within_its_error_of_the_nearest_rank(
    values: list[int], share: float
) -> None:
    found, true = of(*values).quantile(share), exact(values, share)
    assert found is not None
    assert abs(found - true) <= true * PRECISION
    if true < 128:
        assert found == true


@given(VALUES)
def test_every_value_lies_within_the_bounds_of_its_bucket_and_buckets_touch(value: int) -> None:
    number = bucket(value)
    least, most = bounds(number)
    assert least <= value <= most
    assert 0 <= number < BUCKETS
    if most < MAX_VALUE:
        assert bucket(most + 1) == number + 1
    if least:
        assert bucket(least - 1) == number - 1


def test_the_last_bucket_holds_the_greatest_value() -> None:
    assert bucket(MAX_VALUE) == BUCKETS - 1
    assert bucket(MAX_VALUE + 5) == BUCKETS - 1
    assert bucket(-3) == 0
    assert bounds(BUCKETS - 1)[1] == MAX_VALUE


@given(SKETCHES, SKETCHES, SKETCHES)
def test_merging_is_associative_and_commutative_and_can_be_undone(
    a: Sketch, b: Sketch, c: Sketch
) -> None:
    left = merged((a.to_bytes(), b.to_bytes()))
    left.merge(c)
    right = merged((c.to_bytes(), b.to_bytes()))
    right.merge(a)
    assert left == right
    left.merge(c, -1)
    left.merge(b, -1)
    assert left == a


@given(st.lists(VALUES, max_size=60), st.integers(0, 60))
def test_the_merge_of_parts_is_the_sketch_of_the_whole(values: list[int], cut: int) -> None:
    assert merged((of(*values[:cut]).to_bytes(), of(*values[cut:]).to_bytes())) == of(*values)


@given(SKETCHES)
def test_bytes_come_back_whole_and_are_the_same_for_the_same_sketch(sketch: Sketch) -> None:
    data = sketch.to_bytes()
    assert Sketch.from_bytes(data) == sketch
    assert Sketch(dict(reversed(sketch.counts.items())), sketch.total).to_bytes() == data


@given(st.binary(max_size=60))
def test_bytes_that_are_no_sketch_raise_and_change_nothing(data: bytes) -> None:
    sketch = of(5, 500)
    try:
        sketch.merge_bytes(data)
    except ValueError:
        assert sketch == of(5, 500)
    else:
        assert data[0] == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x02" + bytes(19),
        b"\x01\x04" + bytes(18),
        of(5, 500).to_bytes()[:-1],
        of(5, 500).to_bytes() + b"\0",
        bytes((1, 0, 2, 0)) + bytes(16) + bytes((5, 0, 5, 0, 1, 1)),
        bytes((1, 0, 1, 0)) + bytes(16) + bytes((255, 255, 1)),
        bytes((1, 0, 1, 0)) + bytes(16) + bytes((5, 0, 0)),
    ],
)
def test_broken_bytes_are_refused_with_a_reason(data: bytes) -> None:
    with pytest.raises(ValueError, match="a sketch"):
        Sketch.from_bytes(data)


def test_a_sketch_of_everything_is_bounded() -> None:
    sketch = Sketch(dict.fromkeys(range(BUCKETS), 2**63 - 1), 2**63 - 1)
    assert len(sketch.to_bytes()) <= MAX_BYTES
    day = random.Random(5)
    latencies = of(*(round(day.lognormvariate(1, 1) * 1e9) for _ in range(20_000)))
    assert len(latencies.to_bytes()) < 3_000


def test_values_count_by_weight_and_can_be_taken_back() -> None:
    sketch = of((10, 3), 20)
    assert (sketch.count, sketch.total, sketch.mean) == (4, 50, 12.5)
    assert sketch.quantile(0.5) == 10
    sketch.add(10, -3)
    assert sketch == of(20)
    correction = of((20, -1))
    correction.merge(sketch)
    assert not correction
    assert correction.quantile(0.5) is None
    assert correction.mean is None
    with pytest.raises(ValueError, match="share"):
        sketch.quantile(1.5)


@given(st.lists(VALUES, min_size=1, max_size=30))
def test_a_database_puts_values_into_the_same_buckets(values: list[int]) -> None:
    found = _DUCK.execute(f"SELECT {SQL.format('v')} FROM (SELECT unnest(?::BIGINT[]) v)", [values])
    assert [row[0] for row in found.fetchall()] == [bucket(value) for value in values]


def test_a_database_agrees_at_every_power_of_two() -> None:
    values = [2**n + d for n in range(1, 63) for d in (-1, 0, 1)]
    found = _DUCK.execute(f"SELECT {SQL.format('v')} FROM (SELECT unnest(?::BIGINT[]) v)", [values])
    assert [row[0] for row in found.fetchall()] == [bucket(value) for value in values]


_DUCK = duckdb.connect(":memory:")
