"""How far a flagged result went in a session: where it entered, and which later calls were told of it or repeat it.

A flag says that a result of a tool speaks to the model. This says what became of it: the contents that hold what was
flagged itself, or its words in a row. It is looked for when a session with flags is shown, in what is still kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

from midwatch.core.contamination import (
    MAX_SPREAD,
    MAX_SPREAD_LOOKED,
    Flag,
    Touched,
    flags_of,
    spread,
)
from midwatch.core.contamination import NAME as CONTAMINATION
from midwatch.core.difference import Saying
from midwatch.core.spans.form import EVALUATIONS, ROLE, Role, Row
from midwatch.core.spans.judging import OURSELVES
from midwatch.core.spans.told import results_in

MAX_SHOWN: Final = 100
"""Touched contents that are named; more are counted."""

_CALL: Final = Role.CALL.value


def is_flagged(row: Row) -> bool:
    """Tell whether a span is flagged for a result that entered with it."""
    said: object = json.loads(row[EVALUATIONS]) if row[EVALUATIONS] else []
    return any(
        one.get("name") == CONTAMINATION and one.get("by") == OURSELVES
        for one in cast("list[dict[str, Any]]", said)
    )


def spread_shown(rows: Mapping[str, tuple[int, Row]], sayings: Sequence[Saying], *, all_looked_at: bool) -> dict[str, Any] | None:  # fmt: skip
    """Return where what is flagged entered and where it went; None when nothing is flagged. `rows` are the session's
    spans by the names that `sayings` give them, each with the number of its turn; `all_looked_at` tells whether those are
    all contents of the session."""
    flagged = {name for name, (_, row) in rows.items() if is_flagged(row)}
    if not flagged:
        return None
    sources = list(_sources(one for one in sayings if one.span in flagged))
    flags: dict[str, list[Flag]] = {}
    left = MAX_SPREAD_LOOKED
    for one in sources:
        flags.setdefault(one.span, []).extend(flags_of(one.text[:left]))
        left = max(0, left - len(one.text))
    others = [one for one in sayings if not (one.span in flagged and one.kind in _SOURCES)]
    since = min((one.at_ns for one in sources), default=0)
    size = sum(len(one.text) for one in (*others, *sources) if one.at_ns >= since)
    found = spread(flags, [*others, *sources])
    calls = {one.span for one in found if rows[one.span][1][ROLE] == _CALL}
    turns = {rows[name][0] for name in flagged}
    return {
        "entered": [
            {**_ids(name), "turn": rows[name][0], "kinds": sorted({flag.kind.value for flag in flags.get(name, [])})}
            for name in sorted(flagged, key=lambda name: (rows[name][0], name))[:MAX_SHOWN]
        ],
        "turn": min(turns),
        "calls": len(calls),
        "turns": sorted({rows[one.span][0] for one in found}),
        "touched": [_touched(one) for one in found[:MAX_SHOWN]],
        "more": max(0, len(found) - MAX_SHOWN),
        "all_looked_at": all_looked_at and size <= MAX_SPREAD_LOOKED and len(found) < MAX_SPREAD,
    }  # fmt: skip


_SOURCES: Final = frozenset({"result", "documents", "input"})


def _sources(sayings: Iterable[Saying]) -> Iterable[Saying]:
    """Yield the results that flagged spans brought in; those among a call's messages, each for itself."""
    for one in sayings:
        if one.kind == "input":
            for told in results_in(one.text):
                if told.fresh:
                    yield one._replace(kind="result", text="\n".join(told.texts))
        elif one.kind in _SOURCES:
            yield one


def _touched(one: Touched) -> dict[str, Any]:
    return {
        **_ids(one.span), "turn": int(one.turn), "where": one.kind, "exact": one.exact, "excerpt": one.excerpt,
        "from": _ids(one.source),
    }  # fmt: skip


def _ids(name: str) -> dict[str, str]:
    trace, _, span = name.partition("/")
    return {"trace_id": trace, "span_id": span}
