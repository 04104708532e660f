"""`Questions` over ClickHouse: the texts of `store.questions`, in its words, over rows of which each is seen once."""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

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
from midwatch.core.spans.summary import Summary, session_item, trace_item
from midwatch.core.spans.tree import Forest, Stem, columns_of, shown
from midwatch.core.spans.turns import MAX_SPANS, Content, Sought, session_shown
from midwatch.store.clickhouse import sampled, sql, sums, traces
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.dialect import ClickHouseWords
from midwatch.store.clickhouse.recent import Recent
from midwatch.store.clickhouse.rows import SELECT, back
from midwatch.store.clickhouse.schema import NAMES, TIME
from midwatch.store.clickhouse.spans import ClickHouseSpans
from midwatch.store.clickhouse.summed import series
from midwatch.store.clickhouse.traces import counted
from midwatch.store.questions import asking, choosing
from midwatch.store.questions.costs import cost_of
from midwatch.store.questions.dialect import Values
from midwatch.store.questions.pages import cursor_of, id_of, place_of
from midwatch.store.questions.sampled import turns_of

_SAY: Final = ClickHouseWords()

T = TypeVar("T")

_BRIEF: Final = ", ".join(
    f"NULL AS `{column.name}`"
    if column.name in ("attributes", "events", "links", "envelope")
    else f"s.`{column.name}`"
    for column in SPANS.row
)
"""A span without what is large."""


def _nothing() -> Mapping[str, Any]:
    return {}


