"""A trace as a tree: every span in one place, sums of all below, repeats in one line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.spans.facts import ALL
from midwatch.core.spans.form import Rank, Role
from midwatch.core.spans.questions import BadQuestion
from midwatch.core.spans.tree import MIN_ALIKE, Forest, Stem, columns_of


def stem(number: int, parent: int | None, **more: Any) -> Stem:
    values: dict[str, Any] = {
        "start_ns": number,
        "duration_ns": 5,
        "rank": Rank.ENDED.value,
        "status": 0,
        "role": Role.TOOL.value,
        "name": "search",
        "input_tokens": None,
        "cached_tokens": None,
        "output_tokens": None,
        "cost_nusd": 1,
        "counts": ALL,
        **more,
    }
    return Stem(number.to_bytes(8), None if parent is None else parent.to_bytes(8), **values)


def forest(stems: list[Stem]) -> Forest:
    return Forest(columns_of(stems))


def drawn(trees: Forest, limit: int = 1_000, *, fold: bool = True) -> list[tuple[int, int, int]]:
    """Return lines as depth, number of the span, and how many it stands for."""
    page = trees.page(None, None, limit, fold=fold)
    assert page is not None
    return [(line.depth, int.from_bytes(line.span_id), line.alike) for line in page[0]]


def test_siblings_in_a_row_that_are_alike_are_one_line_and_what_failed_is_not_alike() -> None:
    trees = forest(
        [
            stem(1, None, name="root", role=Role.AGENT.value),
            *(stem(n, 1) for n in range(2, 6)),
            stem(6, 1, status=2),
            stem(7, 1),
            stem(8, 1),
            stem(9, 1, name="other"),
            # alike themselves, but something below one of them failed
            *(stem(n, 1, name="loop") for n in range(10, 17)),
            stem(20, 13, status=2),
            *(stem(20 + n, n) for n in range(14, 17)),
        ]
    )
    assert drawn(trees) == [
        (0, 1, 1), (1, 2, 4), (1, 6, 1), (1, 7, 1), (1, 8, 1), (1, 9, 1), (1, 10, 3), (1, 13, 1), (2, 20, 1), (1, 14, 3),
    ]  # fmt: skip
    page = trees.page(None, None, 100)
    assert page is not None
    folded = page[0][-1]
    assert (folded.children, folded.below.spans, folded.below.cost_nusd, folded.end_ns) == (3, 6, 6, 41)  # fmt: skip
    assert len(drawn(trees, fold=False)) == len(trees) == 20


def test_two_are_no_repeat() -> None:
    trees = forest([stem(1, None), *(stem(n, 1) for n in range(2, 1 + MIN_ALIKE))])
    assert all(alike == 1 for _, _, alike in drawn(trees))


@given(
    st.lists(st.tuples(st.integers(0, 30), st.none() | st.integers(0, 35)), max_size=40),
    st.integers(1, 7),
)
def test_every_span_stands_in_one_place_whatever_parents_are_named(
    pairs: list[tuple[int, int | None]], limit: int
) -> None:
    stems = [stem(number, parent) for number, parent in pairs]
    trees = forest(stems)
    assert len(trees) == len({one.span_id for one in stems})
    seen: list[bytes] = []
    after = None
    while (page := trees.page(None, after, limit, fold=False)) is not None:
        seen += [line.span_id for line in page[0]]
        if (after := page[1]) is None:
            break
    assert sorted(seen) == sorted({one.span_id for one in stems})
    tops = trees.page(None, None, 1_000)
    if tops is not None:
        assert sum(line.below.spans for line in tops[0] if line.depth == 0) == len(trees)


def test_sums_are_bounded_and_nothing_is_shown_of_nothing() -> None:
    most = 2**63 - 1
    page = forest([stem(1, None, cost_nusd=most), stem(2, 1, cost_nusd=most)]).page(None, None, 9)
    assert page is not None
    assert page[0][0].below.cost_nusd == most
    assert forest([]).page(None, None, 9) is None
    assert forest([stem(1, None)]).page(b"12345678", None, 9) is None
    for after in ("-1", "x", "9" * 13, "٣"):
        with pytest.raises(BadQuestion, match="cursor"):
            forest([stem(1, None)]).page(None, after, 9)


@given(st.lists(st.tuples(st.integers(0, 30), st.none() | st.integers(0, 35), st.integers(0, 9)), max_size=40))  # fmt: skip
def test_a_line_sums_up_what_is_drawn_below_it(spans: list[tuple[int, int | None, int]]) -> None:
    first = {number: (parent, cost) for number, parent, cost in reversed(spans)}
    trees = forest([stem(n, p, cost_nusd=c, status=2 * (c > 7), duration_ns=c * 10) for n, p, c in spans])  # fmt: skip
    page = trees.page(None, None, 1_000, fold=False)
    lines = page[0] if page is not None else []
    for place, line in enumerate(lines):
        whole = [line]
        for other in lines[place + 1 :]:
            if other.depth <= line.depth:
                break
            whole.append(other)
        costs = {one.span_id: first[int.from_bytes(one.span_id)][1] for one in whole}
        assert line.below.spans == len(whole)
        assert line.below.cost_nusd == sum(costs.values())
        assert line.below.errors == sum(cost > 7 for cost in costs.values())
        assert line.end_ns == max(int.from_bytes(one) + cost * 10 for one, cost in costs.items())
        assert line.children == sum(one.depth == line.depth + 1 for one in whole)


def test_a_chain_of_a_hundred_thousand_spans_is_no_deeper_than_memory() -> None:
    trees = forest([stem(n, n - 1 if n else None) for n in range(100_000)])
    page = trees.page(None, "99990", 100)
    assert page is not None
    assert [(line.depth, line.below.spans) for line in page[0]][-1] == (99_999, 1)
    assert len(page[0]) == 10
