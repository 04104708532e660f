"""Settles a generation: which spans count, and what they come to by minute. In the sealing thread.

    1. choose the traces that are hard    most are plain calls, with others around them: DuckDB says what these repeat
    2. judge the hard ones, family by family, with what was settled before   `settling.count`
    3. add up the generation, and correct what it changes of earlier sums

What was settled before is never read but where it is near, and never written again: corrections are differences. The
same generation, settled again after a crash, gives the same.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

import arro3.core as arrow
import duckdb

from midwatch.core.calls.news import SCOPE as GATEWAY
from midwatch.core.spans.answers import MAX_SHARED, family
from midwatch.core.spans.counting import Verdict, Why
from midwatch.core.spans.facts import Fact, Key
from midwatch.core.spans.form import AGENT, SPAN_ID, TRACE_ID, Row, Signal
from midwatch.core.spans.rollup import Rollup
from midwatch.store.spans import bounding, minutes, sums
from midwatch.store.spans.arrowed import BYTES, INT, TEXT, table
from midwatch.store.spans.engine import View
from midwatch.store.spans.known import FACTS, FAMILY, IDS, IN_CALLS, TELLS, VERDICTS, Apart, Sealed
from midwatch.store.spans.sealing import Beside
from midwatch.store.spans.settling import Known, count
from midwatch.store.spans.shape import COLUMNS

CHUNK: Final = 10_000
"""Traces that are summed up at one time: their summaries are in memory."""

log = logging.getLogger(__name__)


def nothing() -> Mapping[str, Any]:
    """Return no settings."""
    return {}


@dataclass(frozen=True, slots=True)
class Terms:
    """By what is summed, as the fleet file has it when a generation is settled."""

    groups: Callable[[], Mapping[str, str]] = nothing
    """Agent → group."""
    windows: Callable[[Collection[str]], Mapping[str, int]] = lambda _: {}
    """Of these models, the tokens of the context."""
    tags: Callable[[], Collection[str]] = tuple
    """Names that are counted by."""


@dataclass(slots=True)
class _Judged:
    """What the verdicts are, and of spans that were settled before, by what they counted until now."""

    verdicts: dict[Key, Verdict] = field(default_factory=dict[Key, Verdict])
    before: dict[Key, int] = field(default_factory=dict[Key, int])
    cut_off: Counter[str] = field(default_factory=Counter[str])
    folded: Counter[str] = field(default_factory=Counter[str])


class Books:
    """Implements `sealing.Settling`."""

    def __init__(self, terms: Terms | None = None) -> None:
        self._terms = Terms() if terms is None else terms
        self._cut_off: Counter[str] = Counter()
        self._folded: Counter[str] = Counter()

    def taken(self) -> list[tuple[str, int]]:
        """Return by reason, since it was asked last, how often a bound kept something from being counted with what it
        belongs to. From any thread."""
        found, self._cut_off = self._cut_off, Counter()
        return sorted(found.items())

    def folded(self) -> list[tuple[str, int]]:
        """Return by what they are of (`model`, `tag:customer`), since it was asked last, how many values were summed as
        OTHER because their day had enough. From any thread."""
        found, self._folded = self._folded, Counter()
        return sorted(found.items())

    def __call__(self, view: View, generation: int, spans: str, contents: str) -> Beside:
        del contents
        cursor = view.cursor
        bounds = cursor.execute(f"SELECT min(start_ns), max(start_ns) FROM {spans}").fetchone()
        if bounds is None or bounds[0] is None:
            return Beside()
        sealed = Sealed(view, generation, bounds[0], bounds[1])
        judged = self._judge(cursor, spans, sealed)
        cursor.register("settled_verdicts", _verdict_table(judged.verdicts, generation))
        tables = self._add_up(view, generation, spans, sealed, judged)
        self._folded += judged.folded
        if judged.cut_off:
            self._cut_off += judged.cut_off
            log.warning("generation %d is counted without all it belongs to: %s", generation, dict(judged.cut_off))  # fmt: skip
        return Beside(
            tables={VERDICTS: "SELECT * FROM settled_verdicts", **tables},
        )

    # -- verdicts ----------------------------------------------------------------------------

    def _judge(self, cursor: duckdb.DuckDBPyConnection, spans: str, sealed: Sealed) -> _Judged:
        judged = _Judged()
        carried = {row[0] for row in cursor.execute(_LEDGERS.format(spans)).fetchall()}
        carried |= sealed.ledgers()
        rows = cursor.execute(
            _hard(spans, sealed, bool(carried)), [sorted(carried)] * bool(carried)
        ).fetchall()
        hard = [row[0] for row in rows]
        cursor.register("settled_hard", _blob_table("trace_id", hard))
        judged.verdicts.update(_around(cursor, spans))
        if not hard:
            return judged
        rows = cursor.execute(
            f"SELECT {FACTS} FROM {spans} WHERE trace_id IN (SELECT trace_id FROM settled_hard) ORDER BY {FAMILY}"
        ).fetchall()
        for name, several in groupby(map(Fact._make, rows), key=lambda one: family(one.agent)):
            known: Known = sealed if name in carried else Apart(sealed)
            counted = count(list(several), known)
            judged.verdicts.update(counted.change.verdicts)
            judged.before.update(counted.before)
            judged.cut_off += counted.cut_off
        return judged

    # -- sums --------------------------------------------------------------------------------

    def _add_up(
        self, view: View, generation: int, spans: str, sealed: Sealed, judged: _Judged
    ) -> Mapping[str, str]:
        cursor, terms = view.cursor, self._terms
        models = cursor.execute(f"SELECT DISTINCT model FROM {spans} WHERE model IS NOT NULL").fetchall()  # fmt: skip
        mine = minutes.Terms(terms.groups(), terms.windows([row[0] for row in models]), terms.tags())  # fmt: skip
        fresh = "(SELECT agent, trace_id, span_id, counts FROM settled_verdicts)"
        cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE settled_spans AS SELECT {minutes.SPANS} FROM {sums.counted(spans, fresh)}"
        )
        # what is not simply added: corrections of what is settled, and traces that go on
        rollup = Rollup(mine.groups, mine.windows, mine.tags)
        for row in _rows(cursor, sealed.near, judged.before):
            key = row[AGENT], row[TRACE_ID] + row[SPAN_ID]
            rollup.use(row, judged.before[key], -1)
            rollup.use(row, judged.verdicts[key].counts)
        replaced = view.replaced(generation)
        if replaced is not None:
            for row in cursor.execute(f"SELECT * FROM {sums.counted(replaced)}").fetchall():
                rollup.add(list(row[:-1]), row[-1], -1)
        many = minutes.read_tags(cursor, "settled_spans", mine)
        self._add_traces(view, spans, sealed, judged, rollup, replaced, many)
        new = "(SELECT * FROM settled_spans WHERE trace_id NOT IN (SELECT trace_id FROM settled_apart))"
        kept = view.other(minutes.DAYS)
        made = minutes.add_up(cursor, "settled_spans", new, mine, rollup.sums(), generation, kept)
        judged.folded += bounding.counted(cursor)
        return made

    def _add_traces(
        self,
        view: View,
        spans: str,
        sealed: Sealed,
        judged: _Judged,
        rollup: Rollup,
        replaced: str | None,
        many: str,
    ) -> None:
        """Count traces one by one that are not simply new: of those that go on the difference, and those (`many`) of
        which more is said than a summary keeps. All of them are in `settled_apart` then."""
        cursor = view.cursor
        again = {ids[:16] for _, ids in judged.before}
        rows = cursor.execute(
            f"SELECT DISTINCT trace_id FROM {sealed.near} WHERE trace_id IN (SELECT trace_id FROM settled_spans)"
        ).fetchall()
        again |= {row[0] for row in rows}
        if replaced is not None:
            again |= {row[0] for row in cursor.execute(f"SELECT DISTINCT trace_id FROM {replaced}").fetchall()}  # fmt: skip
        large = {row[0] for row in cursor.execute(many).fetchall()} - again
        cursor.register("settled_again", _blob_table("trace_id", sorted(again)))
        cursor.register("settled_large", _blob_table("trace_id", sorted(large)))
        cursor.register("settled_apart", _blob_table("trace_id", sorted(again | large)))
        if large:
            fresh = "(SELECT agent, trace_id, span_id, counts FROM settled_verdicts)"
            chosen = (
                f"(SELECT * FROM {spans} WHERE trace_id IN (SELECT trace_id FROM settled_large))"
            )
            for found in _summaries(cursor, sums.counted(chosen, fresh)):
                rollup.add_trace(found)
        if not again:
            return
        going = "trace_id IN (SELECT trace_id FROM settled_again)"
        kept = view.other(VERDICTS)
        older = None if kept is None else _latest(kept)
        old = f"SELECT {COLUMNS[Signal.SPANS]} FROM {sealed.near} WHERE {going}"
        gone = (
            ""
            if replaced is None
            else f" UNION ALL SELECT {COLUMNS[Signal.SPANS]} FROM {replaced} WHERE {going}"
        )
        new = f" UNION ALL SELECT {COLUMNS[Signal.SPANS]} FROM {spans} WHERE {going}"
        for found in _summaries(cursor, sums.counted(f"({old}{gone})", older)):
            rollup.add_trace(found, -1)
        newer = (
            _SETTLED if kept is None else f"(SELECT {_VERDICT} FROM {kept} UNION ALL {_SETTLED})"
        )
        for found in _summaries(cursor, sums.counted(f"({old}{new})", _latest(f"({newer})"))):
            rollup.add_trace(found)


_LEDGERS: Final = f"SELECT DISTINCT {FAMILY} FROM {{}} WHERE scope = '{GATEWAY}' AND {IN_CALLS}"

_VERDICT: Final = "agent, trace_id, span_id, counts, generation"
_SETTLED: Final = f"SELECT {_VERDICT} FROM settled_verdicts"


def _latest(kept: str) -> str:
    return (
        f"(SELECT agent, trace_id, span_id, arg_max(counts, generation) AS counts FROM {kept}"
        " GROUP BY agent, trace_id, span_id)"
    )


def _hard(spans: str, sealed: Sealed, carried: bool) -> str:
    """Return the text that gives the traces that must be judged span by span."""
    mine = IDS.format(spans)
    parts = [
        # somebody but a call tells usage, or has a name of its own, to which usage belongs
        f"SELECT trace_id FROM {spans} WHERE NOT {IN_CALLS} AND ({TELLS} OR agent_name <> agent)",
        # calls that have more below them than leaves
        f"SELECT g.trace_id FROM {spans} AS g JOIN (SELECT m.trace_id, m.span_id FROM {spans} AS m"
        f" JOIN (SELECT trace_id, span_id FROM {spans} WHERE {IN_CALLS}) AS p"
        " ON p.trace_id = m.trace_id AND p.span_id = m.parent_id) AS i"
        " ON i.trace_id = g.trace_id AND i.span_id = g.parent_id",
        # several agents at work
        f"SELECT trace_id FROM {spans} GROUP BY trace_id HAVING min(agent) <> max(agent)",
        # an answer that several spans tell of, here or before
        f"SELECT trace_id FROM {mine} AS i WHERE id IN (SELECT id FROM {mine} AS j GROUP BY id"
        f" HAVING count(*) BETWEEN 2 AND {MAX_SHARED})",
        f"SELECT trace_id FROM {mine} AS i WHERE id IN (SELECT id FROM {IDS.format(sealed.close)} AS k)",
        # a trace that began before
        f"SELECT trace_id FROM {sealed.near} AS o WHERE trace_id IN (SELECT trace_id FROM {spans})",
    ]
    if carried:
        parts.append(
            f"SELECT trace_id FROM {spans} WHERE {FAMILY} IN (SELECT unnest(?::VARCHAR[]))"
        )
    return f"SELECT DISTINCT trace_id FROM ({' UNION ALL '.join(parts)})"


def _around(cursor: duckdb.DuckDBPyConnection, spans: str) -> Iterator[tuple[Key, Verdict]]:
    """Yield the verdicts on calls of all other traces around others of their kind: what those tell, they repeat."""
    calls = (
        f"(SELECT agent, trace_id, span_id, parent_id, role, session, agent_name, {sums.BY_DEFAULT} AS bits"
        f" FROM {spans} WHERE {IN_CALLS} AND trace_id NOT IN (SELECT trace_id FROM settled_hard))"
    )
    rows = cursor.execute(
        "SELECT p.agent, p.trace_id, p.span_id, any_value(p.bits), bit_or(c.bits), any_value(p.session),"
        f" any_value(coalesce(p.agent_name, p.agent)) FROM {calls} AS p JOIN {calls} AS c"
        " ON c.trace_id = p.trace_id AND c.parent_id = p.span_id AND c.role = p.role"
        " GROUP BY p.agent, p.trace_id, p.span_id HAVING any_value(p.bits) & bit_or(c.bits) <> 0"
    ).fetchall()
    for agent, trace, span, own, told, session, owner in rows:
        yield (agent, trace + span), Verdict(own & ~told, Why.AROUND, owner, session, trace)


def _rows(cursor: duckdb.DuckDBPyConnection, sealed: str, keys: Collection[Key]) -> Iterator[Row]:
    """Yield the settled rows of these spans."""
    if not keys:
        return
    cursor.register("settled_keys", _key_table(sorted(keys)))
    rows = cursor.execute(
        f"SELECT {', '.join(f's.{name}' for name in COLUMNS[Signal.SPANS].split(', '))} FROM {sealed} AS s"
        " JOIN settled_keys AS k ON k.trace_id = s.trace_id AND k.span_id = s.span_id AND k.agent = s.agent"
    ).fetchall()
    cursor.unregister("settled_keys")
    for row in rows:
        yield list(row)


def _summaries(cursor: duckdb.DuckDBPyConnection, counted: str) -> Iterator[Any]:
    """Yield the summaries of all traces of these rows, a bounded number of them in memory."""
    found = cursor.execute(f"SELECT count(DISTINCT trace_id) FROM {counted}").fetchone()
    chunks = -(-(found[0] if found else 0) // CHUNK)
    for chunk in range(chunks):
        part = (
            counted
            if chunks == 1
            else f"(SELECT * FROM {counted} WHERE hash(trace_id) % {chunks} = {chunk})"
        )
        yield from sums.summaries(cursor, part).values()


# -- tables ----------------------------------------------------------------------------------------


def _key_columns(keys: Sequence[Key]) -> list[tuple[str, Any, Sequence[Any]]]:
    return [
        ("agent", TEXT, [agent for agent, _ in keys]),
        ("trace_id", BYTES, [ids[:16] for _, ids in keys]),
        ("span_id", BYTES, [ids[16:] for _, ids in keys]),
    ]


def _key_table(keys: Sequence[Key]) -> arrow.Table:
    return table(_key_columns(keys))


def _blob_table(name: str, values: Sequence[bytes]) -> arrow.Table:
    return table([(name, BYTES, values)])


def _verdict_table(verdicts: Mapping[Key, Verdict], generation: int) -> arrow.Table:
    keys = sorted(verdicts)
    said = [verdicts[key] for key in keys]
    return table(
        [
            *_key_columns(keys),
            ("counts", arrow.DataType.int8(), [one.counts for one in said]),
            ("why", TEXT, [one.why.value for one in said]),
            ("owner", TEXT, [one.owner for one in said]),
            ("session", TEXT, [one.session for one in said]),
            ("count_trace", BYTES, [one.trace_id for one in said]),
            ("generation", INT, [generation] * len(keys)),
        ]
    )
