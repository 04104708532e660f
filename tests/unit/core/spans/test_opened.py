"""Open, lost, ended: what is known of a span, in whatever order it is told."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.spans import NOON_NS, S, span, span_id, trace_id

from midwatch.core.spans import form
from midwatch.core.spans.dialect import attribute
from midwatch.core.spans.form import NO_SPAN, Batch, Rank, Row
from midwatch.core.spans.limits import MAX_DURATION_NS
from midwatch.core.spans.opened import (
    MAX_OVER,
    Opened,
    Over,
    as_lost,
    forsaken,
    outranks,
    over,
)
from midwatch.core.spans.understanding import Interpreter


def opened(name: str = "a", **more: Any) -> Row:
    return span(name, rank=Rank.OPEN.value, **{"run_id": "r1", **more})


def kept(rows: list[Row | tuple[str, int]]) -> Row | None:
    """Return what stays of one span after these rows and ends of runs, as a store keeps it."""
    book, known = Opened(), None
    for one in rows:
        if isinstance(one, tuple):
            if book.close(*one):
                assert known is not None
                known = as_lost(known, one[1])
            continue
        if known is None or outranks(one, known):
            row = book.take(one)
            known = known if row is None else row
    return known


END_NS = NOON_NS + 5 * S


def test_a_span_ends_the_same_in_whatever_order_it_is_told() -> None:
    told: list[Row | tuple[str, int]] = [opened(), span(run_id="r1"), ("r1", END_NS)]
    for order in permutations(told):
        found = kept(list(order))
        assert found == span(run_id="r1"), order


def test_a_span_whose_run_is_over_is_lost_then_also_when_it_is_announced_later() -> None:
    for order in permutations([opened(), ("r1", END_NS)]):
        found = kept(list(order))
        assert found is not None
        assert found[form.RANK] == Rank.LOST
        assert found[form.DURATION_NS] == 5 * S


def test_other_runs_and_what_ended_stay_as_they_are() -> None:
    book = Opened()
    for row in (opened("a"), opened("b"), opened("c", run_id="r2"), opened("d", run_id=None)):
        assert book.take(row) is row
    book.take(span("b", run_id="r1"))
    assert book.runs() == {"r1": 1, "r2": 1}
    assert book.close("r1", END_NS) == [form.key(opened("a"))]
    assert book.close("r1", END_NS) == []
    assert len(book) == 2
    assert book.close_silent(NOON_NS) == []
    assert book.close_silent(NOON_NS + 1) == [form.key(opened("d"))]
    assert book.runs() == {"r2": 1}


def test_lost_before_it_began_lasted_no_time_and_no_span_lasts_for_ever() -> None:
    row = opened()
    assert as_lost(row, NOON_NS - S)[form.DURATION_NS] == 0
    assert as_lost(row, 2**62)[form.DURATION_NS] == MAX_DURATION_NS
    assert row[form.RANK] == Rank.OPEN


def test_announcements_beyond_the_bound_are_counted_and_seen_when_they_end() -> None:
    book = Opened(most=2)
    rows = [book.take(opened(f"s{n}")) for n in range(3)]
    assert [row is not None for row in rows] == [True, True, False]
    assert book.refused == 1
    assert book.take(opened("s0")) is not None
    assert book.take(span("s2", run_id="r1")) is not None
    book.take(span("s0", run_id="r1"))
    assert book.take(opened("s3")) is not None


def test_runs_that_are_over_are_remembered_up_to_a_bound() -> None:
    book = Opened()
    for n in range(MAX_OVER + 1):
        book.close(f"r{n}", END_NS)
    forgotten, remembered = book.take(opened(run_id="r0")), book.take(opened(run_id="r1"))
    assert forgotten is not None
    assert remembered is not None
    assert (forgotten[form.RANK], remembered[form.RANK]) == (Rank.OPEN, Rank.LOST)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0, 2]), st.sampled_from(["r1", "r2", None, "over"]))))  # fmt: skip
def test_the_book_holds_what_is_open_and_nothing_else(told: list[tuple[str, int, str]]) -> None:
    book, open_ = Opened(), dict[Any, str | None]()
    for name, rank, run_id in told:
        if run_id == "over":
            for mine in book.close("r1", END_NS):
                assert open_.pop(mine) == "r1"
            assert "r1" not in open_.values()
            continue
        row = span(name, rank=rank, run_id=run_id)
        found = book.take(row)
        if rank == Rank.ENDED:
            open_.pop(form.key(row), None)
        elif found is not None and found[form.RANK] == Rank.OPEN:
            open_.setdefault(form.key(row), run_id)
    assert len(book) == len(open_)
    runs = [run for run in open_.values() if run is not None]
    assert book.runs() == {run: runs.count(run) for run in set(runs)}


def test_the_end_of_a_run_is_read_from_what_the_supervisor_says() -> None:
    ended = {"kind": "run.ended", "at": 5, "data": {"run_id": "r1"}}
    assert over(ended) == Over("r1", 5.0)
    assert over({"kind": "run.ended", "at": 5.5, "run_id": "r2", "data": None}) == Over("r2", 5.5)


@pytest.mark.parametrize(
    "item",
    [
        {}, {"kind": "run.started", "at": 5, "data": {"run_id": "r1"}}, {"kind": "run.ended", "at": 5},
        {"kind": "run.ended", "at": None, "run_id": "r"}, {"kind": "run.ended", "at": 1, "data": {"run_id": 7}},
    ],
)  # fmt: skip
def test_other_events_end_no_run(item: dict[str, Any]) -> None:
    assert over(item) is None


def test_a_hub_that_starts_knows_which_runs_ended_while_it_was_away() -> None:
    open_runs = ["known", "gone", "lives"]
    assert forsaken(open_runs, {"known": 5.0}, {"lives"}, 9.0) == [
        Over("known", 5.0),
        Over("gone", 9.0),
    ]
    assert forsaken(open_runs, {"known": 5.0}, None, 9.0) == [Over("known", 5.0)]


def test_a_pending_twin_and_its_span_are_one() -> None:
    """Logfire sends a twin when a span begins: a child with an id of its own, which ends as it starts."""
    scope = Interpreter().scope("logfire.openai", "5.2", {})

    def read(row_id: str, parent: str | None, **more: Any) -> Row:
        row = NO_SPAN[:]
        row[form.AGENT], row[form.TRACE_ID], row[form.NAME] = "inbox", trace_id("t"), "chat"
        row[form.SPAN_ID], row[form.PARENT_ID] = (
            span_id(row_id),
            parent and span_id(parent),
        )
        row[form.START_NS], row[form.DURATION_NS] = NOON_NS, more.pop("duration_ns", 0)
        scope.span(row, [attribute(key, value) for key, value in more.items()], [], Batch())
        return row

    pending = {"logfire.span_type": "pending_span", "logfire.pending_parent_id": span_id("top").hex()}  # fmt: skip
    twin = read("twin", "real", **pending)
    real = read("real", "top", duration_ns=3 * S, **{"logfire.span_type": "span"})
    assert form.key(twin) == form.key(real)
    assert twin[form.PARENT_ID] == real[form.PARENT_ID]
    assert kept([twin, real]) == kept([real, twin]) == real
