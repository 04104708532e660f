"""Tokens of whole traces, counted once: a trace holds the same call as the agent, its client and the gateway tell it.

For spans as `telemetry.duckdb` keeps them. Of a very long trace only the calls are added up, by the default rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import duckdb

from midwatch.core.spans.columns import STATUSES
from midwatch.core.spans.counted import Sum, sums
from midwatch.core.spans.counting import judge
from midwatch.core.spans.facts import CALLS, Fact
from midwatch.core.spans.form import CostFrom, Rank, Role
from midwatch.core.spans.standard import OPERATIONS

MAX_JUDGED: Final = 5_000
"""Spans of one trace that are judged one by one: what a trace of this store shows at all."""

_COLUMNS: Final = (
    "trace_id, span_id, parent_id, agent, epoch_ns(ts), duration_s, status, operation, model, run_id, session,"
    """ attributes->>'$."gen_ai.response.id"', attributes->>'$."midwatch.first_response_id"',"""
    """ attributes->>'$."midwatch.call_id"',"""
    """ attributes->>'$."gen_ai.agent.name"', input_tokens, cached_tokens, output_tokens, cost_nusd, scope"""
)


def tokens_of(
    cursor: duckdb.DuckDBPyConnection, traces: Sequence[tuple[str, int]]
) -> dict[str, Sum]:
    """Return what each trace used, by its id; those that tell no tokens are left out. `traces`: id, spans."""
    short = [trace for trace, spans in traces if spans <= MAX_JUDGED]
    long = [trace for trace, spans in traces if spans > MAX_JUDGED]
    found: dict[str, list[Fact]] = {}
    for row in cursor.execute(
        f"SELECT {_COLUMNS} FROM spans WHERE list_contains(?, trace_id)",  # noqa: S608  names of our own
        [short],
    ).fetchall():
        found.setdefault(row[0], []).append(_fact(row))
    totals: dict[str, Sum] = {}
    for trace, facts in found.items():
        if any(one.input_tokens is not None or one.output_tokens is not None for one in facts):
            total = Sum()
            for part in sums(judge(facts)).values():
                total = total.plus(part)
            totals[trace] = total
    for trace, given, made in cursor.execute(
        "SELECT trace_id, sum(input_tokens)::BIGINT, sum(output_tokens)::BIGINT FROM spans"
        " WHERE list_contains(?, trace_id) AND list_contains(?, operation) GROUP BY trace_id",
        [long, [name for name, role in OPERATIONS.items() if role in CALLS]],
    ).fetchall():
        if given is not None or made is not None:
            totals[trace] = Sum(input_tokens=given or 0, output_tokens=made or 0)
    return totals


def _fact(row: Sequence[object]) -> Fact:
    (
        trace_id, span_id, parent_id, agent, start_ns, duration_s, status, operation, model, run_id, session,
        answer, first, call, name, given, cached, made, cost_nusd, scope,
    ) = row  # fmt: skip
    role = OPERATIONS.get(str(operation), Role.OTHER)
    if operation is None and model is not None and (given is not None or made is not None):
        role = Role.CALL
    return Fact._make(
        (
            agent, bytes.fromhex(str(trace_id)), bytes.fromhex(str(span_id)),
            bytes.fromhex(str(parent_id)) if parent_id else None,
            Rank.ENDED.value, start_ns, round(float(str(duration_s or 0)) * 1e9),
            STATUSES.index(str(status)) if status in STATUSES else 0, role.value,
            name, run_id, session, answer, first, call,
            given, cached, None, made, None, cost_nusd, CostFrom.REPORTED.value, scope,
        )
    )  # fmt: skip
