"""One view of what lies where, for everybody who asks: rows of a signal, of traces, and what is told of them.

A layout names the generation that is written to, those that wait to be sealed, and the segments. It is replaced
whole, never changed; a view pins one and stands in one transaction.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import duckdb

from midwatch.core.spans.form import Signal
from midwatch.store.spans.folded import GONE, folded
from midwatch.store.spans.gathered import OF_SUMS, Chunk
from midwatch.store.spans.generation import NOTHING_NS, Generation
from midwatch.store.spans.segments import RESOURCES, Segment, Shelf, quoted, traces_of
from midwatch.store.spans.shape import COLUMNS
from midwatch.store.spans.sources import Pins

_KEY: Final = "agent, trace_id, span_id"


@dataclass(frozen=True)
class Layout:
    """What lies where. Generations are in their order, the oldest first."""

    hot: Generation
    frozen: tuple[Generation, ...]
    segments: tuple[Segment, ...]

    @property
    def generations(self) -> tuple[Generation, ...]:
        return (*self.frozen, self.hot)

    @cached_property
    def until(self) -> Mapping[Signal, int]:
        """The last time of anything that is not in the hot generation: what is later need not be looked for there."""
        return {
            signal: max(
                [NOTHING_NS[1]]
                + [each.bounds[signal][1] for each in self.frozen]
                + [each.to_ns for each in self.segments if each.kind == signal.value]
            )
            for signal in Signal
        }


class View:
    """What is there at one moment. `rows` is for FROM; the cursor stands in the view's transaction."""

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        layout: Layout,
        shelf: Shelf,
        hides: bool,
        gathered: Mapping[int, Sequence[Chunk]],
    ) -> None:
        self.cursor = cursor
        self.layout = layout
        self.summed = False
        """Whether it was asked what spans come to that are in no segment."""
        self._gathered = gathered
        self._shelf = shelf
        self._hides = hides
        self._tables = 0

    def rows(self, signal: Signal, since_ns: int = -(2**63), until_ns: int = 2**63 - 1) -> str:
        """Return all rows of a signal as a query in parentheses. The window only spares reading: rows outside of it
        may be among them."""
        found = self._unsealed(signal, since_ns, until_ns)
        files = self._files(signal.value, since_ns, until_ns)
        if files:
            found += f" UNION ALL SELECT {COLUMNS[signal]} FROM {read_parquet(files)}"
        return self._shown(signal, found)

    def of_traces(self, traces: Collection[bytes], since_ns: int = -(2**63), until_ns: int = 2**63 - 1) -> str:  # fmt: skip
        """Return the spans of these traces as `rows` does, among others: only segments are read that have any of them,
        which the parts of traces beside them say at a twentieth of the cost. A span that came again with another start
        is in neither twice."""
        near = [
            self._shelf.path(s)
            for s in self.layout.segments
            if s.kind == Signal.SPANS.value and s.reaches(since_ns, until_ns)
        ]
        told = {str(traces_of(path)): path for path in near if traces_of(path).exists()}
        having = [path for path in near if str(traces_of(path)) not in told]
        ids = ", ".join(f"unhex('{one.hex()}')" for one in traces)
        if told and traces:
            files = ", ".join(_named(Path(name)) for name in told)
            found = self.cursor.execute(
                f"SELECT DISTINCT filename FROM read_parquet([{files}], filename = true) WHERE trace_id IN ({ids})"
            ).fetchall()
            having += [told[row[0]] for row in found]
        rows = self._unsealed(Signal.SPANS, since_ns, until_ns)
        if not having:
            return self._shown(Signal.SPANS, rows)
        names = COLUMNS[Signal.SPANS]
        opened = f"SELECT {names} FROM opened_now"
        sealed = f"SELECT {names} FROM {read_parquet(having)}"
        if twice := self._twice(f"{rows} UNION ALL {opened}", sealed, ids):
            late, early = (f" ANTI JOIN (SELECT {_KEY} FROM {twice} WHERE {which}) AS t USING ({_KEY})" for which in ("late", "NOT late"))  # fmt: skip
            rows = f"SELECT * FROM ({rows}) AS r{late}"
            opened += late
            sealed += f" AS r{early}"
        rows += f" UNION ALL {sealed}"
        found = hiding(rows, self.layout.generations) if self._hides else rows
        return f"({found} UNION ALL {opened})"

    def _twice(self, unsealed: str, sealed: str, traces: str) -> str | None:
        """Return the table of spans of these traces that were sealed and came again with another start, which nobody
        looked for when they came: `late` says whether what came later goes. None when there are none."""
        if not traces:
            return None
        mine = f"WHERE trace_id IN ({traces})"
        fresh = f"SELECT {_KEY}, rank FROM ({unsealed}) AS u {mine}"
        if not self.cursor.execute(f"{fresh} LIMIT 1").fetchall():
            return None
        self._tables += 1
        table = f"told_twice_{self._tables}"
        self.cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT {_KEY}, max(s.rank) >= max(u.rank) AS late FROM ({fresh}) AS u"
            f" JOIN (SELECT {_KEY}, rank FROM ({sealed}) AS s {mine}) AS s USING ({_KEY}) GROUP BY {_KEY}"
        )
        if self.cursor.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchall():
            return table
        self.cursor.execute(f"DROP TABLE temp.{table}")
        return None

    def unsealed(self, signal: Signal, since_ns: int = -(2**63), until_ns: int = 2**63 - 1) -> str:
        """Return the rows that are in no segment yet, as `rows` does."""
        return self._shown(signal, self._unsealed(signal, since_ns, until_ns))

    def _unsealed(self, signal: Signal, since_ns: int, until_ns: int) -> str:
        names = COLUMNS[signal]
        return " UNION ALL ".join(
            f"SELECT {names} FROM {each.name}.{signal.value}"
            for each in self.layout.generations
            if each is self.layout.hot or each.reaches(signal, since_ns, until_ns)
        )

    def _shown(self, signal: Signal, found: str, names: str | None = None) -> str:
        if signal is not Signal.SPANS:
            return f"({found})"
        if self._hides:
            found = hiding(found, self.layout.generations)
        return f"({found} UNION ALL SELECT {names or COLUMNS[signal]} FROM opened_now)"

    def sealed(
        self,
        signal: Signal,
        since_ns: int = -(2**63),
        until_ns: int = 2**63 - 1,
        generation: int | None = None,
    ) -> str:
        """Return the rows that are in segments, and so settled, as `rows` does. For the settling of a generation:
        as it finds them, whatever later ones know; lost rows that those end are in the sums until they are settled."""
        files = self._files(signal.value, since_ns, until_ns)
        if not files:
            return f"(SELECT {COLUMNS[signal]} FROM {self.layout.hot.name}.{signal.value} LIMIT 0)"
        found = f"SELECT {COLUMNS[signal]} FROM {read_parquet(files)}"
        if self._hides and signal is Signal.SPANS:
            layout = self.layout.generations
            known = [g for g in layout if generation is None or g.number <= generation]
            found = hiding(found, known) if known else found
        return f"({found})"

    def replaced(self, number: int) -> str | None:
        """Return the settled rows that were lost and whose ends are in this generation, as `rows` does; None when
        there are none."""
        hiding_them = [g for g in self.layout.generations if g.number == number and g.hides]
        files = self._files(Signal.SPANS.value)
        if not files or not hiding_them:
            return None
        return f"(SELECT {COLUMNS[Signal.SPANS]} FROM {read_parquet(files)} AS r WHERE {hidden_in(hiding_them)})"

    def hidden(self) -> str | None:
        """Return lost rows of spans that ended after all, which `rows` does not show; None when there are none."""
        if not self._hides:
            return None
        tables = [f"{each.name}.spans" for each in self.layout.generations]
        tables += [read_parquet([self._shelf.path(s)]) for s in self.layout.segments if s.kind == Signal.SPANS.value]  # fmt: skip
        rows = " UNION ALL ".join(
            f"SELECT {COLUMNS[Signal.SPANS]} FROM {table}" for table in tables
        )
        return f"({rows}) AS r WHERE {hidden_in(self.layout.generations)}"

    def other(self, kind: str, since_ns: int = -(2**63), until_ns: int = 2**63 - 1) -> str | None:
        """Return rows of another kind that settling wrote into segments, or None when there are none."""
        files = self._files(kind, since_ns, until_ns)
        return f"(SELECT * FROM {read_parquet(files)})" if files else None

    def gone(self, what: str, since_ns: int = -(2**63), until_ns: int = 2**63 - 1) -> str | None:
        """Return what traces that are gone come to, of a suffix of `folded`, or None when there is nothing."""
        files = self._files(GONE, since_ns, until_ns)
        made = [path.with_suffix(what) for path in files if path.with_suffix(what).exists()]
        bare = [path for path in files if path.with_suffix(what) not in made]
        found = [f"SELECT * FROM {read_parquet(made)}"] if made else []
        if bare:  # they were written before anything lay beside them
            found.append(f"SELECT * FROM ({folded(read_parquet(bare))[what][0]}) AS f")
        return f"({' UNION ALL BY NAME '.join(found)})" if found else None

    def by_trace(self, since_ns: int = -(2**63)) -> tuple[str, str | None]:
        """Return what tells of traces, each span in one of the two: rows of spans, as `rows` does, and parts of traces
        (`parts.trace_parts`), or None when there are none. Spans that began before the window may be missing."""
        rows, parts = self._told(since_ns)
        more, gathered = self._told_unsealed(since_ns)
        return self._both([*more, *rows], [*gathered, *parts])

    def sealed_by_trace(self, since_ns: int = -(2**63)) -> str | None:
        """Return the parts of traces among those, of segments alone."""
        return self._both([], self._told(since_ns)[1])[1]

    def unsealed_by_trace(self, since_ns: int = -(2**63)) -> tuple[str, str | None]:
        """Return the same of what is in no segment."""
        return self._both(*self._told_unsealed(since_ns))

    def _told(self, since_ns: int) -> tuple[list[str], list[str]]:
        """Return queries of rows and of parts, of what is in segments."""
        segments = [
            s for s in self.layout.segments if s.kind == Signal.SPANS.value and s.to_ns >= since_ns
        ]
        whole = [s for s in segments if traces_of(self._shelf.path(s)).exists()]
        bare = [self._shelf.path(s) for s in segments if s not in whole]
        names = COLUMNS[Signal.SPANS]
        rows = [f"SELECT {names} FROM {read_parquet(bare)}"] if bare else []
        if not whole:
            return rows, []
        told = f"read_parquet([{', '.join(_named(traces_of(self._shelf.path(s))) for s in whole)}])"
        if not self._hides:
            return rows, [f"SELECT * FROM {told}"]
        # of traces with a lost span that ended after all the parts are not true until that is sealed
        sealed = read_parquet([self._shelf.path(s) for s in whole])
        rows.append(f"SELECT {names} FROM {sealed} WHERE trace_id IN ({self._changed})")
        return rows, [f"SELECT * FROM {told} WHERE trace_id NOT IN ({self._changed})"]

    def _told_unsealed(self, since_ns: int) -> tuple[list[str], list[str]]:
        """Return the same of what is in generations: of what was gathered parts, of the rest rows."""
        self.summed = True
        names = COLUMNS[Signal.SPANS]
        rows: list[str] = []
        parts: list[str] = []
        for each, chunks in self._reaching(since_ns):
            rows.append(f"SELECT {names} FROM {each.name}.spans{_after(chunks)}")
            for chunk in chunks:
                if not self._hides:
                    parts.append(f"SELECT * FROM {chunk.parts}")
                    continue
                parts.append(f"SELECT * FROM {chunk.parts} WHERE trace_id NOT IN ({self._changed})")
                rows.append(
                    f"SELECT {names} FROM {each.name}.spans WHERE rowid >= {chunk.since} AND rowid < {chunk.until}"
                    f" AND trace_id IN ({self._changed})"
                )
        return rows, parts

    def unsealed_sums(self, since_ns: int, until_ns: int) -> tuple[str, str | None]:
        """Return what spans come to that are in no segment, each in one of the two: rows of spans, with the columns
        OF_SUMS at least, and sums by minute (`gathered.sums_of`), or None when there are none."""
        self.summed = True
        if self._hides:
            # what was lost and ended after all stands in the sums: there is no taking it out
            return self.unsealed(Signal.SPANS, since_ns, until_ns), None
        reaching = self._reaching(since_ns, until_ns)
        rows = " UNION ALL ".join(
            f"SELECT {OF_SUMS} FROM {each.name}.spans{_after(chunks)}" for each, chunks in reaching
        )
        summed = [f"SELECT * FROM {chunk.sums}" for _, chunks in reaching for chunk in chunks]
        return self._shown(
            Signal.SPANS, rows, OF_SUMS
        ), f"({' UNION ALL '.join(summed)})" if summed else None

    def gathered_rows(self, since_ns: int, until_ns: int) -> str | None:
        """Return the rows behind the sums of `unsealed_sums`, as a query in parentheses; None when there are none."""
        found = [
            f"SELECT {OF_SUMS} FROM {each.name}.spans WHERE rowid < {chunks[-1].until}"
            for each, chunks in self._reaching(since_ns, until_ns)
            if chunks
        ]
        return f"({' UNION ALL '.join(found)})" if found else None

    def _reaching(self, since_ns: int, until_ns: int = 2**63 - 1) -> list[tuple[Generation, Sequence[Chunk]]]:  # fmt: skip
        return [
            (each, self._gathered.get(each.number, ()))
            for each in self.layout.generations
            if each is self.layout.hot or each.reaches(Signal.SPANS, since_ns, until_ns)
        ]

    def _both(self, rows: Sequence[str], parts: Sequence[str]) -> tuple[str, str | None]:
        nothing = f"SELECT {COLUMNS[Signal.SPANS]} FROM {self.layout.hot.name}.spans LIMIT 0"
        shown = self._shown(Signal.SPANS, " UNION ALL ".join(rows) or f"({nothing})")
        return shown, f"({' UNION ALL BY NAME '.join(parts)})" if parts else None

    @cached_property
    def _changed(self) -> str:
        """The traces with a lost span that ended after all."""
        again = self.cursor.execute(
            f"SELECT DISTINCT trace_id FROM {self.lost_and_found()}"
        ).fetchall()
        return ", ".join(f"unhex('{row[0].hex()}')" for row in again)

    def one(self, segment: Segment) -> str:
        """Return all rows of one segment of the layout as a table function."""
        return read_parquet([self._shelf.path(segment)])

    def hold(self, kind: str) -> tuple[list[Path], list[Pins]]:
        """Return the files of a kind for whoever reads them after the view; they stay until he lets go of the pins."""
        segments = [each for each in self.layout.segments if each.kind == kind]
        pins = [self._shelf.pins(each) for each in segments]
        for each in pins:
            each.pin()
        return [self._shelf.path(each) for each in segments], pins

    def lost_and_found(self) -> str | None:
        """Return the keys of rows that were lost and ended after all, as a query in parentheses; None when there are
        none."""
        if not self._hides:
            return None
        tables = " UNION ALL ".join(
            f"SELECT * FROM {g.name}.hidden" for g in self.layout.generations
        )
        return f"(SELECT agent, trace_id, span_id FROM ({tables}))"

    def _files(self, kind: str, since_ns: int = -(2**63), until_ns: int = 2**63 - 1) -> list[Path]:
        return [
            self._shelf.path(each)
            for each in self.layout.segments
            if each.kind == kind and each.reaches(since_ns, until_ns)
        ]

    def resources(self) -> str:
        """Return resources, `resource_id` and `text`; one may be there several times."""
        parts = [f"SELECT * FROM {each.name}.resources" for each in self.layout.generations]
        if (sealed := self.other(RESOURCES)) is not None:
            parts.append(f"SELECT resource_id, text FROM {sealed}")
        return f"({' UNION ALL '.join(parts)})"


def _after(chunks: Sequence[Chunk]) -> str:
    return f" WHERE rowid >= {chunks[-1].until}" if chunks else ""


def _named(path: Path) -> str:
    return f"'{quoted(path)}'"


def hidden_in(generations: Sequence[Generation]) -> str:
    """Return the condition for span rows `r` that were lost and ended after all."""
    hidden = " UNION ALL ".join(f"SELECT * FROM {each.name}.hidden" for each in generations)
    return (
        f"(r.rank = 1 AND EXISTS (SELECT 1 FROM ({hidden}) AS h WHERE h.trace_id = r.trace_id"
        " AND h.span_id = r.span_id AND h.agent = r.agent))"
    )


def hiding(rows: str, generations: Sequence[Generation]) -> str:
    """Return span rows without the lost ones that ended after all."""
    return f"SELECT {COLUMNS[Signal.SPANS]} FROM ({rows}) AS r WHERE NOT {hidden_in(generations)}"


def read_parquet(files: Sequence[Path]) -> str:
    """Return files as a table function; columns that an older one lacks are null."""
    listed = ", ".join(f"'{quoted(path)}'" for path in files)
    return f"read_parquet([{listed}], union_by_name = true)"
