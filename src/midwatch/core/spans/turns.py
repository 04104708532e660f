"""A session as people read it: its turns, and what each of them changed in what the agent keeps in mind.

A report of the state belongs to the turn of its span. States go on from turn to turn in the order of time, so that
what a turn changed is the state behind its last report compared with the one before its first. A changed value that
is no fact, because it is a label of a page or an empty place of a template, says so and names the result where it
stood; and any value can be followed to the span in which it entered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from midwatch.core.contamination import Belief, Heard
from midwatch.core.difference import Report, Saying, Sight, difference, follow, overlay
from midwatch.core.spans.form import (  # fmt: skip
    MODEL,
    NAME,
    SPAN_ID,
    START_NS,
    TOOL,
    TRACE_ID,
    ContentKind,
    Row,
)
from midwatch.core.spans.questions import BadQuestion
from midwatch.core.spans.sessions import Session
from midwatch.core.spans.spreading import is_flagged, spread_shown

MAX_SPANS: Final = 50_000
"""Spans of a session that are looked at, the latest; of a longer one the summary says how long it is."""

MAX_RESULTS: Final = 300
"""Results of tools, the latest, whose labels are compared with the state."""

MAX_TOLD: Final = 500
"""Contents, the earliest, in which a value is followed."""

MAX_CHARACTERS: Final = 50_000
"""Of each of these, the first ones."""

MAX_FOLLOWED: Final = 200
"""Characters of a value that is followed."""

_Id = tuple[bytes, bytes]


class Sought(NamedTuple):
    """Contents of a session that are asked for."""

    kinds: tuple[int, ...]
    word: str | None
    """In small letters: only those that hold it, whatever their case."""
    limit: int
    latest: bool
    """Which ones when there are more: the latest, or the earliest."""


class Content(NamedTuple):
    """One of them: the first MAX_CHARACTERS of its text."""

    trace_id: bytes
    span_id: bytes
    kind: int
    text: str


Told = Callable[[Sought], Iterable[Content]]
"""Gives contents of the session's traces."""


class _Report(NamedTuple):
    when: tuple[int, bytes]
    turn: int
    """0: outside of turns."""
    parts: Mapping[str, Any]
    row: Row


_RESULTS: Final = (ContentKind.RESULT.value, ContentKind.DOCUMENTS.value)
_SAID: Final = tuple(kind.value for kind in ContentKind if kind not in (ContentKind.STATE, ContentKind.TOOLS))  # fmt: skip


def session_shown(
    session: Session,
    states: Mapping[_Id, Sequence[str]],
    told: Told = lambda _: (),
    value: str | None = None,
) -> dict[str, Any]:
    """Return a session as the API shows it. `states` are reports (JSON) by trace id and span id of their spans.

    `spread` says how far what is flagged went, if anything is. `value` is followed: `trail` says where it entered. Raises BadQuestion for one that cannot be.
    """
    rows = {(row[TRACE_ID], row[SPAN_ID]): (turn.number, row) for turn in session.turns for row in turn.spans}  # fmt: skip
    rows |= {(row[TRACE_ID], row[SPAN_ID]): (0, row) for row in session.outside}
    reports = [report for number, row in rows.values() for report in _reports(row, number, states)]
    reports.sort(key=lambda one: one.when)
    changes = _changes(reports, _sayings(rows, told(Sought(_RESULTS, None, MAX_RESULTS, latest=True))) if reports else [])  # fmt: skip
    turns: list[dict[str, Any]] = []
    for turn in session.turns:
        item = turn.item()
        if (changed := changes.get(turn.number)) is not None:
            item.update(changed)
        turns.append(item)
    found = {**session.item(), "outside": len(session.outside), "items": turns}
    if any(is_flagged(row) for _, row in rows.values()):
        contents = list(told(Sought(_SAID, None, MAX_TOLD, latest=False)))
        sayings = _sayings(rows, contents)
        named = {_name(row): (number, row) for number, row in rows.values()}
        found["spread"] = spread_shown(named, sayings, all_looked_at=len(contents) < MAX_TOLD)
    if value is not None:
        found["trail"] = _trail(value, reports, rows, told)
    return found


# -- what changed ------------------------------------------------------------------------------


