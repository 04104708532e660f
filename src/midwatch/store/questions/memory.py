"""`Questions` over telemetry in memory: plain loops over rows, right rather than fast.

It answers what `store/spans/memory` keeps and passes the suite of the real ones. Usage and cost are counted by the
default rule of `form.COUNTED`, or by what is handed in as `counts`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final, cast

from midwatch.core.contamination import NAME as CONTAMINATION
from midwatch.core.spans.detail import detail_of
from midwatch.core.spans.facts import ALL
from midwatch.core.spans.form import (
    AGENT,
    CACHED_TOKENS,
    CONTENT_COUNT,
    CONTENTS,
    COST_NUSD,
    COUNTED,
    DURATION_NS,
    ESCALATED,
    EVALUATIONS,
    GOAL_MET,
    INPUT_TOKENS,
    MODEL,
    NAME,
    OUTCOME,
    OUTPUT_TOKENS,
    PARENT_ID,
    RANK,
    RESOURCE_ID,
    ROLE,
    RUN_ID,
    SESSION,
    SPAN_ID,
    SPANS,
    START_NS,
    STATUS,
    STATUS_MESSAGE,
    TAGS,
    TOOL,
    TRACE_ID,
    TURN,
    USER,
    ContentKind,
    Rank,
    Role,
    Row,
    Signal,
    content_key,
    key,
)
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
    Sums,
    Table,
    Tree,
    Window,
)
from midwatch.core.spans.sessions import session_of
from midwatch.core.spans.tree import Forest, columns_of, shown, stem
from midwatch.core.spans.turns import Content, Sought, session_shown
from midwatch.core.spans.values import load_all
from midwatch.store.questions.memory_series import cost_of, observed, series_of
from midwatch.store.questions.memory_sql import run
from midwatch.store.spans.memory import Shelf
from midwatch.wire.limits import NUSD_PER_USD

_ERROR: Final = 2
_AROUND: Final = 60
"""Characters of an excerpt on each side of what was found."""

_TEXT: Final = CONTENTS.at["text"]
_KIND: Final = CONTENTS.at["kind"]
_PLACE: Final = CONTENTS.at["place"]


def counted(row: Row) -> bool:
    """Tell whether a span's usage counts, by the default rule."""
    return row[ROLE] in COUNTED and row[RANK] != Rank.OPEN


