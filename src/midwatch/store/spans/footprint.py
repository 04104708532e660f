"""How much the embedded store holds: of segments by the manifest, of generations by counting."""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from midwatch.core.spans.form import Signal
from midwatch.core.spans.store import Footprint, Held, Piece
from midwatch.store.spans.engine import Engine, View
from midwatch.store.spans.shape import TIME

_Part = tuple[str, Signal, int, float, int]
"""Agent, signal, rows, bytes, the oldest time."""

_ROW_BYTES: Final = {Signal.SPANS: 200, Signal.CONTENTS: 1_000, Signal.POINTS: 100, Signal.LOGS: 200}  # fmt: skip
"""About what a row takes that is not sealed: its share of a log cannot be told."""


def footprint_of(view: View, engine: Engine) -> Footprint:
    """Return what a view holds."""
    waiting = _waiting(view)
    parts = [*_sealed(view, engine), *waiting]
    if (hidden := view.hidden()) is not None:
        parts += [
            (a, Signal.SPANS, -rows, 0.0, at)
            for a, (rows, at) in _count(view, Signal.SPANS, hidden)
        ]
    agents: dict[str, dict[Signal, list[_Part]]] = {}
    for part in parts:
        agents.setdefault(part[0], {}).setdefault(part[1], []).append(part)
    opened = [table for _, table in _count(view, Signal.SPANS, "opened_now")]
    return Footprint(
        size_bytes=_files(engine.folder),
        signals={s: _held(p for p in parts if p[1] is s) for s in Signal},
        agents={a: {s: _held(p) for s, p in by.items()} for a, by in agents.items()},
        hot=sum(rows for _, signal, rows, _, _ in waiting if signal is Signal.SPANS),
        open=sum(rows for rows, _ in opened),
        pieces=[
            Piece(each.from_ns, each.to_ns, engine.shelf.size_bytes(each), {a: n for a, (n, _) in each.agents.items()})
            for each in view.layout.segments
            if each.kind in set(Signal)
        ],
    )  # fmt: skip


def newest_of(view: View, since_ns: int) -> dict[str, int]:
    """Return the latest start of each agent's spans, of those that began from then on.

    Of segments only those are read in which an agent may have begun something later than what is known of it.
    """
    found: dict[str, int] = {}

    def look(rows: str) -> None:
        for agent, at in view.cursor.execute(
            f"SELECT agent, max(start_ns) FROM {rows} AS r WHERE start_ns >= {since_ns} GROUP BY agent"
        ).fetchall():
            found[agent] = max(found.get(agent, at), at)

    look(view.unsealed(Signal.SPANS, since_ns))
    spans = [each for each in view.layout.segments if each.kind == Signal.SPANS.value]
    for each in sorted(spans, key=lambda one: one.to_ns, reverse=True):
        if each.to_ns < since_ns:
            break
        if any(found.get(agent, -1) < each.to_ns for agent in each.agents):
            look(view.one(each))
    return found


def _sealed(view: View, engine: Engine) -> Iterable[_Part]:
    for segment in view.layout.segments:
        if segment.kind not in set(Signal):
            continue
        each = engine.shelf.size_bytes(segment) / segment.rows
        for agent, (rows, oldest) in segment.agents.items():
            yield agent, Signal(segment.kind), rows, rows * each, oldest


def _waiting(view: View) -> list[_Part]:
    found: list[_Part] = []
    for signal in Signal:
        tables = [f"{each.name}.{signal.value}" for each in view.layout.generations]
        if signal is Signal.SPANS:
            tables.append("opened_now")
        for table in tables:
            for agent, (rows, oldest) in _count(view, signal, table):
                found.append((agent, signal, rows, rows * _ROW_BYTES[signal], oldest))
    return found


def _count(view: View, signal: Signal, table: str) -> list[tuple[str, tuple[int, int]]]:
    rows = view.cursor.execute(
        f"SELECT agent, count(*), min({TIME[signal]}) FROM {table} GROUP BY agent"
    ).fetchall()
    return [(agent, (count, oldest)) for agent, count, oldest in rows]


def _held(parts: Iterable[_Part]) -> Held:
    known = list(parts)
    oldest = min((part[4] for part in known), default=None)
    return Held(sum(part[2] for part in known), round(sum(part[3] for part in known)), oldest)


def _files(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        try:
            size += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue  # sealed or spilt a moment ago
    return size