class ClickHouseQuestions:
    """Answers of one database. `groups` gives agent → group, `windows` model → tokens of its context."""

    def __init__(
        self,
        spans: ClickHouseSpans,
        groups: Callable[[], Mapping[str, str]] = _nothing,
        windows: Callable[[], Mapping[str, int]] = _nothing,
    ) -> None:
        self._spans = spans
        self._groups = groups
        self._windows = windows
        self._guard: sql.Guard | None = None

    async def _steady(self, work: Callable[[sums.Ask, Recent], T]) -> T:
        return await self._spans.question(
            lambda ask: Recent.steady(ask, lambda recent: work(ask, recent))
        )

    # -- lists -------------------------------------------------------------------------------

    async def traces(self, choice: Choice, after: Cursor | None, limit: int) -> Page:
        place = None if after is None else place_of(after, (int, bytes))

        def work(ask: sums.Ask, recent: Recent) -> Page:
            value = Values(_SAY)
            text = choosing.traces(
                choice, _sources(recent), _SAY, value, _found(choice, value),
                None if place is None else (place[0], place[1]), limit,
            )  # fmt: skip
            rows = ask(text, value.given)
            chosen = [bytes.fromhex(row[0]) for row in rows[:limit]]
            found = _summaries(ask, recent, chosen)
            more = cursor_of((rows[limit - 1][1], chosen[-1])) if len(rows) > limit else None
            items = [trace_item(trace, found[trace]) for trace in chosen]
            return Page(
                sampled.weighed(ask, recent, items), more, sampled.left_out(ask, recent, choice)
            )

        return await self._steady(work)

    async def sessions(self, choice: Choice, after: Cursor | None, limit: int) -> Page:
        place = None if after is None else place_of(after, (int, str))

        def work(ask: sums.Ask, recent: Recent) -> Page:
            value = Values(_SAY)
            sources = sampled.beside(recent, _sources(recent))
            text = choosing.sessions(
                choice, sources, _SAY, value, _found(choice, value),
                None if place is None else (place[0], place[1]), limit,
            )  # fmt: skip
            rows = ask(text, value.given)
            chosen = [row[0] for row in rows[:limit]]
            found, left = _of_sessions(ask, recent, sources, chosen)
            more = cursor_of((rows[limit - 1][1], chosen[-1])) if len(rows) > limit else None
            items = [
                session_item(name, found[name]) | ({"left_out": left[name]} if left[name] else {})
                for name in chosen
            ]
            return Page(items, more)

        return await self._steady(work)

    async def session(self, session: str, follow: str | None = None) -> Item | None:
        def work(ask: sums.Ask, recent: Recent) -> Item | None:
            value = Values(_SAY)
            mine = choosing.of_session(_sources(recent), session, value)
            several = [bytes.fromhex(row[0]) for row in ask(mine, value.given)]
            left = sampled.of_session(ask, recent, session)
            if not several and not left:
                return None
            told = ask(
                f"SELECT {_BRIEF}, s.counts FROM {counted(recent.rows_of(ask, several))} AS s"
                f" ORDER BY start_ns DESC LIMIT {MAX_SPANS}",
                {},
            ) if several else []  # fmt: skip
            rows = [back(Signal.SPANS, row[:-1]) for row in told]
            bits = {id(row): one[-1] for row, one in zip(rows, told, strict=True)}
            states: dict[tuple[bytes, bytes], list[str]] = {}
            reported = ask(
                f"SELECT trace_id, span_id, text FROM {recent.rows_of(ask, several, Signal.CONTENTS)} AS c"
                f" WHERE kind = {ContentKind.STATE.value} ORDER BY place",
                {},
            ) if several else []  # fmt: skip
            for trace, span, text in reported:
                states.setdefault((bytes.fromhex(trace), bytes.fromhex(span)), []).append(text)
            whole = session_of(session, rows, lambda row: bits[id(row)])
            for part in left.values():
                whole.summary.merge(part)

            def contents(sought: Sought) -> list[Content]:
                if not several:
                    return []
                value = Values(_SAY)
                rows = recent.rows_of(ask, several, Signal.CONTENTS)
                found = ask(asking.told(rows, sought, _SAY, value), value.given)
                return [Content(bytes.fromhex(t), bytes.fromhex(s), kind, text) for t, s, kind, text in found]  # fmt: skip

            item = session_shown(whole, states, contents, follow)
            if left:
                item |= {"turns": turns_of(whole, left.values()), "left_out": len(left)}
            return item

        return await self._steady(work)

    async def find(self, text: str, window: Window, after: Cursor | None, limit: int) -> Page:
        if not text:
            raise BadQuestion("there is nothing to look for; give a text")
        place = None if after is None else place_of(after, (int, bytes, bytes, str, int))

        def work(ask: sums.Ask, recent: Recent) -> Page:
            value = Values(_SAY)
            asked = asking.find(
                rows_of(Signal.SPANS, window.since_ns, window.until_ns), rows_of(Signal.CONTENTS),
                text, window, _SAY, value,
                None if place is None else (place[0], place[1], place[2], place[3], place[4]), limit,
            )  # fmt: skip
            rows = ask(asked, value.given)
            more = None
            if len(rows) > limit:
                at, trace, span, spot, number = rows[limit - 1][:5]
                more = cursor_of((at, bytes.fromhex(trace), bytes.fromhex(span), spot, number))
            return Page(
                [_hit(row) for row in rows[:limit]],
                more,
                sampled.left_out(ask, recent, Choice(window)),
            )

        return await self._steady(work)

    # -- one trace ---------------------------------------------------------------------------

    async def spans(self, trace_id: str, after: Cursor | None, limit: int) -> Page:
        trace = id_of(trace_id)
        place = None if after is None else place_of(after, (int, bytes, str))

        def work(ask: sums.Ask) -> Page:
            value = Values(_SAY)
            text = asking.spans(
                rows_of(Signal.SPANS, trace=trace), SELECT[Signal.SPANS], trace, value,
                None if place is None else (place[0], place[1], place[2]), limit,
            )  # fmt: skip
            rows = [back(Signal.SPANS, row) for row in ask(text, value.given)]
            more = None
            if len(rows) > limit:
                at = SPANS.at
                more = cursor_of([rows[limit - 1][at[n]] for n in ("start_ns", "span_id", "agent")])
            return Page([SPANS.item(row) for row in rows[:limit]], more)

        return await self._spans.question(work)

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

        def work(ask: sums.Ask) -> Tree | None:
            value = Values(_SAY)
            mine = counted(rows_of(Signal.SPANS, trace=trace))
            rows = ask(asking.stems(mine, trace, value), value.given)
            whole = Forest(columns_of(_stems(rows)))
            page = whole.page(top, after, limit, fold=fold)
            if page is None:
                return None
            found = _rows_of(ask, trace, [line.span_id for line in page[0]])
            nodes = [line.node(shown(found[line.span_id])) for line in page[0]]
            return Tree(trace_id, nodes, len(whole), page[1], whole.first_ns, whole.last_ns)

        return await self._spans.question(work)

    async def span(self, trace_id: str, span_id: str) -> Item | None:
        trace, span = id_of(trace_id), id_of(span_id)

        def work(ask: sums.Ask) -> Item | None:
            row = _rows_of(ask, trace, [span]).get(span)
            if row is None:
                return None
            where: bytes | None = row[SPANS.at["resource_id"]]
            told = ask(f"SELECT text FROM midwatch_resources WHERE resource_id = '{(where or b'').hex()}' LIMIT 1", {})  # fmt: skip
            return detail_of(row, told[0][0] if told else None)

        return await self._spans.question(work)

    async def contents(self, trace_id: str, span_id: str) -> Contents | None:
        trace, span = id_of(trace_id), id_of(span_id)

        def work(ask: sums.Ask) -> Contents | None:
            value = Values(_SAY)
            where = f"span_id = {value(span)}"
            mine = ask(
                f"SELECT agent, content_count FROM {rows_of(Signal.SPANS, trace=trace)} AS s WHERE {where}",
                value.given,
            )
            if not mine:
                return None
            value = Values(_SAY)
            where = f"span_id = {value(span)} AND {_SAY.among('agent', value([row[0] for row in mine]))}"
            rows = ask(
                f"SELECT {SELECT[Signal.CONTENTS]} FROM {rows_of(Signal.CONTENTS, trace=trace)} AS c WHERE {where}"
                " ORDER BY place, agent, key",
                value.given,
            )
            came = sum(row[1] or 0 for row in mine)
            items = [CONTENTS.item(back(Signal.CONTENTS, row)) for row in rows]
            return Contents(items, max(0, came - len(rows)))

        return await self._spans.question(work)

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
        return await self._spans.question(
            lambda ask: series(ask, metric, by, window, statistic, agents, groups, windows)
        )

    async def cost(
        self, by: By, window: Window, agents: Sequence[str] = (), limit: int = 1_000
    ) -> Cost:
        if by not in asking.COST_COLUMNS and by != "day" and not by.startswith("tag:"):
            raise BadQuestion(
                f"cannot be split by {by[:80]!r}; use fleet, agent, group, model, provider, tool, session, day or tag:NAME"
            )
        groups = self._groups()

        def work(ask: sums.Ask, recent: Recent) -> Cost:
            value = Values(_SAY)
            rows = counted(
                rows_of(Signal.SPANS, window.since_ns, window.until_ns, there=recent.there)
            )
            text = asking.cost(rows, by, window, list(agents), _SAY, value)
            found = [*ask(text, value.given), *sampled.cost(ask, recent, by, window, agents)]
            return cost_of(by, found, groups, limit)

        return await self._steady(work)

    # -- SQL ---------------------------------------------------------------------------------

    async def sql(self, text: str, limits: SqlLimits) -> Table:

        def work(client: ClickHouse) -> Table:
            if self._guard is None:
                self._guard = sql.Guard(client)
            return sql.answer(client, self._guard, text, limits)

        return await self._spans.with_client(work)