class MemoryQuestions:
    """Answers over one shelf. `groups` is agent → group, `windows` model → tokens of its context."""

    def __init__(
        self,
        shelf: Shelf,
        groups: Mapping[str, str] | None = None,
        windows: Mapping[str, int] | None = None,
        counts: Callable[[Row], bool] = counted,
    ) -> None:
        self._shelf = shelf
        self._groups = dict(groups or {})
        self._windows = dict(windows or {})
        self._counts = counts

    async def traces(self, choice: Choice, after: Cursor | None, limit: int) -> Page:
        await asyncio.sleep(0)
        chosen = [rows for rows in self._traces().values() if self._chosen(choice, rows)]
        items = [self._trace(rows) for rows in chosen]
        return _page(items, after, limit, lambda item: (item["at"], item["trace_id"]))

    async def spans(self, trace_id: str, after: Cursor | None, limit: int) -> Page:
        await asyncio.sleep(0)
        rows = self._rows(trace_id)
        items = [SPANS.item(row) for row in rows]
        return _page(
            items, after, limit, lambda i: (i["start_ns"], i["span_id"], i["agent"]), newest=False
        )

    async def tree(
        self,
        trace_id: str,
        below: str | None,
        after: Cursor | None,
        limit: int,
        *,
        fold: bool = True,
    ) -> Tree | None:
        await asyncio.sleep(0)
        found = self._rows(trace_id)
        rows = {row[SPAN_ID]: row for row in reversed(found)}
        whole = Forest(columns_of(stem(row, ALL if self._counts(row) else 0) for row in found))
        page = whole.page(None if below is None else _hex(below), after, limit, fold=fold)
        if page is None:
            return None
        nodes = [line.node(shown(rows[line.span_id])) for line in page[0]]
        return Tree(trace_id, nodes, len(whole), page[1], whole.first_ns, whole.last_ns)

    async def span(self, trace_id: str, span_id: str) -> Item | None:
        await asyncio.sleep(0)
        wanted = _hex(span_id)
        row = next((row for row in self._rows(trace_id) if row[SPAN_ID] == wanted), None)
        if row is None:
            return None
        return detail_of(row, self._shelf.resources.get(row[RESOURCE_ID]))

    async def contents(self, trace_id: str, span_id: str) -> Contents | None:
        await asyncio.sleep(0)
        mine = [row for row in self._rows(trace_id) if row[SPAN_ID] == _hex(span_id)]
        if not mine:
            return None
        keys = set(map(key, mine))
        rows = [r for r in self._shelf.rows[Signal.CONTENTS].values() if content_key(r)[:2] in keys]
        rows.sort(key=lambda row: row[_PLACE])
        came = sum(row[CONTENT_COUNT] or 0 for row in mine)
        return Contents([CONTENTS.item(row) for row in rows], max(0, came - len(rows)))

    async def sessions(self, choice: Choice, after: Cursor | None, limit: int) -> Page:
        await asyncio.sleep(0)
        by: dict[str, list[Row]] = {}
        for rows in self._traces().values():
            for session in {row[SESSION] for row in rows} - {None}:
                by.setdefault(session, []).extend(rows)
        items = [
            self._session(session, rows)
            for session, rows in by.items()
            if self._chosen(choice, rows) and (not choice.sessions or session in choice.sessions)
        ]
        return _page(items, after, limit, lambda item: (item["last_at"], item["session"]))

    async def session(self, session: str, follow: str | None = None) -> Item | None:
        await asyncio.sleep(0)
        rows = [
            row
            for trace in self._traces().values()
            if any(one[SESSION] == session for one in trace)
            for row in trace
        ]
        if not rows:
            return None
        states: dict[tuple[bytes, bytes], list[str]] = {}
        said = list(self._shelf.rows[Signal.CONTENTS].values())
        for one in said:
            if one[_KIND] == ContentKind.STATE:
                ids = one[CONTENTS.at["trace_id"]], one[CONTENTS.at["span_id"]]
                states.setdefault(ids, []).append(one[_TEXT])
        whole = session_of(session, rows, lambda row: ALL if self._counts(row) else 0)
        keys = set(map(key, rows))

        def told(sought: Sought) -> list[Content]:
            mine = [r for r in said if r[_KIND] in sought.kinds and content_key(r)[:2] in keys]
            mine = [r for r in mine if sought.word is None or sought.word in r[_TEXT].lower()]
            mine.sort(key=lambda r: r[CONTENTS.at["start_ns"]], reverse=sought.latest)
            at = [CONTENTS.at[name] for name in ("trace_id", "span_id", "kind", "text")]
            return [Content(*(r[place] for place in at)) for r in mine[: sought.limit]]

        return session_shown(whole, states, told, follow)

    async def series(
        self,
        metric: Metric,
        by: By,
        window: Window,
        statistic: Statistic = "p95",
        agents: Sequence[str] = (),
    ) -> Series:
        await asyncio.sleep(0)
        if by in ("tool", "session", "day"):
            raise BadQuestion(f"a series cannot be split by {by!r}; use cost, or another split")
        split = self._splitter(by)
        traces = list(self._traces().values())
        return series_of(
            metric,
            lambda row: split(row) if not agents or row[AGENT] in agents else None,
            window,
            statistic,
            observed(metric, traces, self._counts, self._windows),
        )

    async def cost(
        self, by: By, window: Window, agents: Sequence[str] = (), limit: int = 1_000
    ) -> Cost:
        await asyncio.sleep(0)
        rows = [
            row
            for row in self._shelf.spans
            if _within(window, row) and self._counts(row) and (not agents or row[AGENT] in agents)
        ]
        return cost_of(rows, self._splitter(by), limit)

    async def find(self, text: str, window: Window, after: Cursor | None, limit: int) -> Page:
        await asyncio.sleep(0)
        if not text:
            raise BadQuestion("there is nothing to look for; give a text")
        spans = {key(row): row for row in self._shelf.spans if _within(window, row)}
        found: list[Item] = []
        for row in spans.values():
            for where, inside in (("name", row[NAME]), ("status_message", row[STATUS_MESSAGE])):
                found += _hit(row, where, inside, text)
        for content in self._shelf.rows[Signal.CONTENTS].values():
            if (row := spans.get(content_key(content)[:2])) is not None:
                where = CONTENTS.row[_KIND].shown(content[_KIND])
                found += _hit(row, where, content[_TEXT], text)
        return _page(
            found, after, limit, lambda i: (i["at"], i["trace_id"], i["span_id"], i["where"])
        )

    async def sql(self, text: str, limits: SqlLimits) -> Table:
        return await run(self._shelf, text, limits)

    # -- rows --------------------------------------------------------------------------------

    def _rows(self, trace_id: str) -> list[Row]:
        wanted = _hex(trace_id)
        rows = [row for row in self._shelf.spans if row[TRACE_ID] == wanted]
        return sorted(rows, key=lambda row: (row[START_NS], row[SPAN_ID], row[AGENT]))

    def _traces(self) -> dict[bytes, list[Row]]:
        found: dict[bytes, list[Row]] = {}
        for row in sorted(self._shelf.spans, key=lambda row: (row[START_NS], row[SPAN_ID])):
            found.setdefault(row[TRACE_ID], []).append(row)
        return found

    def _splitter(self, by: By) -> Callable[[Row], str | None]:
        """Return what tells a row's key. Raises BadQuestion for what nothing is split by."""
        if by.startswith("tag:"):
            name = by[4:]
            return lambda row: _word(load_all(row[TAGS]).get(name))
        columns = {"agent": AGENT, "model": MODEL, "tool": TOOL, "session": SESSION}
        columns["provider"] = SPANS.at["provider"]
        if by in columns:
            place = columns[by]
            return lambda row: row[place]
        if by == "group":
            return lambda row: self._groups.get(row[AGENT])
        if by == "day":
            return lambda row: (
                datetime.fromtimestamp(row[START_NS] // 10**9, UTC).date().isoformat()
            )
        if by == "fleet":
            return lambda _row: "fleet"
        raise BadQuestion(
            f"cannot be split by {by!r}; use fleet, agent, group, model, provider, tool, session, day or tag:NAME"
        )

    def _chosen(self, choice: Choice, rows: Sequence[Row]) -> bool:
        wanted: tuple[tuple[tuple[str, ...], int], ...] = (
            (choice.agents, AGENT), (choice.sessions, SESSION), (choice.users, USER), (choice.runs, RUN_ID),
            (choice.models, MODEL), (choice.tools, TOOL), (choice.outcomes, OUTCOME),
        )  # fmt: skip
        if not choice.window.since_ns <= rows[0][START_NS] < choice.window.until_ns:
            return False
        if any(some and not any(row[at] in some for row in rows) for some, at in wanted):
            return False
        tags = [load_all(row[TAGS]) for row in rows] if choice.tags else []
        if any(not any(t.get(n) == v for t in tags) for n, v in choice.tags.items()):
            return False
        states = (
            (choice.failed, any(row[STATUS] == _ERROR for row in rows)),
            (choice.open, any(row[RANK] == Rank.OPEN for row in rows)),
            (choice.lost, any(row[RANK] == Rank.LOST for row in rows)),
            (choice.flagged, bool(_flags(rows))),
        )
        if any(asked is not None and asked is not so for asked, so in states):
            return False
        long_s = _duration_s(rows)
        if choice.min_duration_s is not None and (long_s or 0.0) < choice.min_duration_s:
            return False
        spent = sum_rows(rows, self._counts).cost_nusd
        if choice.min_cost_nusd is not None and spent < choice.min_cost_nusd:
            return False
        return choice.text is None or self._holds(choice.text, rows)

    def _holds(self, text: str, rows: Sequence[Row]) -> bool:
        sought = text.casefold()
        keys = set(map(key, rows))
        texts = [row[at] for row in rows for at in (NAME, STATUS_MESSAGE)]
        contents = self._shelf.rows[Signal.CONTENTS]
        texts += [row[_TEXT] for where, row in contents.items() if where[:2] in keys]
        return any(sought in one.casefold() for one in texts if one is not None)

    # -- items -------------------------------------------------------------------------------

    def _trace(self, rows: Sequence[Row]) -> Item:
        ids = {row[SPAN_ID] for row in rows}
        roots = [row for row in rows if row[PARENT_ID] not in ids]
        root = roots[0] if roots else rows[0]
        sums = sum_rows(rows, self._counts)
        said = {
            "trace_id": rows[0][TRACE_ID].hex(),
            "at": rows[0][START_NS] / 1e9,
            "duration_s": _duration_s(rows),
            "name": root[NAME],
            "agent": root[AGENT],
            "lost": sum(row[RANK] == Rank.LOST for row in rows),
            **_common(rows, sums),
            "session": _last(rows, SESSION),
        }
        return _said(said)

    def _session(self, session: str, rows: Sequence[Row]) -> Item:
        rows = sorted(rows, key=lambda row: (row[START_NS], row[SPAN_ID]))
        said = {
            "session": session,
            "agent": rows[0][AGENT],
            "at": rows[0][START_NS] / 1e9,
            "last_at": max(row[START_NS] + (row[DURATION_NS] or 0) for row in rows) / 1e9,
            "traces": len({row[TRACE_ID] for row in rows}),
            "turns": len({row[TURN] for row in rows} - {None}),
            **_common(rows, sum_rows(rows, self._counts)),
        }
        return _said(said)


def sum_rows(rows: Sequence[Row], counts: Callable[[Row], bool]) -> Sums:
    """Return what spans come to."""
    calls = [row for row in rows if counts(row)]
    return Sums(
        spans=len(rows),
        errors=sum(row[STATUS] == _ERROR for row in rows),
        open=sum(row[RANK] == Rank.OPEN for row in rows),
        calls=len(calls),
        tools=sum(row[ROLE] == Role.TOOL for row in rows),
        input_tokens=sum(row[INPUT_TOKENS] or 0 for row in calls),
        cached_tokens=sum(row[CACHED_TOKENS] or 0 for row in calls),
        output_tokens=sum(row[OUTPUT_TOKENS] or 0 for row in calls),
        cost_nusd=sum(row[COST_NUSD] or 0 for row in calls),
    )


def _common(rows: Sequence[Row], sums: Sums) -> Item:
    tags: dict[str, Any] = {}
    for row in rows:
        tags |= load_all(row[TAGS])
    return {
        "agents": sorted({row[AGENT] for row in rows}),
        "user": _last(rows, USER),
        **asdict(sums),
        "cost_usd": sums.cost_nusd / NUSD_PER_USD,
        "outcome": _last(rows, OUTCOME),
        "goal_met": _last(rows, GOAL_MET),
        "escalated": _last(rows, ESCALATED),
        "tags": tags or None,
        "flags": _flags(rows) or None,
    }


def _flags(rows: Sequence[Row]) -> list[str]:
    said = [one for row in rows if row[EVALUATIONS] for one in json.loads(row[EVALUATIONS])]
    return sorted({one.get("label", "other") for one in said if one.get("name") == CONTAMINATION})


def _said(item: Item) -> Item:
    return {name: value for name, value in item.items() if value is not None}


def _last(rows: Sequence[Row], place: int) -> Any:
    """Return what the latest span that says it says."""
    return next((row[place] for row in reversed(rows) if row[place] is not None), None)


def _duration_s(rows: Sequence[Row]) -> float | None:
    if any(row[RANK] == Rank.OPEN for row in rows):
        return None
    end = max(row[START_NS] + (row[DURATION_NS] or 0) for row in rows)
    return (end - min(row[START_NS] for row in rows)) / 1e9


def _within(window: Window, row: Row) -> bool:
    return window.since_ns <= row[START_NS] < window.until_ns


def _word(value: object) -> str | None:
    return None if value is None else str(value)


def _hit(row: Row, where: str, inside: str | None, text: str) -> list[Item]:
    place = -1 if inside is None else inside.casefold().find(text.casefold())
    if inside is None or place < 0:
        return []
    excerpt = inside[max(0, place - _AROUND) : place + len(text) + _AROUND]
    item = SPANS.item(row)
    return [{**{n: item[n] for n in ("trace_id", "span_id", "agent", "at", "name")},
             "where": where, "excerpt": excerpt}]  # fmt: skip


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise BadQuestion(f"{text[:40]!r} is no id; expected hex digits") from None


# -- pages -------------------------------------------------------------------------------------


def _page(
    items: list[Item],
    after: Cursor | None,
    limit: int,
    order: Callable[[Item], tuple[Any, ...]],
    *,
    newest: bool = True,
) -> Page:
    """Return the items that follow a cursor, which is the order of the last one before them."""
    items.sort(key=order, reverse=newest)
    if after is not None:
        last = _place(after, order(items[0]) if items else ())
        items = [i for i in items if (order(i) < last if newest else order(i) > last)]
    shown = items[:limit]
    more = json.dumps(order(shown[-1])).encode().hex() if len(items) > limit else None
    return Page(shown, more)


def _place(after: Cursor, like: tuple[Any, ...]) -> tuple[Any, ...]:
    try:
        place = tuple(cast("list[Any]", json.loads(bytes.fromhex(after))))
    except (ValueError, TypeError):
        raise _stray(after) from None
    if not place or (like and list(map(type, place)) != list(map(type, like))):
        raise _stray(after)
    return place


def _stray(after: Cursor) -> BadQuestion:
    return BadQuestion(f"the cursor {after[:40]!r} is of no page of this list; begin without one")
