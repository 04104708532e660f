"""A session as turns, and turns as spans.

A turn is known by the turn that a span names (our SDK, Langfuse), else by the nearest span above it that is one.
Emitters that know sessions and no turns make a trace of each: then the trace is the turn. What stands between turns,
such as the span of the session itself, is in none. Spans may come in any order, and a turn may run over several
traces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from midwatch.core.spans.form import PARENT_ID, ROLE, SPAN_ID, START_NS, TRACE_ID, TURN, Role, Row
from midwatch.core.spans.summary import Counts, Summary, session_item, summary_of

MAX_TURNS: Final = 10_000
"""Turns of one session that are told apart; what comes later is in the last one."""

_TURN: Final = Role.TURN.value


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: what it is called, which it is of the session (from 1), its spans and what they come to."""

    id: str
    number: int
    spans: Sequence[Row]
    """By their start."""
    summary: Summary

    def item(self) -> dict[str, Any]:
        """Return the turn as the API shows it."""
        whole = self.summary
        item = {
            "turn": self.id,
            "number": self.number,
            "at": None if whole.first_ns is None else whole.first_ns / 1e9,
            "duration_s": None if whole.duration_ns is None else whole.duration_ns / 1e9,
            "traces": sorted({row[TRACE_ID].hex() for row in self.spans}),
            "lost": whole.lost,
            **whole.item(),
        }
        return {name: value for name, value in item.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Session:
    """A whole session. `outside` are the spans of no turn."""

    name: str
    turns: Sequence[Turn]
    outside: Sequence[Row]
    summary: Summary

    def item(self) -> dict[str, Any]:
        """Return the session as the API shows it, with its turns."""
        item = session_item(self.name, self.summary)
        return {**item, "turns": len(self.turns), "lost": self.summary.lost}


def session_of(name: str, rows: Iterable[Row], counts: Counts) -> Session:
    """Return the session that these spans are; `rows` are those of all its traces."""
    spans = sorted(rows, key=lambda row: (row[START_NS], row[SPAN_ID]))
    named = _turns(spans)
    # a trace with a turn in it is none itself: what is outside of its turns is outside of all
    split = {row[TRACE_ID] for row, turn in zip(spans, named, strict=True) if turn is not None}
    by: dict[str, list[Row]] = {}
    outside: list[Row] = []
    for row, turn in zip(spans, named, strict=True):
        if turn is None and row[TRACE_ID] in split:
            outside.append(row)
            continue
        wanted = turn if turn is not None else row[TRACE_ID].hex()
        if wanted not in by and len(by) >= MAX_TURNS:
            wanted = next(reversed(by))
        by.setdefault(wanted, []).append(row)
    turns = [
        Turn(turn, number, mine, summary_of(mine, counts))
        for number, (turn, mine) in enumerate(by.items(), 1)
    ]
    return Session(name, turns, outside, summary_of(spans, counts))


def _turns(spans: Sequence[Row]) -> list[str | None]:
    """Return the turn of each span, in their order; None for what is in none. Cycles of parents end."""
    rows = {(row[TRACE_ID], row[SPAN_ID]): row for row in spans}
    known: dict[tuple[bytes, bytes], str | None] = {}
    for row in spans:
        path: list[tuple[bytes, bytes]] = []
        at: Row | None = row
        turn: str | None = None
        while at is not None:
            mine = (at[TRACE_ID], at[SPAN_ID])
            if mine in known:
                turn = known[mine]
                break
            # for the time being: a parent that is met again is a cycle, and in no turn
            known[mine] = None
            path.append(mine)
            turn = _own(at)
            if turn is not None:
                break
            at = rows.get((at[TRACE_ID], at[PARENT_ID])) if at[PARENT_ID] is not None else None
        known.update(dict.fromkeys(path, turn))
    return [known[row[TRACE_ID], row[SPAN_ID]] for row in spans]


def _own(row: Row) -> str | None:
    if row[TURN] is not None:
        return row[TURN]
    return row[SPAN_ID].hex() if row[ROLE] == _TURN else None
