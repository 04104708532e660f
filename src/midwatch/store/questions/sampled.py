"""What questions read of traces that sampling let go, and of the weights of those that it kept.

Sums take in the lines that those traces left (`store.spans.gone`), so that they are of everything that came. Lists show
what was kept, each with how many it stands for, and say how many are left out.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from midwatch.core.spans.questions import By, Choice, Item, Window
from midwatch.core.spans.sessions import Session
from midwatch.core.spans.summary import Distinct, Summary
from midwatch.store.questions import asking, choosing
from midwatch.store.questions.dialect import DuckDb, Values
from midwatch.store.questions.judged import blobs
from midwatch.store.spans import gone, parts
from midwatch.store.spans.engine import View
from midwatch.store.spans.folded import IN_COSTS, SESSIONS
from midwatch.store.spans.letting import WEIGHTS

_SAY: Final = DuckDb()


# -- lists -----------------------------------------------------------------------------------------


def left_out(view: View, choice: Choice) -> int:
    """Return how many traces of a choice are gone. Where a text is asked for, of those that meet the rest of it: what
    stood in them nobody knows any more."""
    window, value = choice.window, Values(_SAY)
    left = view.other(gone.GONE, window.since_ns, window.until_ns)
    if left is None:
        return 0
    text = f"SELECT count(*) FROM {left} AS p WHERE {choosing.of_one(choice, _SAY, value)}"
    return view.cursor.execute(text, value.given).fetchall()[0][0]


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


@dataclass(slots=True)
class Left:
    """What those traces of a session came to that are gone; `whole` counts no traces."""

    whole: Summary = field(default_factory=Summary)
    traces: int = 0
    untold: int = 0
    """Of those, how many name no turn."""


def of_sessions(view: View, sessions: Sequence[str]) -> dict[str, Left]:
    """Return what is gone of these sessions, of those of which anything is."""
    left = view.gone(SESSIONS)
    found: dict[str, Left] = {}
    if left is None or not sessions:
        return found
    view.cursor.execute(
        "CREATE OR REPLACE TEMP TABLE chosen_now AS SELECT unnest(?::VARCHAR[]) AS session",
        [sessions],
    )
    chosen = "session IN (SELECT session FROM chosen_now)"
    for session, part in parts.read_by(view.cursor, "session", left, chosen):
        found.setdefault(session, Left()).whole.merge(part)
    if found:
        for session, traces, untold in view.cursor.execute(
            f"SELECT session, sum(lines)::BIGINT, sum(untold)::BIGINT FROM {left} AS g WHERE {chosen} GROUP BY session"
        ).fetchall():
            found[session].traces, found[session].untold = traces, untold
    return found


def turns_of(whole: Session, left: Iterable[Summary]) -> int:
    """Return how many turns a session had, with those that are gone: a trace that names none was one."""
    named, untold = Distinct(), 0
    for one in left:
        named.merge(one.turns)
        untold += not one.turns.least
    return turns_with(whole, named, untold)


def turns_with(whole: Session, named: Distinct, untold: int) -> int:
    """Return the same of the turns that traces name which are gone, and of how many of these name none. Exact where
    `Distinct` is."""
    shown, every = Distinct(), Distinct()
    for turn in whole.turns:
        shown.add(turn.id.encode(errors="replace"))
    every.merge(shown)
    every.merge(named)
    return len(whole.turns) + max(0, every.count - shown.count) + untold


def cost(view: View, by: By, window: Window, agents: Sequence[str]) -> list[Any]:
    """Return what is gone cost, as the rows of `asking.cost`, in the whole minutes of a window."""
    value = Values(_SAY)
    text = costing(view, by, window, agents, value)
    return [] if text is None else view.cursor.execute(text, value.given).fetchall()


def costing(view: View, by: By, window: Window, agents: Sequence[str], value: Values) -> str | None:
    """Return the text that gives it, or None when nothing is gone."""
    lines = gone.costs(view, window.since_ns, window.until_ns)
    if lines is None:
        return None
    key = asking.cost_key(by, _SAY, value)
    where = f" WHERE {_SAY.among('agent', value(list(agents)))}" if agents else ""
    added = ", ".join(f"sum({name}) AS {name}" for name in IN_COSTS.split(", "))
    rows = f"{lines} AS s{where}"
    if by.startswith("tag:"):
        # texts of tags are few: each is looked into once
        rows = f"(SELECT tags, {added} FROM {rows} GROUP BY tags) AS t"
    return f"SELECT {key} AS what, {added} FROM {rows} GROUP BY what"
