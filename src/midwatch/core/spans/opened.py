"""Spans that have begun and not ended: how much of a span is known, and what happens when its run is over.

    announced ──▶ open ──▶ ended
                   │         ▲
          its run is over    │ its end comes after all, out of a spool
                   ▼         │
                  lost ──────┘

Of two rows of a span the one that knows more stays, of two alike the first. So order does not matter: an
announcement that arrives behind its end changes nothing, and one that arrives behind the end of its run is lost at
once. A span that was never announced is simply not there until it ends; its children stand at the top until then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from midwatch.core.spans.form import DURATION_NS, RANK, RUN_ID, START_NS, Rank, Row, key
from midwatch.core.spans.limits import MAX_DURATION_NS, MAX_OPEN

SILENT_S: Final = 86_400.0
"""How long a span may be open that belongs to no run of ours, so that nobody says when it is lost."""

MAX_OVER: Final = 10_000
"""Runs that are remembered as over, for announcements that come behind; the oldest are forgotten."""

_OPEN: Final = Rank.OPEN.value

Id = tuple[str, bytes]
"""What makes a span one: `form.key`."""


def outranks(row: Row, known: Row) -> bool:
    """Tell whether a row takes the place of what is known of its span."""
    return row[RANK] > known[RANK]


def as_lost(row: Row, at_ns: int) -> Row:
    """Return an open span as it is when its run is over at a time; the row itself stays as it is."""
    lost = row[:]
    lost[RANK] = Rank.LOST.value
    lost[DURATION_NS] = min(max(0, at_ns - row[START_NS]), MAX_DURATION_NS)
    return lost


class _Waiting(NamedTuple):
    run_id: str | None
    start_ns: int


@dataclass(slots=True)
class Opened:
    """Which spans are open, by the run that they end with. Bounded; it holds no rows."""

    most: int = MAX_OPEN
    refused: int = 0
    """Announcements beyond the bound: these spans are seen when they end."""
    _waiting: dict[Id, _Waiting] = field(default_factory=dict[Id, _Waiting])
    _of_run: dict[str, set[Id]] = field(default_factory=dict[str, set[Id]])
    _over: dict[str, int] = field(default_factory=dict[str, int])

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, row: Row) -> Row | None:
        """Return what to keep of a row that outranks what is known of its span: the row as it came, as lost when its
        run is over, or None beyond the bound."""
        if row[RANK] != _OPEN:
            self._forget(key(row))
            return row
        run_id = row[RUN_ID]
        over_ns = None if run_id is None else self._over.get(run_id)
        if over_ns is not None:
            return as_lost(row, over_ns)
        mine = key(row)
        if mine in self._waiting:
            return row
        if len(self._waiting) >= self.most:
            self.refused += 1
            return None
        self._waiting[mine] = _Waiting(run_id, row[START_NS])
        if run_id is not None:
            self._of_run.setdefault(run_id, set()).add(mine)
        return row

    def close(self, run_id: str, at_ns: int) -> list[Id]:
        """Return the spans that are lost because their run is over; those announced later are lost at once."""
        self._over.pop(run_id, None)
        self._over[run_id] = at_ns
        while len(self._over) > MAX_OVER:
            del self._over[next(iter(self._over))]
        lost = sorted(self._of_run.get(run_id, ()))
        for one in lost:
            self._forget(one)
        return lost

    def close_silent(self, before_ns: int) -> list[Id]:
        """Return the spans of no run that began before this time: nobody else would say that they are lost."""
        lost = sorted(
            mine
            for mine, one in self._waiting.items()
            if one.run_id is None and one.start_ns < before_ns
        )
        for one in lost:
            self._forget(one)
        return lost

    def runs(self) -> dict[str, int]:
        """Return how many spans are open of each run."""
        return {run_id: len(ids) for run_id, ids in self._of_run.items()}

    def _forget(self, mine: Id) -> None:
        one = self._waiting.pop(mine, None)
        if one is None or one.run_id is None:
            return
        ids = self._of_run[one.run_id]
        ids.discard(mine)
        if not ids:
            del self._of_run[one.run_id]


class Over(NamedTuple):
    """A run that is over, and since when (Unix seconds)."""

    run_id: str
    at: float


def over(item: Mapping[str, Any]) -> Over | None:
    """Return the run whose end an event reports, or None. The supervisor tells it as `run.ended`."""
    if item.get("kind") != "run.ended":
        return None
    data = item.get("data")
    named = data.get("run_id") if isinstance(data, Mapping) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    run_id, at = named or item.get("run_id"), item.get("at")  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(run_id, str) or not run_id or not isinstance(at, int | float):
        return None
    return Over(run_id, float(at))


def forsaken(
    open_runs: Iterable[str], ended: Mapping[str, float], live: Collection[str] | None, now: float
) -> list[Over]:
    """Return the runs whose open spans are lost, for a hub that starts: what ended while it was away.

    `ended` are ends that it knows, `live` the runs that the supervisors name as alive; None: they have not said yet,
    and a run of which nothing is known keeps its spans open.
    """
    found: list[Over] = []
    for run_id in open_runs:
        if run_id in ended:
            found.append(Over(run_id, ended[run_id]))
        elif live is not None and run_id not in live:
            found.append(Over(run_id, now))
    return found
