"""The embedded store's engine: what lies where, and one view of it for everybody.

A layout names the generation that is written to, those that wait to be sealed, and the segments. It is replaced
whole, never changed. A view pins a layout and stands in one transaction, so that it sees each row once, whatever is
written, sealed or dropped meanwhile. Open spans are in memory (and in the generation, for the next start): they are
few, and what changes all the time is not for columns.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import arro3.core as arrow
import duckdb

from midwatch.core.errors import SetupError
from midwatch.core.spans.form import AGENT, SPAN_ID, SPANS, TRACE_ID, Row, Signal
from midwatch.store.duck import close, first_line
from midwatch.store.spans.generation import MAX_LOST, NOTHING_NS, Generation, erase
from midwatch.store.spans.keys import Agents, Key
from midwatch.store.spans.manifest import Named
from midwatch.store.spans.segments import RESOURCES, Segment, Shelf, quoted, traces_of
from midwatch.store.spans.shape import COLUMNS, whole
from midwatch.store.spans.sources import Pins

MEMORY_LIMIT: Final = "192MB"
"""What DuckDB may use for buffers and logs in memory; what needs more goes to its temporary directory."""

log = logging.getLogger(__name__)


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


@dataclass(slots=True)
class Open:
    """A span that is open, and the keys of its contents; None: to be looked up."""

    row: Row
    contents: set[str] | None = None


@dataclass(slots=True)
class Opened:
    """The open spans of all agents."""

    spans: dict[Key, Open] = field(default_factory=dict[Key, Open])
    version: int = 0
    _table: tuple[int, arrow.Table] | None = None

    def table(self) -> arrow.Table:
        """Return the rows as Arrow; made anew only when something changed."""
        if self._table is None or self._table[0] != self.version:
            rows = [each.row for each in self.spans.values()]
            self._table = self.version, whole(SPANS, rows)
        return self._table[1]


class View:
    """What is there at one moment. `rows` is for FROM; the cursor stands in the view's transaction."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, layout: Layout, shelf: Shelf, hides: bool) -> None:  # fmt: skip
        self.cursor = cursor
        self.layout = layout
        self._shelf = shelf
        self._hides = hides

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
        which the parts of traces beside them say at a twentieth of the cost."""
        near = [
            self._shelf.path(s)
            for s in self.layout.segments
            if s.kind == Signal.SPANS.value and s.reaches(since_ns, until_ns)
        ]
        told = {str(traces_of(path)): path for path in near if traces_of(path).exists()}
        having = [path for path in near if str(traces_of(path)) not in told]
        if told and traces:
            ids = ", ".join(f"unhex('{one.hex()}')" for one in traces)
            files = ", ".join(_named(Path(name)) for name in told)
            found = self.cursor.execute(
                f"SELECT DISTINCT filename FROM read_parquet([{files}], filename = true) WHERE trace_id IN ({ids})"
            ).fetchall()
            having += [told[row[0]] for row in found]
        rows = self._unsealed(Signal.SPANS, since_ns, until_ns)
        if having:
            rows += f" UNION ALL SELECT {COLUMNS[Signal.SPANS]} FROM {read_parquet(having)}"
        return self._shown(Signal.SPANS, rows)

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

    def _shown(self, signal: Signal, found: str) -> str:
        if signal is not Signal.SPANS:
            return f"({found})"
        if self._hides:
            found = hiding(found, self.layout.generations)
        return f"({found} UNION ALL SELECT {COLUMNS[signal]} FROM opened_now)"

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

    def other(self, kind: str) -> str | None:
        """Return rows of another kind that settling wrote into segments, or None when there are none."""
        files = self._files(kind)
        return f"(SELECT * FROM {read_parquet(files)})" if files else None

    def by_trace(self, since_ns: int = -(2**63)) -> tuple[str, str | None]:
        """Return what tells of traces, each span in one of the two: rows of spans, as `rows` does, and parts of traces
        (`parts.trace_parts`), or None when there are none. Spans that began before the window may be missing."""
        segments = [
            s for s in self.layout.segments if s.kind == Signal.SPANS.value and s.to_ns >= since_ns
        ]
        whole = [s for s in segments if traces_of(self._shelf.path(s)).exists()]
        bare = [self._shelf.path(s) for s in segments if s not in whole]
        names = COLUMNS[Signal.SPANS]
        found = self._unsealed(Signal.SPANS, since_ns, 2**63 - 1)
        if bare:
            found += f" UNION ALL SELECT {names} FROM {read_parquet(bare)}"
        if not whole:
            return self._shown(Signal.SPANS, found), None
        parts = (
            f"read_parquet([{', '.join(_named(traces_of(self._shelf.path(s))) for s in whole)}])"
        )
        if not self._hides:
            return self._shown(Signal.SPANS, found), f"(SELECT * FROM {parts})"
        # of traces with a lost span that ended after all the parts are not true until that is sealed
        again = self.cursor.execute(
            f"SELECT DISTINCT trace_id FROM {self.lost_and_found()}"
        ).fetchall()
        ids = ", ".join(f"unhex('{row[0].hex()}')" for row in again)
        sealed = read_parquet([self._shelf.path(s) for s in whole])
        found += f" UNION ALL SELECT {names} FROM {sealed} WHERE trace_id IN ({ids})"
        return self._shown(
            Signal.SPANS, found
        ), f"(SELECT * FROM {parts} WHERE trace_id NOT IN ({ids}))"

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


class Engine:
    """The attached generations, the shelf of segments, and the layout. One thread writes, any may view."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shelf = Shelf(folder / "segments")
        self.agents = Agents()
        self.opened = Opened()
        self.lost: dict[str, int] = {}
        self.sealed = 0
        self.lock = threading.Lock()
        """Held while a commit and what memory knows of it come together, and while a view is taken."""
        self._base: duckdb.DuckDBPyConnection | None = None
        self._layout: Layout | None = None

    # -- life --------------------------------------------------------------------------------

    def start(self, named: Named) -> None:
        """Open what is there, remove what does not count, and begin a new generation. Raises SetupError."""
        try:
            self.shelf.folder.mkdir(parents=True, exist_ok=True)
            self.sealed = named.sealed
            missing = [s for s in named.segments if not self.shelf.path(s).exists()]
            if missing:
                raise SetupError(
                    f"{len(missing)} segments of the telemetry are not there, the first is"
                    f" {self.shelf.path(missing[0])}: put them back, or restore state.db and telemetry together"
                )
            self.open(tuple(named.segments))
            # only now: another process that still seals here holds the generations, and what it writes is not named yet
            self.shelf.sweep(named.segments)
        except OSError as error:
            raise SetupError(f"cannot use {self.folder}: {error.strerror}; see its permissions") from None  # fmt: skip
        except duckdb.Error as error:
            raise SetupError(f"cannot open the telemetry in {self.folder}: {first_line(error)}") from None  # fmt: skip

    def open(self, segments: tuple[Segment, ...]) -> None:
        """Connect, attach the generations that are on disk and not sealed, and begin a new one. Raises duckdb.Error."""
        self.close()
        base = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": MEMORY_LIMIT,
                "threads": 1,
                "temp_directory": str(self.folder / "spill"),
                "checkpoint_threshold": "1TB",
                "auto_checkpoint_skip_wal_threshold": "1000000000000",
                "checkpoint_on_detach": "DISABLED",
                "autoinstall_known_extensions": False,
                # else what a question or a sealing took stays with the process: the allocator gives it back by itself
                "allocator_background_threads": True,
                "preserve_insertion_order": False,
                "parquet_metadata_cache": True,
            },
        )
        try:
            found = self._found(base)
            opened, self.lost = found[-1].opened() if found else ([], {})
            self.opened = Opened({self.key(row): Open(row) for row in opened})
            last = found[-1].number if found else self.sealed
            hot = self._begin(base, last + 1)
        except BaseException:
            base.close()
            raise
        with self.lock:
            self._base = base
            if self._layout is not None:
                segments = (
                    self._layout.segments
                )  # opened anew: something may have been sealed meanwhile
            over = [each for each in found if each.number <= self.sealed]
            frozen = tuple(each for each in found if each.number > self.sealed)
            self._layout = Layout(hot, frozen, segments)
        for each in over:
            each.pins.retire()

    def _found(self, base: duckdb.DuckDBPyConnection) -> list[Generation]:
        found: list[Generation] = []
        for path in sorted(self.folder.glob("g*.duckdb*")):
            number = int(path.name[1:9])
            if number <= self.sealed:
                erase(self.folder / f"g{number:08d}.duckdb")
            elif path.suffix == ".duckdb":
                each = Generation(base, self.folder, number)
                each.attach()
                if each.ready:
                    each.recall()
                    found.append(each)
                else:
                    each.remove()  # it was being made; nothing was ever in it
        return found

    def _begin(self, base: duckdb.DuckDBPyConnection, number: int) -> Generation:
        made = Generation(base, self.folder, number)
        made.attach()
        try:
            made.create(base.cursor(), [o.row for o in self.opened.spans.values()], self.lost)
        except BaseException:
            with contextlib.suppress(duckdb.Error):
                made.remove()
            raise
        made.keys = {signal: {} for signal in Signal}
        made.keys[Signal.SPANS] = dict.fromkeys(self.opened.spans, 0)
        return made

    def close(self) -> None:
        """Let go of everything; the logs are read at the next start."""
        base, self._base = self._base, None
        if base is not None:
            close(base)

    # -- layout ------------------------------------------------------------------------------

    @property
    def layout(self) -> Layout:
        assert self._layout is not None, "the engine was not started"
        return self._layout

    @property
    def base(self) -> duckdb.DuckDBPyConnection | None:
        """The connection; None when an earlier failure closed it."""
        return self._base

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a new cursor. Raises duckdb.ConnectionException when everything is closed."""
        if self._base is None:
            raise duckdb.ConnectionException("the telemetry store is closed")
        return self._base.cursor()

    def rotate(self) -> None:
        """Freeze the generation that is written to and begin the next. For the writing thread."""
        if self._base is None:
            raise duckdb.ConnectionException("the telemetry store is closed")
        while len(self.lost) > MAX_LOST:
            del self.lost[next(iter(self.lost))]
        hot = self._begin(self._base, self.layout.hot.number + 1)
        with self.lock:
            before = self.layout  # only now: a swap may have come between
            self._layout = replace(before, hot=hot, frozen=(*before.frozen, before.hot))

    def swap(self, add: Sequence[Segment], remove: Sequence[Segment], sealed: int) -> list[Pins]:
        """Show what the manifest says by now; return the pins of what is no longer shown, all retired."""
        gone = {segment.number for segment in remove}
        with self.lock:
            before = self.layout
            self.sealed = max(self.sealed, sealed)
            kept = tuple(s for s in before.segments if s.number not in gone)
            frozen = tuple(g for g in before.frozen if g.number > self.sealed)
            self._layout = Layout(before.hot, frozen, (*kept, *add))
        pins = [g.pins for g in before.frozen if g.number <= self.sealed]
        pins += [self.shelf.pins(segment) for segment in remove]
        for each in pins:
            each.retire()
        return pins

    # -- looking -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def view(self, cursor: duckdb.DuckDBPyConnection | None = None) -> Generator[View]:
        """Yield what is there now. Raises duckdb.Error."""
        own = cursor if cursor is not None else self.cursor()
        with self.lock:
            layout = self.layout
            pins = self._pin(layout)
            try:
                table = self.opened.table()
                own.begin()
                # the first look at a generation is what fixes the moment that the transaction sees
                own.execute(f"SELECT 1 FROM {layout.hot.name}.hidden LIMIT 1").fetchall()
                hides = any(each.hides for each in layout.generations)
            except BaseException:
                for each in pins:
                    each.unpin()
                raise
        try:
            own.register("opened_now", table)
            yield View(own, layout, self.shelf, hides)
        finally:
            with contextlib.suppress(duckdb.Error):  # an interrupted one has no transaction left
                own.rollback()
            with contextlib.suppress(duckdb.Error):
                own.unregister("opened_now")
            for each in pins:
                each.unpin()

    @contextlib.contextmanager
    def pinned(self) -> Generator[Layout]:
        """Yield the layout, of which nothing is removed meanwhile."""
        with self.lock:
            layout = self.layout
            pins = self._pin(layout)
        try:
            yield layout
        finally:
            for each in pins:
                each.unpin()

    def _pin(self, layout: Layout) -> list[Pins]:
        pins = [each.pins for each in layout.generations]
        pins += [self.shelf.pins(segment) for segment in layout.segments]
        for each in pins:
            each.pin()
        return pins

    def key(self, row: Row) -> Key:
        """Return the key of a span's row."""
        return self.agents[row[AGENT]] + row[TRACE_ID] + row[SPAN_ID]
