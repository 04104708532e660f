"""One table of what orders to delete mean: for every store, and for queues of what is to be sent on."""

from __future__ import annotations

from typing import Any, Final

from midwatch.core.spans import form
from midwatch.core.spans.form import Batch
from midwatch.core.spans.store import Selector
from spans import NOON_S, content, point, record, span, trace_id


def told() -> Batch:
    """Return traces of two agents. The first spans of t1 and t5 alone say whose they are; in t4 one span says the
    session, another one the user."""
    spans = [
        span("a1", "t1", session="s1", user="ann", tags='{"customer":"acme"}', run_id="r1"),
        span("a2", "t1", run_id="r1"),
        span("b1", "t2", session="s2", agent="audit"),
        span("c1", "t3", start_s=-3_600.0),
        span("d1", "t4", session="s4"),
        span("d2", "t4", user="dan", tags='{"customer":"dan & sons"}'),
        span("e1", "t5", session="s4", user="dan", tags='{"customer":"acme","task":""}'),
        span("e2", "t5", agent="audit"),
    ]
    a2 = spans[1]
    made = Batch()
    made.spans.extend(spans)
    made.contents.extend(
        [
            content(a2, "gen_ai.input.messages", "word of ann"),
            content(spans[2], "gen_ai.input.messages", "word of bob"),
        ]
    )
    made.logs.extend(
        [
            record("of a2", trace_id=trace_id("t1"), span_id=a2[form.SPAN_ID], run_id="r1"),
            record("of t1", trace_id=trace_id("t1")),
            record("alone"),
        ]
    )
    made.points.append(point())
    return made


A, D, E = ["a1", "a2"], ["d1", "d2"], ["e1", "e2"]

ORDERS: Final[list[tuple[dict[str, Any], list[str], list[str]]]] = [
    ({"sessions": {"s1"}}, A, ["of a2"]),
    ({"users": {"ann"}}, A, ["of a2"]),
    ({"tags": {"customer": "acme"}}, [*A, *E], ["of a2"]),
    ({"tags": {"customer": "other"}}, [], []),
    ({"tags": {"task": ""}}, E, []),
    ({"tags": {"none": ""}}, [], []),
    # all of it must be said by one span, not by several of a trace
    ({"sessions": {"s4"}}, [*D, *E], []),
    ({"sessions": {"s4"}, "users": {"dan"}}, E, []),
    ({"sessions": {"s1"}, "users": {"dan"}}, [], []),
    ({"sessions": {"s1", "s4"}, "users": {"ann", "dan"}}, [*A, *E], ["of a2"]),
    ({"users": {"dan"}, "tags": {"customer": "acme"}}, E, []),
    ({"sessions": {"s4"}, "tags": {"customer": "dan & sons"}}, [], []),
    ({"agents": {"audit"}}, ["b1", "e2"], []),
    ({"sessions": {"s2", "s4"}, "agents": {"audit"}}, ["b1", "e2"], []),
    ({"runs": {"r1"}}, A, ["of a2"]),
    ({"sessions": {"s1"}, "runs": {"r2"}}, [], []),
    ({"traces": {trace_id("t1")}}, A, ["of a2", "of t1"]),
    ({"sessions": {"s1"}, "traces": {trace_id("t2")}}, [], []),
    ({"before_ns": round((NOON_S - 60.0) * 1e9)}, ["c1"], []),
]
"""What is asked for, which spans go, and which log records."""


def selector(how: dict[str, Any]) -> Selector:
    """Return an order of the table."""
    return Selector(**{k: frozenset(v) if isinstance(v, set) else v for k, v in how.items()})


def spans_of(batch: Batch) -> list[str]:
    """Return the names of spans."""
    return sorted(row[form.NAME] for row in batch.spans)


def logs_of(batch: Batch) -> list[str]:
    """Return the texts of log records."""
    return sorted(row[form.LOGS.at["body"]] for row in batch.logs)


def without(names: list[str], gone: list[str]) -> list[str]:
    """Return what is left of names."""
    return [name for name in names if name not in gone]


def traces_of(spans: list[str]) -> set[bytes]:
    """Return the traces of spans of `told`."""
    return {row[form.TRACE_ID] for row in told().spans if row[form.NAME] in spans}
