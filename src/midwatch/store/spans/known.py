"""What is settled already, for counting: questions over segments, none of which reads more than it must.

Spans of one trace begin within a day of each other, those that tell of one answer within a minute: only segments that
reach there are looked into. A trace that goes on for longer is counted in parts of a day.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from midwatch.core.calls.news import SCOPE as GATEWAY
from midwatch.core.spans.answers import MAX_SHARED
from midwatch.core.spans.counting import Verdict, Why
from midwatch.core.spans.facts import CALLS, Fact, Key
from midwatch.core.spans.form import CostFrom, Rank, Signal
from midwatch.store.spans.engine import View
from midwatch.store.spans.settling import Time

TRACE_NS: Final = 86_400 * 10**9
"""How far apart spans of one trace may begin."""

ANSWER_NS: Final = 60 * 10**9
"""How far apart spans may begin that tell of one answer."""

VERDICTS: Final = "verdicts"
"""The kind of segments that hold verdicts."""

FACTS: Final = ", ".join(f'"{name}"' for name in Fact._fields)
"""The columns of a fact."""

IN_CALLS: Final = f"role IN ({', '.join(map(str, sorted(CALLS)))})"

TELLS: Final = (
    f"(rank <> {Rank.OPEN.value} AND (coalesce(input_tokens, 0) <> 0 OR coalesce(output_tokens, 0) <> 0"
    f" OR cost_nusd <> 0 OR (cost_nusd = 0 AND cost_from <> {CostFrom.REPORTED.value})))"
)
"""Whether a span tells usage: `facts.says`, without the calls that tell nothing but themselves."""

FAMILY: Final = "split_part(agent, ':', 1)"
"""`answers.family`."""

IDS: Final = (
    "(SELECT DISTINCT trace_id, span_id, id FROM (SELECT trace_id, span_id,"
    " unnest([call_id, response_id, first_response_id]) AS id FROM {} WHERE " + IN_CALLS + ") AS n"
    " WHERE id IS NOT NULL AND id <> '')"
)
"""The ids of calls and answers that rows tell of, each once for a span."""


def in_force(kept: str) -> str:
    """Return the verdicts in force of those that were kept (a query in parentheses): of several on one span the
    newest."""
    return (
        f"(SELECT agent, trace_id, span_id, arg_max(counts, generation) AS counts FROM {kept} AS v"
        " GROUP BY agent, trace_id, span_id)"
    )


class Sealed:
    """`settling.Known` over the segments near a generation, whose spans began from `since_ns` to `until_ns`."""

    def __init__(self, view: View, generation: int, since_ns: int, until_ns: int) -> None:
        self._view = view
        self.near = view.sealed(Signal.SPANS, since_ns - TRACE_NS, until_ns + TRACE_NS, generation)
        self.close = view.sealed(Signal.SPANS, since_ns - ANSWER_NS, until_ns + ANSWER_NS, generation)  # fmt: skip
        self._ledgers: set[str] | None = None

    def of_traces(self, traces: Collection[bytes]) -> Iterable[Fact]:
        cursor = self._view.cursor.execute(
            f"SELECT {FACTS} FROM {self.near} WHERE trace_id IN (SELECT unnest(?::BLOB[]))",
            [list(traces)],
        )
        while rows := cursor.fetchmany(8_192):
            yield from map(Fact._make, rows)

    def traces_of(self, names: Collection[str]) -> Iterable[bytes]:
        rows = self._view.cursor.execute(
            f"WITH hits AS (SELECT DISTINCT trace_id, id FROM {IDS.format(self.close)} WHERE id IN (SELECT unnest(?::VARCHAR[]))),"
            f" few AS (SELECT id FROM hits GROUP BY id HAVING count(*) <= {MAX_SHARED})"
            " SELECT DISTINCT trace_id FROM hits JOIN few USING (id)",
            [list(names)],
        ).fetchall()
        return [row[0] for row in rows]

    def traces_beside(self, times: Sequence[Time]) -> Iterable[bytes]:
        families, since, until = zip(*times, strict=True)
        rows = self._view.cursor.execute(
            f"SELECT DISTINCT s.trace_id FROM (SELECT *, {FAMILY} AS family FROM {self.close} WHERE {TELLS}) AS s"
            " JOIN (SELECT unnest(?::VARCHAR[]) AS family, unnest(?::BIGINT[]) AS since_ns, unnest(?::BIGINT[]) AS until_ns) AS t"
            " ON s.family = t.family AND s.start_ns <= t.until_ns AND s.start_ns + coalesce(s.duration_ns, 0) >= t.since_ns",
            [list(families), list(since), list(until)],
        ).fetchall()
        return [row[0] for row in rows]

    def ledgers(self) -> set[str]:
        """Return the families whose calls the gateway carried meanwhile."""
        if self._ledgers is None:
            rows = self._view.cursor.execute(
                f"SELECT DISTINCT {FAMILY} FROM {self.close} WHERE scope = '{GATEWAY}' AND {IN_CALLS}"
            ).fetchall()
            self._ledgers = {row[0] for row in rows}
        return self._ledgers

    def verdicts(self, traces: Collection[bytes]) -> Mapping[Key, Verdict]:
        kept = self._view.other(VERDICTS)
        if kept is None:
            return {}
        rows = self._view.cursor.execute(
            "WITH asked AS (SELECT unnest(?::BLOB[]) AS trace_id)"
            " SELECT agent, trace_id || span_id,"
            " arg_max({counts: counts, why: why, owner: owner, session: session, t: count_trace}, generation)"
            f" FROM {kept} WHERE trace_id IN (FROM asked) OR count_trace IN (FROM asked)"
            " GROUP BY agent, trace_id, span_id",
            [list(traces)],
        ).fetchall()
        return {
            (agent, ids): Verdict(v["counts"], Why(v["why"]), v["owner"], v["session"], v["t"])
            for agent, ids, v in rows
        }


class Apart:
    """The same for a family whose calls no gateway carried: nothing is matched by its time alone."""

    def __init__(self, sealed: Sealed) -> None:
        self.of_traces = sealed.of_traces
        self.traces_of = sealed.traces_of
        self.verdicts = sealed.verdicts

    def traces_beside(self, times: Sequence[Time]) -> Iterable[bytes]:
        del times
        return ()
