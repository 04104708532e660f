"""What questions read of traces that sampling let go, and of the weights of those that it kept: as in the embedded store
(`store.questions.sampled`). Sums take in the lines that these traces left (`gone`), so that they are of everything that
came; lists show what was kept, each with how many it stands for, and say how many are left out."""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Final

from midwatch.core.spans.form import Signal
from midwatch.core.spans.questions import By, Choice, Item, Window
from midwatch.core.spans.summary import Summary
from midwatch.store.clickhouse import gone, traces
from midwatch.store.clickhouse.dialect import ClickHouseWords
from midwatch.store.clickhouse.recent import Recent
from midwatch.store.clickhouse.schema import NAMES
from midwatch.store.clickhouse.sweeping import DECIDED
from midwatch.store.clickhouse.traces import Ask
from midwatch.store.questions import asking, choosing
from midwatch.store.questions.dialect import Values

_SAY: Final = ClickHouseWords()
_NOTHING: Final = f"(SELECT *, toUInt8(0) AS counts FROM {NAMES[Signal.SPANS]} WHERE 0)"


# -- lists -------------------------------------------------------------------------------------------


def beside(recent: Recent, told: choosing.Sources) -> choosing.Sources:
    """Return the same with the lines of what is gone."""
    if not recent.left:
        return told
    names = traces.names()
    return replace(
        told,
        parts=f"(SELECT {names} FROM {recent.kept} AS k UNION ALL {gone.lines(recent.slice_)})",
    )


def left_out(ask: Ask, recent: Recent, choice: Choice) -> int:
    """Return how many traces of a choice are gone. Where a text is asked for, of those that meet the rest of it: what
    stood in them nobody knows any more."""
    if not recent.left:
        return 0
    window, value = choice.window, Values(_SAY)
    near = f"last_ns >= {window.since_ns} AND first_ns < {window.until_ns}"
    sources = choosing.Sources(_NOTHING, f"({gone.lines(recent.slice_)} AND {near})")
    text = choosing.traces(choice, sources, _SAY, value, limit=2**40)
    return ask(f"SELECT count() FROM ({text}) AS t", value.given)[0][0]


def weighed(ask: Ask, recent: Recent, items: Sequence[Item]) -> Sequence[Item]:
    """Return traces of a list, each that stands for more than itself with its weight."""
    if not items or not recent.decides:
        return items
    rows = ask(
        f"SELECT trace_id, max(weight) AS most FROM {DECIDED} WHERE trace_id IN ({_listed(i['trace_id'] for i in items)})"
        f" AND weight > 1 AND {gone.in_force(recent.slice_)} GROUP BY trace_id",
        {},
    )
    weights: dict[str, int] = dict(map(tuple[str, int], rows))
    return [
        {**item, "weight": weights[item["trace_id"]]} if item["trace_id"] in weights else item
        for item in items
    ]


def _listed(ids: Any) -> str:
    return ", ".join(f"'{one}'" for one in ids)


# -- sums --------------------------------------------------------------------------------------------


def summaries(ask: Ask, recent: Recent, chosen: Collection[bytes]) -> dict[bytes, Summary]:
    """Return what those of these traces came to that are gone."""
    if not recent.left or not chosen:
        return {}
    ids = _listed(trace.hex() for trace in chosen)
    return _summed(ask, recent, f"trace_id IN ({ids})", Values(_SAY))


def of_session(ask: Ask, recent: Recent, session: str) -> dict[bytes, Summary]:
    """Return what the traces of a session came to that are gone: whole ones, of which a line says it."""
    if not recent.left:
        return {}
    value = Values(_SAY)
    says = f"SELECT trace_id FROM {gone.GONE} WHERE has(sessions, {value(session)}) AND {gone.in_force(recent.slice_)}"
    return _summed(ask, recent, f"trace_id IN ({says})", value)


def _summed(ask: Ask, recent: Recent, where: str, value: Values) -> dict[bytes, Summary]:
    found: dict[bytes, Summary] = {}
    for trace, part in traces.read(
        ask, f"{where} AND {gone.in_force(recent.slice_)}", value.given, gone.GONE
    ):
        # a late span was a trace of its own, and may have gone as well
        found.setdefault(trace, Summary()).merge(part)
    return found


def cost(ask: Ask, recent: Recent, by: By, window: Window, agents: Sequence[str]) -> list[Any]:
    """Return what is gone cost, as the rows of `asking.cost`, in the whole minutes of a window."""
    if not recent.left:
        return []
    value = Values(_SAY)
    key = asking.cost_key(by, _SAY, value)
    where = f" WHERE {_SAY.among('agent', value(list(agents)))}" if agents else ""
    added = ", ".join(f"sum({name})" for name in gone.COSTS)
    lines = gone.costs(recent.slice_, window.since_ns, window.until_ns)
    return ask(
        f"SELECT {key} AS what, {added} FROM ({lines}) AS s{where} GROUP BY what", value.given
    )
