"""What a selector selects, in SQL: the spans first, then what hangs on them. Dropping and exporting go by the same.

A selection makes tables of its own in DuckDB's memory (they spill when they are large): what is asked for, and the
ids of the spans that are chosen. They stay until `forget`, so that what was found before can be counted after.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import itertools
from typing import Final

import duckdb

from midwatch.core.spans.form import Signal
from midwatch.core.spans.store import Selector
from midwatch.store.spans import gone
from midwatch.store.spans.engine import View
from midwatch.store.spans.segments import Segment
from midwatch.store.spans.shape import TIME

_HAS: Final = {
    Signal.SPANS: {"agent", "run_id", "trace_id"},
    Signal.CONTENTS: {"agent", "trace_id"},
    Signal.POINTS: {"agent", "run_id"},
    Signal.LOGS: {"agent", "run_id", "trace_id"},
}
"""By which columns rows of a table can be selected themselves."""

_numbers: Final = itertools.count(1)


class Selection:
    """One use of a selector."""

    def __init__(self, what: Selector) -> None:
        self.what = what
        self._mark = f"selection_{next(_numbers)}"

    @property
    def _tables(self) -> dict[str, str]:
        return {
            name: f"memory.main.{self._mark}_{name}"
            for name in ("agents", "runs", "traces", "spans")
        }

    def prepare(self, view: View) -> None:
        """Make the tables, of what the view sees. It ends the view's transaction: use another view then."""
        what, tables, cursor = self.what, self._tables, view.cursor
        asked = {"agents": what.agents, "runs": what.runs, "traces": what.traces}
        rows, values = self._chosen(view)
        for name, several in asked.items():
            cursor.execute(
                f"CREATE TABLE {tables[name]} AS SELECT unnest(?) AS value", [sorted(several)]
            )
        cursor.execute(
            f"CREATE TABLE {tables['spans']} AS SELECT agent, trace_id, span_id FROM {rows}", values
        )
        cursor.commit()

    def forget(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Remove the tables."""
        for table in self._tables.values():
            cursor.execute(f"DROP TABLE IF EXISTS {table}")

    def condition(self, signal: Signal) -> str:
        """Return the condition for rows `r` of a table that are selected. After `prepare`."""
        of_span = (
            f"EXISTS (SELECT 1 FROM {self._tables['spans']} AS c WHERE c.trace_id = r.trace_id"
            " AND c.span_id = r.span_id AND c.agent = r.agent)"
        )
        if signal is Signal.SPANS:
            return of_span
        own = "false" if self.what.by_trace else self._meets(signal)
        return own if signal is Signal.POINTS else f"({own} OR {of_span})"

    def of_trace(self) -> str:
        """Return the condition for what hangs on a whole trace `r` of which spans are selected. After `prepare`."""
        what = self.what
        if not what.by_trace or what.agents or what.runs or what.before_ns is not None:
            return "false"
        return f"r.trace_id IN (SELECT trace_id FROM {self._tables['spans']})"

    def may_be_in(self, segment: Segment) -> bool:
        """Tell whether a segment can have rows that are selected."""
        what = self.what
        if segment.kind not in what.signals:
            return False
        # a log record goes with its span, which may have begun long before it
        if (
            what.before_ns is not None
            and segment.from_ns >= what.before_ns
            and segment.kind != Signal.LOGS.value
        ):
            return False
        return not what.agents or not what.agents.isdisjoint(segment.agents)

    def _chosen(self, view: View) -> tuple[str, list[object]]:
        spans = view.rows(Signal.SPANS)
        meets = self._meets(Signal.SPANS)
        if not self.what.by_trace:
            return f"{spans} AS r WHERE {meets}", []
        saying, values = _saying(view, self.what)
        return f"{spans} AS r WHERE {meets} AND r.trace_id IN ({saying})", values

    def _meets(self, signal: Signal) -> str:
        """Return the condition for rows `r` that say themselves what is asked for."""
        what, tables, parts = self.what, self._tables, list[str]()
        for wanted, column, table in (
            (what.agents, "agent", tables["agents"]),
            (what.runs, "run_id", tables["runs"]),
            (what.traces, "trace_id", tables["traces"]),
        ):
            if wanted and column not in _HAS[signal]:
                return "false"
            if wanted:
                parts.append(f"coalesce(r.{column} IN (SELECT value FROM {table}), false)")
        if what.before_ns is not None:
            parts.append(f"r.{TIME[signal]} < {what.before_ns}")
        return " AND ".join(parts) or "true"


def saying(view: View, what: Selector) -> frozenset[bytes]:
    """Return the traces in which a span says the session, user and tags that are asked for. Raises duckdb.Error."""
    query, values = _saying(view, what)
    return frozenset(trace for (trace,) in view.cursor.execute(query, values).fetchall())


def _saying(view: View, what: Selector) -> tuple[str, list[object]]:
    """Return the query of these traces, and its values. What was said in a trace that sampling let go holds for what
    came of it later, too."""
    said, values = _said(what)
    query = f"SELECT trace_id FROM {view.rows(Signal.SPANS)} AS s WHERE {said}"
    if (left := view.other(gone.GONE)) is not None:
        sayers = Selector(sessions=what.sessions, users=what.users, tags=what.tags)
        query += f" UNION SELECT trace_id FROM {left} AS r WHERE {gone.selected(sayers)}"
    return query, values


def _said(what: Selector) -> tuple[str, list[object]]:
    """Return the condition for spans that say the session, user and tags that are asked for, and its values."""
    parts: list[str] = []
    values: list[object] = []
    if what.sessions:
        parts.append("list_contains(?, session)")
        values.append(sorted(what.sessions))
    if what.users:
        parts.append('list_contains(?, "user")')
        values.append(sorted(what.users))
    for name, value in what.tags.items():
        parts.append("list_contains(json_keys(tags), ?) AND json_extract_string(tags, ?) = ?")
        values += [name, _pointer(name), value]
    return " AND ".join(parts), values


def _pointer(name: str) -> str:
    """Return a key of an object as a JSON pointer, whatever characters it has."""
    return "/" + name.replace("~", "~0").replace("/", "~1")
