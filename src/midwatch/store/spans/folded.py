"""What lines of traces that are gone come to: files beside a segment of such lines, so that questions read few rows.

Three sums are kept: by session the parts of its traces put together, and what calls cost by the minute, with all that
cost is asked by. They are made of the segment alone, whenever one is written, and go with it: after a trace was
forgotten or lines were joined nothing has to be taken out of a sum.
"""

# ruff: noqa: S608  names of tables and columns are ours

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from midwatch.core.spans.summary import SUMS

GONE: Final = "gone"
"""The kind of segments that hold lines of traces that are gone (`store.spans.gone`)."""

SESSIONS: Final = ".sessions"
"""Rows with the columns of parts (`parts.trace_parts`) and `session`; `lines`: of how many traces, and `untold`: of
those, how many name no turn. The latest ends come last."""

COSTS: Final = ".costs"
"""Rows of what counts: `start_ns` (of the minute), OF_COSTS and IN_COSTS."""

CARRIED: Final = ".carried"
"""Rows of what the gateway carried: `start_ns` (of the minute), OF_CALLS and IN_CALLS."""

OF_COSTS: Final = "agent, model, provider, tool, session, tags"
IN_COSTS: Final = "cost_nusd, calls, input_tokens, cached_tokens, output_tokens, unpriced"
"""The numbers of what counts, as `Cost` has them."""

OF_CALLS: Final = "agent, run_id, session, model, provider, task, tags, key"
IN_CALLS: Final = "cost_nusd, tokens, calls, estimated, disputed, saved"

ROW_GROUP: Final = 8_192
"""Rows that are read together at least."""

AT_ONCE: Final = 25_000
"""Lines that are put together by session at once: some tens of MiB."""

_MAX: Final = 2**63 - 1
_LISTS: Final = (
    "agents", "users", "runs", "models", "tool_names", "outcomes", "tag_texts", "turns",
)  # fmt: skip
_LATEST: Final = ("session", "user", "outcome", "goal_met")


def folded(lines: str, rows: int = 0) -> Mapping[str, Sequence[str]]:
    """Return by the file's suffix the queries of what these lines come to (a table function), and of how many.

    By session they are put together in chunks, each of some sessions, one after the other: what stands in lists cannot
    be put on the disk meanwhile.
    """
    told = f"(SELECT unnest(sessions) AS named, * EXCLUDE (sessions, costs, carried) FROM {lines} AS l)"
    chunks = max(1, -(-rows // AT_ONCE))
    some = [
        f"(SELECT * FROM {told} AS n WHERE hash(named) % {chunks} = {chunk})"
        for chunk in range(chunks)
    ]
    return {
        SESSIONS: [_sessions(each) for each in (some if chunks > 1 else [told])],
        COSTS: [_unlisted(lines, "costs", OF_COSTS, IN_COSTS)],
        CARRIED: [_unlisted(lines, "carried", OF_CALLS, IN_CALLS)],
    }


def _unlisted(lines: str, column: str, names: str, numbers: str) -> str:
    split = ", ".join(f"one.{name} AS {name}" for name in f"start_ns, {names}".split(", "))
    added = ", ".join(
        f"least(sum(one.{name}), {_MAX})::BIGINT AS {name}" for name in numbers.split(", ")
    )
    return (
        f"SELECT {split}, {added} FROM (SELECT unnest({column}) AS one FROM {lines} AS l) AS u"
        " GROUP BY ALL ORDER BY start_ns"
    )


def _sessions(told: str) -> str:
    several = ", ".join(
        f"list_distinct(flatten(list({name}) FILTER ({name} IS NOT NULL))) AS {name}"
        for name in _LISTS
    )
    latest = ", ".join(f"max(said_{name}) AS said_{name}" for name in _LATEST)
    numbers = ", ".join(f"least(sum({name}), {_MAX})::BIGINT AS {name}" for name in SUMS)
    main = (
        "SELECT named, count(*) AS lines, count(*) FILTER (turns IS NULL) AS untold, min(first_ns) AS first_ns,"
        f" max(last_ns) AS last_ns, min(root) AS root, bool_or(escalated) AS escalated, {several}, {latest},"
        " flatten(list(said_evaluations) FILTER (said_evaluations IS NOT NULL)) AS said_evaluations,"
        f" {numbers} FROM {told} AS t GROUP BY named"
    )
    # of equal tags the latest is as good as all
    tags = (
        "SELECT named, list({s: w.s, i: w.i, v: v}) AS said_tags FROM (SELECT named, e.v AS v, max({s: e.s, i: e.i}) AS w"
        f" FROM (SELECT named, unnest(said_tags) AS e FROM {told} AS t) AS u GROUP BY ALL) AS g GROUP BY named"
    )
    shares = (
        "SELECT named, list({m: m, p: p, c: c, t: t}) AS shares FROM (SELECT named, e.m AS m, min(e.p) AS p,"
        f" least(sum(e.c), {_MAX})::BIGINT AS c, least(sum(e.t), {_MAX})::BIGINT AS t"
        f" FROM (SELECT named, unnest(shares) AS e FROM {told} AS t) AS u GROUP BY ALL) AS g GROUP BY named"
    )
    return (
        "SELECT m.named AS session, [m.named] AS sessions, m.* EXCLUDE (named), g.said_tags, h.shares"
        f" FROM ({main}) AS m LEFT JOIN ({tags}) AS g ON g.named = m.named"
        f" LEFT JOIN ({shares}) AS h ON h.named = m.named ORDER BY m.last_ns"
    )
