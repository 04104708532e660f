"""What questions read of traces that sampling let go, and of the weights of those that it kept.

Sums take in the lines that those traces left (`store.spans.gone`), so that they are of everything that came. Lists show
what was kept, each with how many it stands for, and say how many are left out.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from midwatch.core.spans.form import Signal
from midwatch.core.spans.questions import By, Choice, Item, Window
from midwatch.core.spans.sessions import Session
from midwatch.core.spans.summary import Distinct, Summary
from midwatch.store.questions import asking, choosing
from midwatch.store.questions.dialect import DuckDb, Values
from midwatch.store.questions.judged import blobs
from midwatch.store.spans import gone, parts, sums
from midwatch.store.spans.engine import View
from midwatch.store.spans.letting import WEIGHTS
from midwatch.store.spans.shape import COLUMNS

_SAY: Final = DuckDb()
_PART: Final = "* EXCLUDE (costs, carried)"


# -- lists -----------------------------------------------------------------------------------------


def beside(view: View, told: choosing.Sources) -> choosing.Sources:
    """Return the same with the lines of what is gone."""
    left = view.other(gone.GONE)
    if left is None:
        return told
    lines = f"SELECT {_PART} FROM {left} AS g"
    if told.parts is not None:
        lines = f"SELECT * FROM {told.parts} AS p UNION ALL BY NAME {lines}"
    return replace(told, parts=f"({lines})")


def left_out(view: View, choice: Choice) -> int:
    """Return how many traces of a choice are gone. Where a text is asked for, of those that meet the rest of it: what
    stood in them nobody knows any more."""
    left = view.other(gone.GONE)
    if left is None:
        return 0
    window, value = choice.window, Values(_SAY)
    near = f"last_ns >= {window.since_ns} AND first_ns < {window.until_ns}"
    nothing = sums.counted(f"(SELECT {COLUMNS[Signal.SPANS]} FROM {view.layout.hot.name}.spans LIMIT 0)")  # fmt: skip
    sources = choosing.Sources(nothing, f"(SELECT {_PART} FROM {left} AS g WHERE {near})")
    text = choosing.traces(choice, sources, _SAY, value, limit=2**40)
    return view.cursor.execute(f"SELECT count(*) FROM ({text}) AS t", value.given).fetchall()[0][0]


def weighed(view: View, items: Sequence[Item]) -> Sequence[Item]:
    """Return traces of a list, each that stands for more than itself with its weight."""
    kept = view.other(WEIGHTS)
    if kept is None or not items:
        return items
    ids = blobs(bytes.fromhex(item["trace_id"]) for item in items)
    rows = view.cursor.execute(
        f"SELECT trace_id, max(weight) FROM {kept} AS w WHERE trace_id IN ({ids}) GROUP BY trace_id HAVING max(weight) > 1"
    ).fetchall()
    weights = {bytes(trace).hex(): weight for trace, weight in rows}
    return [
        {**item, "weight": weights[item["trace_id"]]} if item["trace_id"] in weights else item
        for item in items
    ]


# -- sums ------------------------------------------------------------------------------------------


def summaries(view: View, traces: Sequence[bytes]) -> dict[bytes, Summary]:
    """Return what those of these traces came to that are gone."""
    left = view.other(gone.GONE)
    found: dict[bytes, Summary] = {}
    if left is not None and traces:
        for trace, part in parts.read(view.cursor, left, f"trace_id IN ({blobs(traces)})"):
            found.setdefault(trace, Summary()).merge(part)
    return found


def of_session(view: View, session: str) -> dict[bytes, Summary]:
    """Return what the traces of a session came to that are gone."""
    left = view.other(gone.GONE)
    if left is None:
        return {}
    rows = view.cursor.execute(
        f"SELECT DISTINCT trace_id FROM {left} AS g WHERE list_contains(sessions, ?)", [session]
    ).fetchall()
    return summaries(view, [row[0] for row in rows])


def turns_of(whole: Session, left: Iterable[Summary]) -> int:
    """Return how many turns a session had, with those that are gone: a trace that names none was one."""
    shown: set[int] = set()
    for turn in whole.turns:
        shown |= _hashes(turn.id)
    named: set[int] = set()
    alone = 0
    for one in left:
        named |= one.turns.least
        alone += not one.turns.least
    return len(whole.turns) + len(named - shown) + alone


def _hashes(turn: str) -> set[int]:
    one = Distinct()
    one.add(turn.encode(errors="replace"))
    return one.least


def cost(view: View, by: By, window: Window, agents: Sequence[str]) -> list[Any]:
    """Return what is gone cost, as the rows of `asking.cost`, in the whole minutes of a window."""
    lines = gone.costs(view, window.since_ns, window.until_ns)
    if lines is None:
        return []
    value = Values(_SAY)
    key = asking.cost_key(by, _SAY, value)
    where = f" WHERE {_SAY.among('agent', value(list(agents)))}" if agents else ""
    added = ", ".join(f"sum({name})" for name in gone.COSTS.split(", "))
    text = f"SELECT {key} AS what, {added} FROM {lines} AS s{where} GROUP BY what"
    return view.cursor.execute(text, value.given).fetchall()
