"""Lists of traces and of sessions, out of the embedded store: read no more of it than a page needs.

1. pick      what every chosen trace must say (an agent, an error, a user) is looked for first, alone; the rest is
             asked of those only
2. narrow    where nothing is picked, a page of the newest is looked for in the last day first, then in eight,
             then in all; what is found so is held against all that is told of it
3. sum up    only what the page shows
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from midwatch.core.spans.facts import Fact
from midwatch.core.spans.form import SPANS, Signal
from midwatch.core.spans.questions import Choice, Item, Page, Window
from midwatch.core.spans.summary import Summary, session_item, trace_item
from midwatch.store.questions import asking, choosing, sampled
from midwatch.store.questions.dialect import DuckDb, Values
from midwatch.store.questions.judged import blobs, counted, judged
from midwatch.store.questions.pages import cursor_of
from midwatch.store.spans import parts, sums
from midwatch.store.spans.engine import View
from midwatch.store.spans.folded import GONE, SESSIONS
from midwatch.store.spans.known import TRACE_NS, VERDICTS

_SAY: Final = DuckDb()
_FIRST: Final = -(2**63)
_DAY_NS: Final = 86_400 * 10**9

_WIDTHS_NS: Final = (_DAY_NS, 8 * _DAY_NS)
"""How far back from the newest a page is looked for before all is."""


# -- traces ----------------------------------------------------------------------------------------


def traces(view: View, choice: Choice, after: tuple[int, bytes] | None, limit: int) -> Page:
    """Return a page of traces, newest start first."""
    every = sources(view, choice)
    within = _picked(view, choice, every)
    rows: list[Any] = []
    if within is not None:
        rows = _traces(view, choice, within, after, limit)
    else:
        for narrow in _narrowed(view, choice.window, None if after is None else after[0]):
            asked = replace(choice, window=narrow)
            rows = _traces(view, asked, sources(view, asked), after, limit)
            if narrow == choice.window or (len(rows) > limit and _as_told(view, every, rows)):
                break
    chosen = rows[:limit]
    since, until = min((r[1] for r in chosen), default=0), max((r[2] for r in chosen), default=0)
    found = summaries(view, [row[0] for row in chosen], since, until)
    more = cursor_of((chosen[-1][1], chosen[-1][0])) if len(rows) > limit else None
    items = [trace_item(row[0], found[row[0]]) for row in chosen]
    return Page(sampled.weighed(view, items), more, sampled.left_out(view, choice))


def _traces(view: View, choice: Choice, told: choosing.Sources, after: tuple[int, bytes] | None, limit: int) -> list[Any]:  # fmt: skip
    value = Values(_SAY)
    return _all(view, choosing.traces(choice, told, _SAY, value, None, after, limit), value)


def _narrowed(view: View, window: Window, before_ns: int | None) -> Iterator[Window]:
    """Yield windows in which the newest of this one are looked for, each wider than the last, then this one."""
    newest = min(_newest(view), window.until_ns, 2**63 - 1 if before_ns is None else before_ns)
    for width in _WIDTHS_NS:
        since = newest - width
        if window.since_ns < since < window.until_ns:
            yield Window(since, window.until_ns)
    yield window


def _newest(view: View) -> int:
    """Return about when the newest span began, of those that are not open."""
    times = [each.bounds[Signal.SPANS][1] for each in view.layout.generations]
    times += [s.to_ns for s in view.layout.segments if s.kind in (Signal.SPANS.value, GONE)]
    return max(times)


def _as_told(view: View, every: choosing.Sources, rows: Sequence[Any]) -> bool:
    """Tell whether these traces began when these rows say: a trace may go on for days after it began."""
    ids = blobs(row[0] for row in rows)
    found = view.cursor.execute(
        f"SELECT trace_id, min(first_ns) FROM ({choosing.times(every)}) AS t WHERE trace_id IN ({ids}) GROUP BY trace_id"
    ).fetchall()
    return dict(found) == {row[0]: row[1] for row in rows}


# -- sessions --------------------------------------------------------------------------------------


def sessions(view: View, choice: Choice, after: tuple[int, str] | None, limit: int) -> Page:
    """Return a page of sessions, newest end first."""
    every, left = sources(view, choice), view.gone(SESSIONS)
    value = Values(_SAY)
    said = _picking(view, choice, every, value)
    if said is not None:
        of_left = "false"
        if (
            left is not None and choice.text is None
        ):  # of no text is known that it stood in what is gone
            of_left = choosing.picked(choice, _SAY, value) or "true"
        mine = _of_candidates(view, every, left, f"trace_id IN ({said})", of_left, value)
        rows = _sessions(view, choice, *mine, after, limit)
    else:
        rows = []
        mine = every, left
        newest = _newest(view) if after is None else after[0]
        for since in (*(newest - width for width in _WIDTHS_NS), _FIRST):
            # the sessions that ended then are just those of which anything ended then, also what does not name them
            ended = f"last_ns >= {since}"
            going = (
                f"trace_id IN (SELECT trace_id FROM ({choosing.times(every)}) AS t WHERE {ended})"
            )
            mine = _of_candidates(view, every, left, going, ended, Values(_SAY))
            rows = _sessions(view, choice, *mine, after, limit)
            if len(rows) > limit:
                break
    chosen = [row[0] for row in rows[:limit]]
    more = cursor_of((rows[limit - 1][1], chosen[-1])) if len(rows) > limit else None
    return Page(_session_items(view, mine[0], chosen), more)


_PAIRS: Final = "SELECT trace_id, session FROM sessions_now"


def _of_candidates(view: View, every: choosing.Sources, left: str | None, which: str, of_left: str, value: Values) -> tuple[choosing.Sources, str | None]:  # fmt: skip
    """Note in `sessions_now` the traces of every session one of whose traces is told of by such a row, or what is left
    of which says so; return what is told of those traces, and what is left of those sessions. `which` is a condition on
    `trace_id` and `last_ns`."""
    told = choosing.named(every)
    candidates = f"SELECT session FROM ({told}) AS n WHERE {which}"
    if left is not None:
        candidates += f" UNION ALL SELECT session FROM {left} AS g WHERE {of_left}"
    view.cursor.execute(
        f"CREATE OR REPLACE TEMP TABLE candidates_now AS SELECT DISTINCT session FROM ({candidates}) AS c",
        value.given,
    )
    among = "session IN (SELECT session FROM candidates_now)"
    view.cursor.execute(
        f"CREATE OR REPLACE TEMP TABLE sessions_now AS SELECT DISTINCT trace_id, session FROM ({told}) AS n WHERE {among}"
    )
    mine = _among(every, "SELECT trace_id FROM sessions_now")
    return mine, None if left is None else f"(SELECT * FROM {left} AS g WHERE {among})"


def _sessions(view: View, choice: Choice, told: choosing.Sources, left: str | None, after: tuple[int, str] | None, limit: int) -> list[Any]:  # fmt: skip
    value = Values(_SAY)
    found = _found(view, choice, value)
    return _all(view, choosing.sessions(choice, told, _SAY, value, found, after, limit, _PAIRS, left), value)  # fmt: skip


def _session_items(view: View, told: choosing.Sources, chosen: Sequence[str]) -> list[Item]:
    """Return these sessions, with what sampling let go of them."""
    found, left = _of_sessions(view, told, chosen), sampled.of_sessions(view, chosen)
    items: list[Item] = []
    for session in chosen:
        whole, gone = found[session], left.get(session)
        if gone is None:
            items.append(session_item(session, whole))
            continue
        traces = whole.traces.count + gone.traces
        whole.merge(gone.whole)
        items.append(session_item(session, whole) | {"traces": traces, "left_out": gone.traces})
    return items


def _of_sessions(view: View, told: choosing.Sources, chosen: Sequence[str]) -> dict[str, Summary]:
    """Return what these sessions come to, of traces that are there."""
    found = {name: Summary() for name in chosen}
    if not chosen:
        return found
    value = Values(_SAY)
    text = (
        "SELECT n.session, n.trace_id, min(t.first_ns), max(t.last_ns)"
        f" FROM ({choosing.times(told)}) AS t JOIN sessions_now AS n ON n.trace_id = t.trace_id"
        f" WHERE {_SAY.among('n.session', value(list(chosen)))} GROUP BY ALL"
    )
    rows = _all(view, text, value)
    if not rows:
        return found
    since, until = min(row[2] for row in rows), max(row[3] for row in rows)
    whole = summaries(view, sorted({row[1] for row in rows}), since, until)
    for session, trace, *_ in rows:
        found[session].merge(whole[trace])
    return found


# -- what is told of traces ------------------------------------------------------------------------


def sources(view: View, choice: Choice) -> choosing.Sources:
    """Return what tells of the traces of a choice."""
    if choice.min_cost_nusd is not None and view.other(VERDICTS) is not None:
        # what parts cost is by default, and some of it is not in force
        return choosing.Sources(counted(view, view.rows(Signal.SPANS)))
    rows, told = view.by_trace(max(_FIRST, choice.window.since_ns - TRACE_NS))
    return choosing.Sources(counted(view, rows), told)


def _among(told: choosing.Sources, traces: str) -> choosing.Sources:
    """Return the same of those traces alone that a query gives."""

    def those(rows: str) -> str:
        return f"(SELECT * FROM {rows} AS a WHERE trace_id IN ({traces}))"

    return choosing.Sources(
        those(told.spans), None if told.parts is None else those(told.parts), told.each
    )


def _picked(view: View, choice: Choice, every: choosing.Sources) -> choosing.Sources | None:
    """Return what is told of the traces outside of which none can be chosen; None when nothing says which."""
    value = Values(_SAY)
    said = _picking(view, choice, every, value)
    if said is None:
        return None
    view.cursor.execute(
        f"CREATE OR REPLACE TEMP TABLE picked_now AS SELECT DISTINCT trace_id FROM ({said}) AS p",
        value.given,
    )
    return _among(every, "SELECT trace_id FROM picked_now")


def _picking(view: View, choice: Choice, every: choosing.Sources, value: Values) -> str | None:
    return _found(view, choice, value) or choosing.picking(choice, every, _SAY, value)


def _found(view: View, choice: Choice, value: Values) -> str | None:
    """Return the query of traces in which the text of a choice stands, or None when none is asked for."""
    if choice.text is None:
        return None
    since = choice.window.since_ns
    return asking.holding(
        view.rows(Signal.SPANS, since), view.rows(Signal.CONTENTS, since), choice.text, since, _SAY, value
    )  # fmt: skip


def summaries(view: View, traces: Sequence[bytes], since_ns: int, until_ns: int) -> dict[bytes, Summary]:  # fmt: skip
    """Return what these traces come to; all of them began and ended within these times.

    Those that are sealed, and whose spans count by default, are read from their parts.
    """
    if not traces:
        return {}
    rows, told = view.by_trace(since_ns)
    chosen = blobs(traces)
    again = set(traces)
    found: dict[bytes, Summary] = {}
    if told is not None:
        moving = f"SELECT DISTINCT trace_id FROM {rows} AS r WHERE trace_id IN ({chosen})"
        if (gathered := view.unsealed_by_trace(since_ns)[1]) is not None:
            moving += f" UNION SELECT trace_id FROM {gathered} AS g WHERE trace_id IN ({chosen})"
        if (kept := view.other(VERDICTS)) is not None:
            moving += f" UNION SELECT trace_id FROM {kept} AS k WHERE trace_id IN ({chosen})"
        again = {row[0] for row in view.cursor.execute(moving).fetchall()}
        still = [trace for trace in traces if trace not in again]
        if still:
            for trace, part in parts.read(view.cursor, told, f"trace_id IN ({blobs(still)})"):
                found.setdefault(trace, Summary()).merge(part)
    if again:
        every = view.of_traces(again, since_ns, until_ns + 1)
        ids = blobs(sorted(again))
        # they are looked at eight times; all that is not sealed would be, too
        view.cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE summed_now AS SELECT {_SUMMED} FROM {every} AS s WHERE trace_id IN ({ids})"
            f" AND start_ns >= {since_ns} AND start_ns <= {until_ns}"
        )
        # once with what they count for, which is looked up in verdicts
        rows = judged(view, "summed_now", sorted(again))
        view.cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE counted_now AS SELECT * FROM {rows} AS c"
        )
        found |= sums.summaries(view.cursor, "counted_now")
    return found


# -- columns ---------------------------------------------------------------------------------------

LARGE: Final = ("attributes", "events", "links")
"""Columns of spans that no list and no tree shows."""


def without(*names: str) -> str:
    """Return the columns of spans with nothing in these."""
    return ", ".join(
        f'NULL AS "{c.name}"' if c.name in names else f's."{c.name}"' for c in SPANS.row
    )


BRIEF: Final = without(*LARGE, "envelope")

_SAID: Final = {
    *Fact._fields, "name", "user", "outcome", "goal_met", "escalated", "turn", "tags", "evaluations", "model", "provider",
}  # fmt: skip
_SUMMED: Final = ", ".join(f's."{c.name}"' for c in SPANS.row if c.name in _SAID)
"""The columns that are judged and summed up."""


def _all(view: View, text: str, value: Values) -> list[Any]:
    given: Mapping[str, Any] = value.given
    return view.cursor.execute(text, given).fetchall()
