"""`Questions` over the embedded store: what is hot and what is sealed, in one statement each.

Everything is asked of one view, so each span is seen once, whatever is written or sealed meanwhile. What settling has
summed up is read from its sums; the rest (at most what waits to be sealed) is summed while it is asked.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from midwatch.core.spans import series as lines
from midwatch.core.spans.detail import detail_of
from midwatch.core.spans.form import CONTENTS, SPANS, ContentKind, Row, Signal
from midwatch.core.spans.questions import (
    BadQuestion,
    By,
    Choice,
    Contents,
    Cost,
    Cursor,
    Item,
    Metric,
    Page,
    Series,
    SqlLimits,
    Statistic,
    Table,
    Tree,
    Window,
)
from midwatch.core.spans.sessions import session_of
from midwatch.core.spans.tree import Forest, shown
from midwatch.core.spans.turns import MAX_SPANS, Content, Sought, session_shown
from midwatch.store.questions import asking, choosing, expired, growing, lists, sampled, summed
from midwatch.store.questions.costs import cost_of
from midwatch.store.questions.dialect import DuckDb, Values
from midwatch.store.questions.judged import MAX_JUDGED, blobs, counted, judged
from midwatch.store.questions.kept import Kept
from midwatch.store.questions.pages import cursor_of, id_of, place_of
from midwatch.store.questions.sql import Recorded, Sql
from midwatch.store.questions.standing import Standing
from midwatch.store.spans.embedded import EmbeddedSpans
from midwatch.store.spans.engine import View
from midwatch.store.spans.shape import COLUMNS

_SLACK_NS: Final = 600 * 10**9
"""How long before and after a span its contents may have been told: by log records of their own times."""

_SAY: Final = DuckDb()


def _nothing() -> Mapping[str, Any]:
    return {}


class EmbeddedQuestions:
    """Answers of one embedded store. `groups` gives agent → group, `windows` model → tokens of its context,
    `also` are tables that SQL may read beside those of telemetry, `scratch` is a folder for what it reads of them."""

    def __init__(
        self,
        spans: EmbeddedSpans,
        groups: Callable[[], Mapping[str, str]] = _nothing,
        windows: Callable[[], Mapping[str, int]] = _nothing,
        also: Mapping[str, Recorded] | None = None,
        scratch: Path | None = None,
    ) -> None:
        self._spans = spans
        self._groups = groups
        self._windows = windows
        self._sql = Sql(spans, also or {}, scratch)
        self._standing = Standing()
        self._kept = Kept()

    # -- lists -------------------------------------------------------------------------------

    async def traces(self, choice: Choice, after: Cursor | None, limit: int) -> Page:
        place = None if after is None else place_of(after, (int, bytes))
        before = None if place is None else (place[0], place[1])
        return await self._spans.read(lambda view: lists.traces(view, choice, before, limit))

    async def sessions(self, choice: Choice, after: Cursor | None, limit: int) -> Page:
        place = None if after is None else place_of(after, (int, str))
        before = None if place is None else (place[0], place[1])
        return await self._spans.read(lambda view: lists.sessions(view, choice, before, limit))

    async def session(self, session: str, follow: str | None = None) -> Item | None:
        def work(view: View) -> Item | None:
            value = Values(_SAY)
            mine = choosing.of_session(lists.sources(view, Choice()), session, value)
            traces = [row[0] for row in _all(view, mine, value)]
            left = sampled.of_sessions(view, [session]).get(session)
            if not traces and left is None:
                return None
            found = _rows(view, traces) if traces else []
            window = _spoken(row for row, _ in found) if found else (0, 0)
            states = _states(view, traces, window) if found else {}
            bits = {id(row): counts for row, counts in found}
            whole = session_of(session, [row for row, _ in found], lambda row: bits[id(row)])
            if left is not None:
                whole.summary.merge(left.whole)
            item = session_shown(
                whole, states, lambda one: _told(view, traces, window, one) if found else [], follow
            )
            if left is not None:
                item |= {
                    "traces": item["traces"] + left.traces,
                    "turns": sampled.turns_with(whole, left.whole.turns, left.untold),
                    "left_out": left.traces,
                }
            return item

        return await self._spans.read(work)

    async def find(self, text: str, window: Window, after: Cursor | None, limit: int) -> Page:
        if not text:
            raise BadQuestion("there is nothing to look for; give a text")
        place = None if after is None else place_of(after, (int, bytes, bytes, str, int))

        def work(view: View) -> Page:
            value = Values(_SAY)
            asked = asking.find(
                view.rows(Signal.SPANS, window.since_ns, window.until_ns),
                view.rows(Signal.CONTENTS, window.since_ns, window.until_ns),
                text, window, _SAY, value,
                None if place is None else (place[0], place[1], place[2], place[3], place[4]), limit,
            )  # fmt: skip
            rows = _all(view, asked, value)
            more = cursor_of(rows[limit - 1][:5]) if len(rows) > limit else None
            return Page([_hit(row) for row in rows[:limit]], more, sampled.left_out(view, Choice(window)))  # fmt: skip

        return await self._spans.read(work)

    # -- one trace ---------------------------------------------------------------------------

    async def spans(self, trace_id: str, after: Cursor | None, limit: int) -> Page:
        trace = id_of(trace_id)
        place = None if after is None else place_of(after, (int, bytes, str))

        def work(view: View) -> Page:
            value = Values(_SAY)
            text = asking.spans(
                view.of_traces([trace]), COLUMNS[Signal.SPANS], trace, value,
                None if place is None else (place[0], place[1], place[2]), limit,
            )  # fmt: skip
            rows = _all(view, text, value)
            more = None
            if len(rows) > limit:
                last = SPANS.at
                more = cursor_of([rows[limit - 1][last[n]] for n in ("start_ns", "span_id", "agent")])  # fmt: skip
            return Page([SPANS.item(row) for row in rows[:limit]], more)

        return await self._spans.read(work)

    async def tree(
        self,
        trace_id: str,
        below: str | None,
        after: Cursor | None,
        limit: int,
        *,
        fold: bool = True,
    ) -> Tree | None:
        trace = id_of(trace_id)
        top = None if below is None else id_of(below)

        def shown_of(view: View, rows: str, whole: Forest) -> Tree | None:
            page = whole.page(top, after, limit, fold=fold)
            if page is None:
                return None
            found = _rows_of(view, rows, trace, [line.span_id for line in page[0]])
            nodes = [
                line.node(shown(found[line.span_id])) for line in page[0] if line.span_id in found
            ]
            if len(nodes) < len(page[0]):
                return None  # deleted since the tree was made
            return Tree(trace_id, nodes, len(whole), page[1], whole.first_ns, whole.last_ns)

        def anew(view: View) -> tuple[Tree | None, Forest]:
            mine = _at_hand(view, trace)
            whole = Forest(growing.columns(view, judged(view, mine, [trace]), trace))
            return shown_of(view, mine, whole), whole

        whole = None if after is None else self._standing.find(trace)
        tree = None
        if whole is not None:
            held = whole
            tree = await self._spans.read(
                lambda view: shown_of(view, view.of_traces([trace]), held)
            )
        if tree is None:
            tree, whole = await self._spans.read(anew)
        if tree is None or tree.next is None or whole is None:
            self._standing.drop(trace)
        else:
            self._standing.keep(trace, whole)
        return tree

    async def span(self, trace_id: str, span_id: str) -> Item | None:
        trace, span = id_of(trace_id), id_of(span_id)

        def work(view: View) -> Item | None:
            row = _rows_of(view, view.of_traces([trace]), trace, [span]).get(span)
            if row is None:
                return None
            value = Values(_SAY)
            where = value(row[SPANS.at["resource_id"]])
            told = _all(view, f"SELECT text FROM {view.resources()} AS r WHERE resource_id = {where} LIMIT 1", value)  # fmt: skip
            return detail_of(row, told[0][0] if told else None)

        return await self._spans.read(work)

    async def contents(self, trace_id: str, span_id: str) -> Contents | None:
        trace, span = id_of(trace_id), id_of(span_id)

        def work(view: View) -> Contents | None:
            value = Values(_SAY)
            where = f"trace_id = {value(trace)} AND span_id = {value(span)}"
            mine = _all(view, f"SELECT agent, start_ns, duration_ns, content_count FROM {view.of_traces([trace])} AS s WHERE {where}", value)  # fmt: skip
            if not mine:
                return None
            # contents lie by time, not by trace: so only a few of their row groups are read
            since = min(row[1] for row in mine) - _SLACK_NS
            until = max(row[1] + (row[2] or 0) for row in mine) + _SLACK_NS
            value = Values(_SAY)
            where = f"trace_id = {value(trace)} AND span_id = {value(span)}"
            agents = _SAY.among("agent", value([row[0] for row in mine]))
            rows = _all(
                view,
                f"SELECT {COLUMNS[Signal.CONTENTS]} FROM {view.rows(Signal.CONTENTS, since, until)} AS c WHERE {where}"
                f" AND {agents} AND start_ns BETWEEN {value(since)} AND {value(until)} ORDER BY place, agent, key",
                value,
            )
            came = sum(row[3] or 0 for row in mine)
            return Contents([CONTENTS.item(row) for row in rows], max(0, came - len(rows)))

        return await self._spans.read(work)

    # -- sums --------------------------------------------------------------------------------

    async def series(
        self,
        metric: Metric,
        by: By,
        window: Window,
        statistic: Statistic = "p95",
        agents: Sequence[str] = (),
    ) -> Series:
        lines.series_of(metric, by, window, statistic, (), agents)  # is it a question at all?
        groups, windows = self._groups(), self._windows()
        return await self._spans.read(
            lambda view: summed.series(
                view, metric, by, window, statistic, agents, groups, windows, self._kept
            )
        )

    async def cost(
        self, by: By, window: Window, agents: Sequence[str] = (), limit: int = 1_000
    ) -> Cost:
        if by not in asking.COST_COLUMNS and by != "day" and not by.startswith("tag:"):
            raise BadQuestion(
                f"cannot be split by {by[:80]!r}; use fleet, agent, group, model, provider, tool, session, day or tag:NAME"
            )
        groups = self._groups()

        def work(view: View) -> Cost:
            value = Values(_SAY)
            rows = view.rows(Signal.SPANS, window.since_ns, window.until_ns)
            text = asking.cost(counted(view, rows), by, window, list(agents), _SAY, value)
            if by == "session":  # of these there may be a hundred thousand
                left = sampled.costing(view, by, window, agents, value)
                return _dearest(view, [text] if left is None else [text, left], value, limit)
            found = [*_all(view, text, value), *sampled.cost(view, by, window, agents)]
            found += expired.cost(view, by, window, agents)
            return cost_of(by, found, groups, limit)

        return await self._spans.read(work)

    # -- SQL ---------------------------------------------------------------------------------

    async def sql(self, text: str, limits: SqlLimits) -> Table:
        return await self._sql.ask(text, limits)


def _all(view: View, text: str, value: Values) -> list[Any]:
    return view.cursor.execute(text, value.given).fetchall()


def _dearest(view: View, texts: Sequence[str], value: Values, limit: int) -> Cost:
    """Return the cost that several texts give, by sessions, of which only so many leave the database."""
    names = ("cost", "calls", "given", "cached", "made", "unpriced")
    added = ", ".join(f"sum({name}) AS {name}" for name in names)
    rows = _all(
        view,
        "SELECT *, sum(cost) OVER (), sum(unpriced) OVER (), count(*) OVER ()"
        f" FROM (SELECT what, {added} FROM ({' UNION ALL '.join(texts)}) AS t(what, {', '.join(names)}) GROUP BY what) AS s"
        f" ORDER BY cost DESC, coalesce(what, 'None') LIMIT {max(1, limit)}",
        value,
    )
    if not rows:
        return Cost([], 0, 0)
    total, unpriced, many = map(int, rows[0][-3:])
    found = cost_of("session", [row[:-3] for row in rows], {}, limit)
    return Cost(found.rows, total, unpriced, max(0, many - limit))


def _at_hand(view: View, trace: bytes) -> str:
    """Return the spans of a trace, without what is large, as a table of their own when they are few: they are looked
    at five times. A long trace is never held; its rows are a query in parentheses."""
    rows = view.of_traces([trace])
    mine = f"FROM {rows} AS s WHERE trace_id = unhex('{trace.hex()}')"
    few = f"SELECT count(*) <= {MAX_JUDGED} FROM (SELECT 1 {mine} LIMIT {MAX_JUDGED + 1})"
    if not view.cursor.execute(few).fetchall()[0][0]:
        return rows
    view.cursor.execute(f"CREATE OR REPLACE TEMP TABLE trace_now AS SELECT {lists.without(*lists.LARGE)} {mine}")  # fmt: skip
    return "trace_now"


def _rows(view: View, traces: Sequence[bytes]) -> list[tuple[Row, int]]:
    """Return the latest rows of these traces, without what is large, and what each counts for."""
    text = f"SELECT {lists.BRIEF}, s.counts FROM {judged(view, view.of_traces(traces), traces)} AS s ORDER BY start_ns DESC LIMIT {MAX_SPANS}"
    return [(list(row[:-1]), row[-1]) for row in view.cursor.execute(text).fetchall()]


def _spoken(rows: Iterable[Row]) -> tuple[int, int]:
    """Return from when until when contents of these spans began."""
    at = SPANS.at["start_ns"]
    times = [row[at] for row in rows]
    return min(times) - _SLACK_NS, max(times) + _SLACK_NS


def _told(view: View, traces: Sequence[bytes], window: tuple[int, int], sought: Sought) -> list[Content]:  # fmt: skip
    value = Values(_SAY)
    where = f" AND start_ns BETWEEN {window[0]} AND {window[1]} AND trace_id IN ({blobs(traces)})"
    text = asking.told(view.rows(Signal.CONTENTS, *window), sought, _SAY, value, where)
    return [Content._make(row) for row in _all(view, text, value)]


def _states(view: View, traces: Sequence[bytes], window: tuple[int, int]) -> dict[tuple[bytes, bytes], list[str]]:  # fmt: skip
    """Return what was reported of the state in these traces, by trace id and span id."""
    since, until = window
    found: dict[tuple[bytes, bytes], list[str]] = {}
    for trace, span, text in view.cursor.execute(
        f"SELECT trace_id, span_id, text FROM {view.rows(Signal.CONTENTS, since, until)} AS c"
        f" WHERE kind = {ContentKind.STATE.value} AND start_ns BETWEEN {since} AND {until}"
        f" AND trace_id IN ({blobs(traces)}) ORDER BY place"
    ).fetchall():
        found.setdefault((trace, span), []).append(text)
    return found


def _rows_of(view: View, rows: str, trace: bytes, spans: Collection[bytes]) -> dict[bytes, Row]:
    """Return the rows of some spans of a trace, out of a query in parentheses; of two agents' rows the first, as in
    `Forest`."""
    if not spans:
        return {}
    value = Values(_SAY)
    text = (
        f"SELECT {COLUMNS[Signal.SPANS]} FROM {rows} AS s WHERE trace_id = {value(trace)}"
        f" AND span_id IN ({blobs(spans)}) ORDER BY start_ns DESC, span_id DESC, agent DESC"
    )
    at = SPANS.at["span_id"]
    return {row[at]: list(row) for row in _all(view, text, value)}


def _hit(row: Sequence[Any]) -> Item:
    start_ns, trace, span, spot, _, agent, name, excerpt = row
    return {
        "trace_id": trace.hex(), "span_id": span.hex(), "agent": agent, "at": start_ns / 1e9, "name": name,
        "where": spot, "excerpt": excerpt,
    }  # fmt: skip
