"""A session as people read it: its turns, and what each of them changed in what the agent keeps in mind.

A report of the state belongs to the turn of its span. States go on from turn to turn in the order of time, so that
what a turn changed is the state behind its last report compared with the one before its first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from midwatch.core.difference import difference, overlay
from midwatch.core.spans.form import SPAN_ID, START_NS, TRACE_ID, Row
from midwatch.core.spans.sessions import Session

MAX_SPANS: Final = 50_000
"""Spans of a session that are looked at, the latest; of a longer one the summary says how long it is."""

_Id = tuple[bytes, bytes]


class _Report(NamedTuple):
    when: tuple[int, bytes]
    turn: int
    """0: outside of turns."""
    parts: Mapping[str, Any]


def session_shown(session: Session, states: Mapping[_Id, Sequence[str]]) -> dict[str, Any]:
    """Return a session as the API shows it. `states` are reports (JSON) by trace id and span id of their spans."""
    changes = _changes(session, states)
    turns: list[dict[str, Any]] = []
    for turn in session.turns:
        item = turn.item()
        if (changed := changes.get(turn.number)) is not None:
            item.update(changed)
        turns.append(item)
    return {**session.item(), "outside": len(session.outside), "items": turns}


def _changes(session: Session, states: Mapping[_Id, Sequence[str]]) -> dict[int, dict[str, Any]]:
    reports = [report for turn in session.turns for row in turn.spans for report in _reports(row, turn.number, states)]  # fmt: skip
    reports += [report for row in session.outside for report in _reports(row, 0, states)]
    reports.sort(key=lambda one: one.when)
    state: dict[str, Any] = {}
    before: dict[int, dict[str, Any]] = {}
    after: dict[int, dict[str, Any]] = {}
    counts: dict[int, int] = {}
    for report in reports:
        before.setdefault(report.turn, state)
        state = overlay(state, report.parts)
        after[report.turn] = state
        counts[report.turn] = counts.get(report.turn, 0) + 1
    found: dict[int, dict[str, Any]] = {}
    for turn, begun in before.items():
        what = difference(begun, after[turn])
        found[turn] = {
            "reports": counts[turn],
            "changes": [change.to_json() for change in what.changes],
            "more_changes": what.more,
        }
    return found


def _reports(row: Row, turn: int, states: Mapping[_Id, Sequence[str]]) -> list[_Report]:
    found: list[_Report] = []
    for text in states.get((row[TRACE_ID], row[SPAN_ID]), ()):
        try:
            read: object = json.loads(text)
        except (ValueError, RecursionError):
            continue  # clipped in the middle: it is shown as the content that it is
        if isinstance(read, dict):
            parts = cast("dict[str, Any]", read)
            found.append(_Report((row[START_NS], row[SPAN_ID]), turn, parts))
    return found
