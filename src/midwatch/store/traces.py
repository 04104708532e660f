"""Lists of traces, and one trace with its spans, over a view of the embedded store.

Tokens of whole traces are counted once: a trace holds the same call as the agent, its client and the gateway tell
it. Of a very long one only the calls are added up, by the default rule.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from midwatch.core.spans.counted import Sum, sums
from midwatch.core.spans.counting import judge
from midwatch.core.spans.facts import CALLS, Fact
from midwatch.core.spans.form import SPANS, Signal
from midwatch.store.spans.engine import View
from midwatch.store.spans.shape import COLUMNS

MAX_JUDGED: Final = 5_000
"""Spans of one trace that are judged one by one."""

MAX_SPANS: Final = 5_000
"""Spans of one trace that are shown; a longer one says so."""

_FACTS: Final = ", ".join(f'"{name}"' for name in Fact._fields)
_ERROR: Final = 2
_CALLS: Final = ", ".join(map(str, sorted(CALLS)))


def traces(view: View, agent: str | None, after: str | None, limit: int) -> list[dict[str, Any]]:
    """Return newest first, tokens counted once; `after` is the trace id that the last page ended with."""
    spans = view.rows(Signal.SPANS)
    where, values = "true", list[Any]()
    if agent is not None:
        where, values = "agent = ?", [agent]
    having = ""
    if after is not None:
        last = _trace_id(after)
        having = f"HAVING (min(start_ns), trace_id) < ((SELECT min(start_ns) FROM {spans} WHERE trace_id = ?), ?)"
        values += [last, last]
    rows = view.cursor.execute(
        "SELECT trace_id, min(start_ns) / 1e9,"
        " (max(start_ns + coalesce(duration_ns, 0)) - min(start_ns)) / 1e9,"
        " count(*), arg_min(name, (parent_id IS NOT NULL, start_ns)), any_value(agent),"
        f" count(*) FILTER (status = {_ERROR})"
        f" FROM {spans} WHERE {where} GROUP BY trace_id {having}"
        " ORDER BY min(start_ns) DESC, trace_id DESC LIMIT ?",
        [*values, limit],
    ).fetchall()
    names = ("trace_id", "at", "duration_s", "spans", "name", "agent", "errors")
    items: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in rows]
    used = _tokens(view, [(item["trace_id"], item["spans"]) for item in items])
    for item in items:
        counted = used.get(item["trace_id"])
        item["trace_id"] = item["trace_id"].hex()
        item["input_tokens"] = None if counted is None else counted.input_tokens
        item["output_tokens"] = None if counted is None else counted.output_tokens
    return items


def trace(view: View, trace_id: str) -> dict[str, Any] | None:
    """Return `{"trace_id", "spans": […], "truncated"}` with spans by their start, or None."""
    rows = view.cursor.execute(
        f"SELECT {COLUMNS[Signal.SPANS]} FROM {view.rows(Signal.SPANS)} WHERE trace_id = ?"
        " ORDER BY start_ns, span_id LIMIT ?",
        [_trace_id(trace_id), MAX_SPANS + 1],
    ).fetchall()
    if not rows:
        return None
    spans = [_shown(SPANS.item(row)) for row in rows[:MAX_SPANS]]
    return {"trace_id": trace_id, "spans": spans, "truncated": len(rows) > MAX_SPANS}


def _trace_id(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""  # no trace has it


def _shown(item: dict[str, Any]) -> dict[str, Any]:
    """Return a span as the API shows it: an open one has no duration yet."""
    item.setdefault("duration_s", 0.0)
    for event in item.get("events", ()):
        event["at"] = event["time_ns"] / 1e9
    return item


def _tokens(view: View, traces: Sequence[tuple[bytes, int]]) -> dict[bytes, Sum]:
    """Return what each trace used, by its id; those that tell no tokens are left out. `traces`: id, spans."""
    short = [trace for trace, spans in traces if spans <= MAX_JUDGED]
    long = [trace for trace, spans in traces if spans > MAX_JUDGED]
    spans = view.rows(Signal.SPANS)
    found: dict[bytes, list[Fact]] = {}
    for row in view.cursor.execute(
        f"SELECT {_FACTS} FROM {spans} WHERE trace_id IN (SELECT unnest(?::BLOB[]))", [short]
    ).fetchall():
        one = Fact._make(row)
        found.setdefault(one.trace_id, []).append(one)
    totals: dict[bytes, Sum] = {}
    for trace_id, facts in found.items():
        if any(one.input_tokens is not None or one.output_tokens is not None for one in facts):
            total = Sum()
            for part in sums(judge(facts)).values():
                total = total.plus(part)
            totals[trace_id] = total
    for trace_id, given, made in view.cursor.execute(
        f"SELECT trace_id, sum(input_tokens)::BIGINT, sum(output_tokens)::BIGINT FROM {spans}"
        f" WHERE trace_id IN (SELECT unnest(?::BLOB[])) AND role IN ({_CALLS}) GROUP BY trace_id",
        [long],
    ).fetchall():
        if given is not None or made is not None:
            totals[trace_id] = Sum(input_tokens=given or 0, output_tokens=made or 0)
    return totals