def rows_of(
    signal: Signal,
    since_ns: int | None = None,
    until_ns: int | None = None,
    trace: bytes | None = None,
    there: str = "1",
) -> str:
    """Return the rows of a signal as a query in parentheses, each once. `there` is a further condition."""
    where: list[str] = [] if there == "1" else [there]
    if since_ns is not None and since_ns > 0:
        where.append(f"{TIME[signal]} >= {since_ns}")
    if until_ns is not None and until_ns < 2**63 - 1:
        where.append(f"{TIME[signal]} < {until_ns}")
    if trace is not None:
        where.append(f"trace_id = '{trace.hex()}'")
    holding = f" WHERE {' AND '.join(where)}" if where else ""
    return f"(SELECT {SELECT[signal]} FROM {NAMES[signal]} FINAL{holding})"


def _sources(recent: Recent) -> choosing.Sources:
    return choosing.Sources(counted(recent.rows), recent.kept, each="arrayJoin")


def _found(choice: Choice, value: Values) -> str | None:
    """Return the query of traces in which the text of a choice stands, or None when none is asked for."""
    if choice.text is None:
        return None
    since = choice.window.since_ns
    return asking.holding(
        rows_of(Signal.SPANS, since), rows_of(Signal.CONTENTS, since), choice.text, since, _SAY, value
    )  # fmt: skip


