"""Letting traces go that are over: sampling of what is sealed, generation by generation.

A trace is judged once it is whole: when the newest generation that has anything of it was sealed a minute ago, by a
clock that no one sets, and nothing of it is open or came since. Its rows go from every segment in one change; in the
same change it leaves a line behind (`gone`), and what was kept of a share is written down with its weight: a crash
leaves all or nothing. What comes later for a trace that was let go is judged as a trace of its own.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import arro3.core as arrow
import duckdb

from midwatch.core.counts import Counts
from midwatch.core.spans.form import Role, Signal
from midwatch.core.spans.sampling import Carried, Extra, Sampler, names_of, ordered
from midwatch.core.telemetry import SampleRule
from midwatch.store.spans import gone as lines
from midwatch.store.spans.engine import Engine, View, read_parquet
from midwatch.store.spans.known import VERDICTS, in_force
from midwatch.store.spans.sealing import Sealer, released
from midwatch.store.spans.segments import Segment
from midwatch.store.spans.sums import counted, summaries

WEIGHTS: Final = "weights"
"""The kind of segments that say what kept traces stand for: trace_id, agent, rule, weight, start_ns. Rows without a
trace carry the counts of the rules from one generation to the next."""

QUIET_S: Final = 60.0
"""How long ago a generation must have been sealed before its traces are judged: who still sends spans of them does so
within that time. A hub that starts anew waits once more."""

REACH_NS: Final = 86_400 * 10**9
"""How far before a generation its traces are looked for: one that lasts longer is kept whole."""

MAX_FILES: Final = 8
"""Segments of weights before they become one."""

LINES: Final = 30_000
"""Lines that are written at once: a generation may have ten times as many, and lists do not spill."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Judged:
    """What one generation came to."""

    generation: int
    since_ns: int
    gone: list[bytes] = field(default_factory=list[bytes])
    kept: list[tuple[bytes, str, str, int, int]] = field(
        default_factory=list[tuple[bytes, str, str, int, int]]
    )
    """Trace, agent, rule, weight, start."""
    failed: dict[str, int] = field(default_factory=dict[str, int])