def _changes(reports: Sequence[_Report], results: Sequence[Saying]) -> dict[int, dict[str, Any]]:
    state: dict[str, Any] = {}
    before: dict[int, dict[str, Any]] = {}
    after: dict[int, dict[str, Any]] = {}
    until: dict[int, int] = {}
    counts: dict[int, int] = {}
    for report in reports:
        before.setdefault(report.turn, state)
        state = overlay(state, report.parts)
        after[report.turn] = state
        until[report.turn] = report.when[0]
        counts[report.turn] = counts.get(report.turn, 0) + 1
    heard, waiting = Heard(), sorted(results, key=lambda one: one.at_ns)
    found: dict[int, dict[str, Any]] = {}
    for turn in sorted(before, key=lambda one: until[one]):
        while waiting and waiting[0].at_ns <= until[turn]:
            heard.hear(waiting.pop(0))
        what = difference(before[turn], after[turn])
        doubts = {one.path: one for one in heard.believed(after[turn])}
        changes = [change.to_json() for change in what.changes]
        for change in changes:
            if change["how"] != "removed" and (doubt := doubts.get(change["path"])) is not None:
                change["flag"] = _flag(doubt)
        found[turn] = {"reports": counts[turn], "changes": changes, "more_changes": what.more}
    return found


def _flag(doubt: Belief) -> dict[str, Any]:
    return {"kind": doubt.flag.kind.value, **({} if doubt.span is None else _ids(doubt.span))}


def _reports(row: Row, turn: int, states: Mapping[_Id, Sequence[str]]) -> list[_Report]:
    found: list[_Report] = []
    for text in states.get((row[TRACE_ID], row[SPAN_ID]), ()):
        try:
            read: object = json.loads(text)
        except (ValueError, RecursionError):
            continue  # clipped in the middle: it is shown as the content that it is
        if isinstance(read, dict):
            parts = cast("dict[str, Any]", read)
            found.append(_Report((row[START_NS], row[SPAN_ID]), turn, parts, row))
    return found


# -- where a value came from -------------------------------------------------------------------


def _trail(value: str, reports: Sequence[_Report], rows: Mapping[_Id, tuple[int, Row]], told: Told) -> dict[str, Any]:  # fmt: skip
    words = value.lower().split()
    if not words or len(value) > MAX_FOLLOWED:
        raise BadQuestion(f"expected a value of 1 to {MAX_FOLLOWED} characters to follow, got {value[:40]!r}")  # fmt: skip
    sayings = _sayings(rows, told(Sought(_SAID, max(words, key=len), MAX_TOLD, latest=False)))
    trail = follow(
        value,
        [Report(str(one.turn), one.when[0], _name(one.row), one.parts) for one in reports],
        sayings,
    )
    entered, stored = trail.entered, trail.stored
    return {
        "value": value,
        "sights": [_sight(one) for one in trail.sights],
        "more": trail.more,
        "entered": None if entered is None else _sight(entered),
        "stored": None if stored is None else _sight(stored),
        "all_looked_at": len(sayings) < MAX_TOLD,
    }


def _sight(one: Sight) -> dict[str, Any]:
    return {
        "at": one.at_ns / 1e9, "turn": int(one.turn), **_ids(one.span), "where": one.where, "name": one.name,
        "how": one.how, "excerpt": one.excerpt,
    }  # fmt: skip


def _sayings(rows: Mapping[_Id, tuple[int, Row]], contents: Iterable[Content]) -> list[Saying]:
    """Return contents as what was said. A result is there when its span ends, all else when it begins; as nothing is
    stored before it was said, the start will do for both."""
    found: list[Saying] = []
    for one in contents:
        number, row = rows.get((one.trace_id, one.span_id), (0, None))
        if row is not None:
            name = row[TOOL] or row[MODEL] or row[NAME]
            kind = ContentKind(one.kind).name.lower()
            found.append(Saying(str(number), row[START_NS], _name(row), kind, name, one.text))
    return found


def _name(row: Row) -> str:
    return f"{row[TRACE_ID].hex()}/{row[SPAN_ID].hex()}"


def _ids(name: str) -> dict[str, str]:
    trace, _, span = name.partition("/")
    return {"trace_id": trace, "span_id": span}