def _summaries(ask: sums.Ask, recent: Recent, chosen: Sequence[bytes]) -> dict[bytes, Summary]:
    """Return what these traces come to: as it is kept, and of those that go on from their spans."""
    if not chosen:
        return {}
    listed = ", ".join(f"'{trace.hex()}'" for trace in chosen)
    found = dict(traces.read(ask, f"trace_id IN ({listed}) AND {recent.of_kept}", {}))
    going = [trace for trace in chosen if trace not in found]
    if going and recent.since_ns is not None:
        found |= sums.summaries(ask, counted(recent.rows_of(ask, going)), {})
    return found


def _of_sessions(
    ask: sums.Ask, recent: Recent, sources: choosing.Sources, chosen: Sequence[str]
) -> tuple[dict[str, Summary], Counter[str]]:
    """Return what these sessions come to, and how many traces of each sampling let go."""
    found = {name: Summary() for name in chosen}
    left = Counter[str]()
    if not chosen:
        return found, left
    value = Values(_SAY)
    among = _SAY.among("session", value(list(chosen)))
    pairs = ask(
        f"SELECT DISTINCT trace_id, session FROM ({choosing.named(sources)}) AS n WHERE {among}",
        value.given,
    )
    mine = sorted({bytes.fromhex(trace) for trace, _ in pairs})
    whole, gone = _summaries(ask, recent, mine), sampled.summaries(ask, recent, mine)
    for text, session in pairs:
        trace = bytes.fromhex(text)
        left[session] += trace in gone
        for part in (whole.get(trace), gone.get(trace)):
            if part is not None:
                found[session].merge(part)
    return found, left


def _rows_of(ask: sums.Ask, trace: bytes, spans: Collection[bytes]) -> dict[bytes, Row]:
    """Return the rows of some spans of a trace; of two agents' rows the first, as in `Forest`."""
    if not spans:
        return {}
    listed = ", ".join(f"'{span.hex()}'" for span in spans)
    rows = ask(
        f"SELECT {SELECT[Signal.SPANS]} FROM {rows_of(Signal.SPANS, trace=trace)} AS s"
        f" WHERE span_id IN ({listed}) ORDER BY start_ns DESC, span_id DESC, agent DESC",
        {},
    )
    at = SPANS.at["span_id"]
    return {row[at]: row for row in (back(Signal.SPANS, one) for one in rows)}


def _stems(rows: Iterable[Sequence[Any]]) -> Iterable[Stem]:
    for span, parent, *rest in rows:
        yield Stem(bytes.fromhex(span), None if parent is None else bytes.fromhex(parent), *rest)


def _hit(row: Sequence[Any]) -> Item:
    start_ns, trace, span, spot, _, agent, name, excerpt = row
    return {
        "trace_id": trace, "span_id": span, "agent": agent, "at": start_ns / 1e9, "name": name,
        "where": spot, "excerpt": excerpt,
    }  # fmt: skip