class Letting:
    """Samples an embedded store. `rules` and `group` return what the fleet file says at the time."""

    def __init__(
        self,
        engine: Engine,
        sealer: Sealer,
        rules: Callable[[], Sequence[SampleRule]],
        group: Callable[[str], str | None],
        counts: Counts,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """`steady` returns seconds that nobody sets forward or back."""
        self._engine = engine
        self._sealer = sealer
        self._rules = rules
        self._group = group
        self._counts = counts
        self._steady = steady
        self._seen: dict[int, float] = {}
        """When each generation that waits was first seen sealed."""
        self._sampler: tuple[Sequence[SampleRule], Sampler] | None = None

    async def round(self, now: float) -> int:
        """Judge every generation that is quiet; return how many spans went. Raises StoreError.

        What was there before the first rule stays. `now` is not looked at: neither the hub's wall clock nor its
        senders' may decide that a trace is over.
        """
        del now
        rules = list(self._rules())
        spans = 0
        while rules:
            async with self._sealer.turn:
                generation = self._next()
                if generation is None:
                    break
                spans += await self._let_go(rules, generation)
        return spans

    def _next(self) -> int | None:
        """Return the oldest generation that is not judged and quiet, or None."""
        segments = self._engine.layout.segments
        judged = max((s.generation for s in segments if s.kind == WEIGHTS), default=None)
        if judged is None:
            return 0  # the first round only notes where it begins
        waiting = {
            s.generation for s in segments if s.kind == Signal.SPANS.value and s.generation > judged
        }
        now = self._steady()
        self._seen = {number: self._seen.get(number, now) for number in waiting}
        oldest = min(waiting, default=None)
        return oldest if oldest is not None and now - self._seen[oldest] >= QUIET_S else None

    async def _let_go(self, rules: Sequence[SampleRule], generation: int) -> int:
        before = self._spans()

        def work(cursor: duckdb.DuckDBPyConnection) -> tuple[list[Segment], list[Segment], _Judged]:
            if generation == 0:
                newest = max((s.generation for s in self._engine.layout.segments), default=0)
                judged = _Judged(newest, 0)
                sampler = Sampler(rules)
            else:
                with self._engine.view(cursor) as view:
                    sampler = self._remembered(view, rules)
                    judged = self._judge(view, sampler, generation)
            add, remove = self._rewritten(cursor, judged)
            self._leave(cursor, judged, add)
            self._weigh(cursor, judged, sampler, add, remove)
            self._engine.shelf.sync()
            return add, remove, judged

        try:
            add, remove, judged = await self._sealer.run(work)
            await released(await self._sealer.change("sample", add, remove))
        except BaseException:
            self._sampler = None  # what was counted did not happen: read it anew
            raise
        for rule, number in judged.failed.items():
            self._counts.add("sample_failures", rule, number)
        return before - self._spans()

    def _spans(self) -> int:
        return sum(s.rows for s in self._engine.layout.segments if s.kind == Signal.SPANS.value)

    # -- judging -----------------------------------------------------------------------------

    def _remembered(self, view: View, rules: Sequence[SampleRule]) -> Sampler:
        """Return the sampler that goes on where the last one stopped; made anew when the rules changed."""
        if self._sampler is not None and self._sampler[0] == rules:
            return self._sampler[1]
        carried = Carried()
        kept = view.other(WEIGHTS)
        if kept is not None:
            found = view.cursor.execute(
                f"SELECT rule FROM {kept} WHERE trace_id IS NULL ORDER BY start_ns DESC LIMIT 1"
            ).fetchall()
            if found:
                carried = Carried.from_text(found[0][0])
        names = {rule.name or str(at + 1) for at, rule in enumerate(rules)}
        sampler = Sampler(rules, {k: t for k, t in carried.tallies.items() if k[0] in names})
        self._sampler = rules, sampler
        return sampler

    def _judge(self, view: View, sampler: Sampler, generation: int) -> _Judged:
        cursor = view.cursor
        mine, later = list[Segment](), list[Segment]()
        for each in view.layout.segments:
            if each.kind == Signal.SPANS.value and each.generation >= generation:
                (mine if each.generation == generation else later).append(each)
        judged = _Judged(generation, min(each.from_ns for each in mine) - REACH_NS)
        traces = self._whole(view, mine, later)
        if not traces:
            return judged
        cursor.register("judged_now", _ids(traces))  # fmt: skip
        rows = (
            f"(SELECT * FROM {view.rows(Signal.SPANS, judged.since_ns)} AS r"
            " WHERE r.trace_id IN (SELECT trace_id FROM judged_now))"
        )
        kept = view.other(VERDICTS)
        found = summaries(cursor, counted(rows, None if kept is None else in_force(kept)))
        extras = _extras(cursor, rows)
        cursor.unregister("judged_now")
        for trace in ordered(traces):
            summary = found[trace]
            names = names_of(summary, extras.get(trace, Extra()), self._group)
            decision = sampler.decide(names)
            if decision.failed is not None:
                judged.failed[decision.rule] = judged.failed.get(decision.rule, 0) + 1
                log.debug("a trace is kept: %s", decision.failed)
            if not decision.keep:
                judged.gone.append(trace)
            elif decision.counted:
                judged.kept.append(
                    (trace, names["agent"], decision.rule, decision.weight, summary.first_ns or 0)
                )
        return judged

    def _whole(self, view: View, mine: Sequence[Segment], later: Sequence[Segment]) -> list[bytes]:
        """Return the traces of a generation that nothing newer belongs to, and that are not judged yet."""
        going = ["SELECT trace_id FROM opened_now"]
        going += [f"SELECT trace_id FROM {g.name}.spans" for g in view.layout.generations]
        if later:
            going.append(f"SELECT trace_id FROM {read_parquet([self._engine.shelf.path(s) for s in later])}")  # fmt: skip
        if (weighed := view.other(WEIGHTS)) is not None:
            going.append(f"SELECT trace_id FROM {weighed} WHERE trace_id IS NOT NULL")
        rows = view.cursor.execute(
            f"SELECT DISTINCT trace_id FROM {read_parquet([self._engine.shelf.path(s) for s in mine])} AS m"
            f" WHERE NOT EXISTS (SELECT 1 FROM ({' UNION ALL '.join(going)}) AS o WHERE o.trace_id = m.trace_id)"
        ).fetchall()
        return [bytes(row[0]) for row in rows]

    # -- writing -----------------------------------------------------------------------------

    def _rewritten(
        self, cursor: duckdb.DuckDBPyConnection, judged: _Judged
    ) -> tuple[list[Segment], list[Segment]]:
        add: list[Segment] = []
        remove: list[Segment] = []
        if not judged.gone:
            return add, remove
        shelf = self._engine.shelf
        cursor.register("gone_now", _ids(judged.gone))  # fmt: skip
        for each in self._engine.layout.segments:
            if each.kind not in _GO or each.to_ns < judged.since_ns:
                continue
            table = read_parquet([shelf.path(each)])
            found = cursor.execute(
                f"SELECT 1 FROM {table} AS r WHERE r.trace_id IN (SELECT trace_id FROM gone_now) LIMIT 1"
            ).fetchall()
            if not found:
                continue
            rows = f"SELECT * FROM {table} AS r WHERE NOT EXISTS (SELECT 1 FROM gone_now AS g WHERE g.trace_id = r.trace_id)"
            made = shelf.write(cursor, Signal(each.kind), rows, self._sealer.next_number(), each.generation)  # fmt: skip
            remove.append(each)
            if made is not None:
                add.append(made)
        cursor.unregister("gone_now")
        return add, remove

    def _leave(self, cursor: duckdb.DuckDBPyConnection, judged: _Judged, add: list[Segment]) -> None:  # fmt: skip
        """Write what stays of the traces that go."""
        with self._engine.view(cursor) as view:
            for at in range(0, len(judged.gone), LINES):
                cursor.register("gone_now", _ids(judged.gone[at : at + LINES]))
                rows = (
                    f"(SELECT * FROM {view.sealed(Signal.SPANS, judged.since_ns)} AS r"
                    " WHERE r.trace_id IN (SELECT trace_id FROM gone_now))"
                )
                query = lines.lines(view, rows)
                made = self._engine.shelf.write_other(cursor, lines.GONE, query, self._sealer.next_number(), judged.generation)  # fmt: skip
                cursor.unregister("gone_now")
                if made is not None:
                    add.append(made)

    def _weigh(
        self,
        cursor: duckdb.DuckDBPyConnection,
        judged: _Judged,
        sampler: Sampler,
        add: list[Segment],
        remove: list[Segment],
    ) -> None:
        """Write down what was kept, and how far it was judged."""
        carried = Carried(sampler.tallies).to_text()
        rows = [*judged.kept, (None, "", carried, 0, judged.generation)]
        columns = list(zip(*rows, strict=True))
        cursor.register("weighed_now", _table(dict(zip(_WEIGHED, columns, strict=True))))
        query = "SELECT * FROM weighed_now"
        layout = self._engine.layout
        before = [each for each in layout.segments if each.kind == WEIGHTS]
        if len(before) >= MAX_FILES:
            # what a trace stood for goes with the last of its spans
            oldest = min(
                (s.from_ns for s in layout.segments if s.kind == Signal.SPANS.value), default=0
            )
            files = read_parquet([self._engine.shelf.path(each) for each in before])
            query += f" UNION ALL SELECT * FROM {files} WHERE trace_id IS NOT NULL AND start_ns >= {oldest - REACH_NS}"
            remove += before
        number = self._sealer.next_number()
        made = self._engine.shelf.write_other(cursor, WEIGHTS, query, number, judged.generation)
        if made is not None:
            add.append(made)


_GO: Final = {Signal.SPANS.value, Signal.CONTENTS.value}
"""What goes with a trace. Log records have ages of their own."""

_WEIGHED: Final = {
    "trace_id": arrow.DataType.binary(),
    "agent": arrow.DataType.string(),
    "rule": arrow.DataType.string(),
    "weight": arrow.DataType.int64(),
    "start_ns": arrow.DataType.int64(),
}
"""The columns of weights."""

_REFUSED: Final = "('refusal', 'content_filter')"


def _extras(cursor: duckdb.DuckDBPyConnection, rows: str) -> dict[bytes, Extra]:
    found = cursor.execute(
        f"""SELECT trace_id, count(*) FILTER (role = {Role.TOOL.value} AND side_effect),
            count(*) FILTER (finish IN {_REFUSED}), list(DISTINCT tool) FILTER (tool IS NOT NULL)
        FROM {rows} GROUP BY trace_id"""
    ).fetchall()
    return {bytes(t): Extra(effects, refused, tools or ()) for t, effects, refused, tools in found}


def _ids(traces: Sequence[bytes]) -> arrow.Table:
    return _table({"trace_id": traces})


def _table(columns: Mapping[str, Sequence[Any]]) -> arrow.Table:
    arrays = [arrow.Array(list(values), type=_WEIGHED[name]) for name, values in columns.items()]
    return arrow.Table.from_arrays(arrays, names=list(columns))  # pyright: ignore[reportUnknownMemberType]
