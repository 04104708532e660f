"""What spans count for while they are asked about: by the verdicts that settling kept, else as they are judged now.

Settling judges a generation once, with all that it knows of other traces. Until then a trace is judged by itself, so
that an agent's own sum is not added to its calls in the ten minutes before; a very long one goes by default.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import arro3.core as arrow

from midwatch.core.spans.counting import by_default, judge
from midwatch.core.spans.facts import Fact, Key
from midwatch.store.spans import sums
from midwatch.store.spans.arrowed import BYTES, TEXT, table
from midwatch.store.spans.engine import View
from midwatch.store.spans.known import VERDICTS

MAX_JUDGED: Final = 5_000
"""Spans of one trace that are judged one by one."""

_FACTS: Final = ", ".join(f'"{name}"' for name in Fact._fields)


def counted(view: View, rows: str, traces: Sequence[bytes] = ()) -> str:
    """Return these rows with what each counts for, by the verdicts that were kept. `traces`: only these are asked
    for."""
    kept = view.other(VERDICTS)
    if kept is None:
        return sums.counted(rows)
    return sums.counted(
        rows, latest(kept, f" WHERE trace_id IN ({blobs(traces)})" if traces else "")
    )


def judged(view: View, rows: str, traces: Sequence[bytes]) -> str:
    """Return the rows of these traces with what each counts for: kept verdicts first, then what is judged now."""
    chosen = blobs(traces)
    mine = f"(SELECT * FROM {rows} AS r WHERE trace_id IN ({chosen}))"
    view.cursor.register("judged_now", _table(_verdicts(view, mine)))
    told = "SELECT agent, trace_id, span_id, counts, -1::BIGINT AS generation FROM judged_now"
    kept = view.other(VERDICTS)
    if kept is not None:
        told += f" UNION ALL SELECT agent, trace_id, span_id, counts, generation FROM {kept} AS k WHERE trace_id IN ({chosen})"
    return sums.counted(mine, latest(f"({told})"))


def latest(kept: str, where: str = "") -> str:
    """Return the verdicts in force: of several on one span the newest."""
    return (
        f"(SELECT agent, trace_id, span_id, arg_max(counts, generation) AS counts FROM {kept} AS v{where}"
        " GROUP BY agent, trace_id, span_id)"
    )


def blobs(ids: Iterable[bytes]) -> str:
    """Return ids as they stand in a list of SQL."""
    return ", ".join(f"unhex('{one.hex()}')" for one in ids)


def _verdicts(view: View, mine: str) -> dict[Key, int]:
    """Return what spans count for where it is not the default, each trace judged by itself."""
    few = f"SELECT trace_id FROM {mine} AS m GROUP BY trace_id HAVING count(*) <= {MAX_JUDGED}"
    rows = view.cursor.execute(
        f"SELECT {_FACTS} FROM {mine} AS f WHERE trace_id IN ({few})"
    ).fetchall()
    by: dict[bytes, list[Fact]] = {}
    for row in rows:
        by.setdefault(row[1], []).append(Fact._make(row))
    found: dict[Key, int] = {}
    for facts in by.values():
        held = judge(facts)
        for key, verdict in held.verdicts.items():
            if verdict.counts != by_default(held.facts[key]).counts:
                found[key] = verdict.counts
    return found


def _table(verdicts: dict[Key, int]) -> arrow.Table:
    return table(
        [
            ("agent", TEXT, [agent for agent, _ in verdicts]),
            ("trace_id", BYTES, [ids[:16] for _, ids in verdicts]),
            ("span_id", BYTES, [ids[16:] for _, ids in verdicts]),
            ("counts", arrow.DataType.int8(), list(verdicts.values())),
        ]
    )
