"""Session, turns, spans: by whoever names them."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from tests.spans import NOON_S, S, call, span, span_id, trace_id

from midwatch.core.spans import form
from midwatch.core.spans.facts import ALL
from midwatch.core.spans.form import COUNTED, Role, Row
from midwatch.core.spans.sessions import session_of


def counts(row: Row) -> int:
    return ALL if row[form.ROLE] in COUNTED else 0


def names(rows: list[Row]) -> list[tuple[str, list[str]]]:
    session = session_of("s1", rows, counts)
    return [(turn.id, [row[form.NAME] for row in turn.spans]) for turn in session.turns]


TURN = {"role": Role.TURN.value}


def test_turns_are_what_spans_name() -> None:
    rows = [call("a", "t1", turn="1"), call("b", "t1", turn="2", start_s=5), call("c", "t2", turn="1", start_s=9)]  # fmt: skip
    assert names(rows) == [("1", ["a", "c"]), ("2", ["b"])]


def test_spans_below_a_turn_are_in_it_and_the_span_of_the_session_is_in_none() -> None:
    rows = [
        span("session", "t", role=Role.CHAIN.value, duration_ns=90 * S, outcome="success"),
        span("turn one", "t", parent="session", start_s=1, **TURN),
        span("agent", "t", parent="turn one", start_s=2),
        call("call", "t", parent="agent", start_s=3),
        span("turn two", "t", parent="session", start_s=20, **TURN),
        call("call two", "t", parent="turn two", start_s=21),
    ]
    session = session_of("s1", rows, counts)
    assert [[row[form.NAME] for row in turn.spans] for turn in session.turns] == [
        ["turn one", "agent", "call"], ["turn two", "call two"],
    ]  # fmt: skip
    assert [turn.id for turn in session.turns] == [
        span_id("turn one").hex(),
        span_id("turn two").hex(),
    ]
    assert [row[form.NAME] for row in session.outside] == ["session"]
    item = session.item()
    assert (item["turns"], item["calls"], item["outcome"], item["at"]) == (2, 2, "success", NOON_S)
    one = session.turns[0].item()
    assert (one["number"], one["calls"], one["cost_nusd"], one["duration_s"]) == (1, 1, 5, 3.0)
    assert one["traces"] == [trace_id("t").hex()]


def test_without_turns_each_trace_is_one() -> None:
    rows = [call("a", "t1"), call("b", "t2", start_s=5), span("c", "t1", parent="a", start_s=7)]
    assert names(rows) == [(trace_id("t1").hex(), ["a", "c"]), (trace_id("t2").hex(), ["b"])]


def test_a_child_that_comes_late_is_in_its_parents_turn_and_an_orphan_in_its_own() -> None:
    turn, child = span("turn", "t", turn="7", **TURN), call("child", "t", parent="turn", start_s=1)
    orphan = call("orphan", "t", parent="never came", start_s=2)
    session = session_of("s1", [child, orphan, turn], counts)
    assert [(t.id, len(t.spans)) for t in session.turns] == [("7", 2)]
    assert [row[form.NAME] for row in session.outside] == ["orphan"]


def test_parents_in_a_circle_are_in_no_turn() -> None:
    rows = [
        span("a", "t", parent="b"),
        span("b", "t", parent="a"),
        span("self", "t", parent="self"),
    ]
    assert names(rows) == [(trace_id("t").hex(), [r[form.NAME] for r in sorted(rows, key=lambda r: r[form.SPAN_ID])])]  # fmt: skip


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 9), st.sampled_from([None, None, "1", "2"]), st.booleans()),
        max_size=12,
        unique_by=lambda one: one[0],
    ),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_every_span_is_in_one_turn_or_outside_in_any_order(
    told: list[tuple[int, int, str | None, bool]], order: random.Random
) -> None:
    rows = [
        span(f"s{n}", f"t{n % 2}", parent=f"s{up}", turn=turn, start_s=n, role=Role.TURN.value if is_turn else 0)
        for n, up, turn, is_turn in told
    ]  # fmt: skip
    session = session_of("s1", rows, counts)
    held = [row[form.NAME] for turn in session.turns for row in turn.spans]
    held += [row[form.NAME] for row in session.outside]
    assert sorted(held) == sorted(row[form.NAME] for row in rows)
    shuffled = rows[:]
    order.shuffle(shuffled)
    assert session_of("s1", shuffled, counts) == session
