"""Where questions look: kept traces, and the spans of those of which something was stored after the last settled slice."""

# ruff: noqa: S608  names of tables and columns are ours

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, TypeVar

from midwatch.core.spans.form import Signal
from midwatch.store.clickhouse.gone import GONE
from midwatch.store.clickhouse.rows import SELECT
from midwatch.store.clickhouse.schema import NAMES
from midwatch.store.clickhouse.slices import APPLIED
from midwatch.store.clickhouse.sweeping import DECIDED, LETTINGS, gone
from midwatch.store.clickhouse.traces import TRACES, Ask

_ALL = NAMES[Signal.SPANS]

AGAIN: Final = 3
"""Times that a question is asked and its answer not taken, because lettings came in force meanwhile."""

T = TypeVar("T")


def spans_where(where: str) -> str:
    """Return the spans for which a condition holds, each once, as a query in parentheses."""
    return f"(SELECT {SELECT[Signal.SPANS]} FROM {_ALL} FINAL WHERE {where})"


@dataclass(frozen=True, slots=True)
class Recent:
    """What is not settled. Every trace is told of by one of `rows` and `kept`."""

    slice_: int
    """The last slice that is settled, or 0: minutes are in force up to it."""
    upto_ms: int
    """The last millisecond that is settled; 0 when nothing is."""
    since_ns: int | None
    """No span of a trace of which something was stored since began before; None when nothing was stored."""
    lets: bool = False
    """Whether that slice let traces go, which may be on the disk for another moment."""
    left: bool = False
    """Whether there are lines of traces that sampling let go."""
    decides: bool = False
    """Whether anything was ever sampled."""

    @classmethod
    def ask(cls, ask: Ask) -> Recent:
        """Look."""
        number, upto_ms = ask(f"SELECT max(slice), max(upto_ms) FROM {APPLIED}", {})[0]
        fresh = f"SELECT trace_id FROM {_ALL} WHERE stored_ms > {upto_ms}"
        first_ns, kept_ns, lets, left, decides = ask(
            f"SELECT (SELECT minOrNull(start_ns) FROM {_ALL} WHERE stored_ms > {upto_ms}),"
            f" (SELECT minOrNull(first_ns) FROM {TRACES} WHERE trace_id IN ({fresh})),"
            f" (SELECT count() FROM ({gone(number)}) AS g), (SELECT count() FROM {GONE}), (SELECT count() FROM {DECIDED})",
            {},
        )[0]
        since_ns = first_ns if kept_ns is None else min(first_ns, kept_ns)
        return cls(number, upto_ms, since_ns, bool(lets), bool(left), bool(decides))

    @classmethod
    def steady(cls, ask: Ask, work: Callable[[Recent], T]) -> T:
        """Return what a question makes of one state: it is asked again when a letting came in force meanwhile, which takes
        away rows that it may not have read yet."""
        for _ in range(AGAIN):
            recent = cls.ask(ask)
            found = work(recent)
            since = f"slice > {recent.slice_} AND slice <= (SELECT max(slice) FROM {APPLIED})"
            if not ask(f"SELECT count() FROM {LETTINGS} WHERE {since}", {})[0][0]:
                return found
        return work(cls.ask(ask))

    @property
    def there(self) -> str:
        """The condition for spans that were not let go: they are in the sums by now."""
        if not self.lets:
            return "1"
        return f"(stored_ms > {self.upto_ms} OR trace_id NOT IN ({gone(self.slice_)}))"

    @property
    def fresh(self) -> str:
        """The query of the traces of which something was stored since."""
        return f"SELECT trace_id FROM {_ALL} WHERE stored_ms > {self.upto_ms}"

    @property
    def rows(self) -> str:
        """All spans of those traces."""
        if self.since_ns is None:
            return spans_where("0")
        return spans_where(
            f"start_ns >= {self.since_ns} AND trace_id IN ({self.fresh}) AND {self.there}"
        )

    @property
    def kept(self) -> str:
        """The other traces, as they are kept."""
        return f"(SELECT * FROM {TRACES} FINAL WHERE {self.of_kept})"

    @property
    def of_kept(self) -> str:
        """The condition for these."""
        but = ["1"]
        if self.since_ns is not None:
            but.append(f"trace_id NOT IN ({self.fresh})")
        if self.lets:
            but.append(f"trace_id NOT IN ({gone(self.slice_)})")
        return " AND ".join(but)

    def rows_of(self, ask: Ask, chosen: Collection[bytes], signal: Signal = Signal.SPANS) -> str:
        """Return the rows of these traces: of kept ones where they lie, and of the others where they may."""
        listed = ", ".join(f"'{trace.hex()}'" for trace in chosen)
        where = f"trace_id IN ({listed})"
        low, high, found = ask(
            f"SELECT min(first_ns), max(last_start_ns), uniqExact(trace_id) FROM {TRACES} WHERE {where}", {}
        )[0]  # fmt: skip
        if found == len(set(chosen)) and self.since_ns is None:
            where += f" AND start_ns BETWEEN {low} AND {high}"
        if signal is Signal.SPANS:
            where += f" AND {self.there}"
        return f"(SELECT {SELECT[signal]} FROM {NAMES[signal]} FINAL WHERE {where})"
