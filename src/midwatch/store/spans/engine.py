"""The embedded store's engine: what lies where, and one view of it for everybody.

A layout names the generation that is written to, those that wait to be sealed, and the segments. It is replaced
whole, never changed. A view pins a layout and stands in one transaction, so that it sees each row once, whatever is
written, sealed or dropped meanwhile. Open spans are in memory (and in the generation, for the next start): they are
few, and what changes all the time is not for columns.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import arro3.core as arrow
import duckdb

from midwatch.core.errors import SetupError
from midwatch.core.spans.form import AGENT, SPAN_ID, SPANS, TRACE_ID, Row, Signal
from midwatch.store.duck import close, first_line
from midwatch.store.spans.gathered import gathered
from midwatch.store.spans.generation import MAX_LOST, Generation, erase
from midwatch.store.spans.keys import Agents, Key
from midwatch.store.spans.manifest import Named
from midwatch.store.spans.segments import Segment, Shelf
from midwatch.store.spans.shape import whole
from midwatch.store.spans.sources import Pins
from midwatch.store.spans.view import Layout as Layout
from midwatch.store.spans.view import View as View
from midwatch.store.spans.view import hidden_in as hidden_in
from midwatch.store.spans.view import hiding as hiding
from midwatch.store.spans.view import read_parquet as read_parquet

MEMORY_LIMIT: Final = "192MB"
"""What DuckDB may use for buffers and logs in memory; what needs more goes to its temporary directory."""

log = logging.getLogger(__name__)


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
        self._gathering = threading.Lock()
        """Held while spans are gathered. What was gathered is known under `lock`."""
        self._numbers = itertools.count(1)
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
                known = {each.number: each.gathered for each in layout.generations}
            except BaseException:
                for each in pins:
                    each.unpin()
                raise
        try:
            own.register("opened_now", table)
            yield View(own, layout, self.shelf, hides, known)
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
        pins += [chunk.pins for each in layout.generations for chunk in each.gathered]
        pins += [self.shelf.pins(segment) for segment in layout.segments]
        for each in pins:
            each.pin()
        return pins

    def gather(self, rows: int) -> None:
        """Gather what spans come to of which so many are left, see `gathered`. From any thread; one goes after the
        other. Raises duckdb.Error."""
        with self._gathering:
            for each in self.layout.generations:
                if _left(each) >= rows:
                    self._gather(each)

    def _gather(self, generation: Generation) -> None:
        with self.lock:
            if generation not in self.layout.generations:
                return  # sealed meanwhile, or all was opened anew
            cursor = self.cursor()
            # not what else there is: whoever drops something waits for its files
            generation.pins.pin()
        try:
            with contextlib.closing(cursor):
                before, number = generation.gathered, next(self._numbers)
                made = gathered(cursor, generation.name, before, number, self._drop)
            with self.lock:
                generation.gathered = made
            for chunk in before:
                if chunk not in made:
                    chunk.pins.retire()
        finally:
            generation.pins.unpin()

    def left(self) -> int:
        """Return of how many spans is not gathered what they come to, in the generation that has most of them."""
        return max(map(_left, self.layout.generations))

    def _drop(self, table: str) -> None:
        with contextlib.suppress(duckdb.Error):  # when all is closed it is gone anyway
            self.cursor().execute(f"DROP TABLE IF EXISTS {table}")

    def key(self, row: Row) -> Key:
        """Return the key of a span's row."""
        return self.agents[row[AGENT]] + row[TRACE_ID] + row[SPAN_ID]


def _left(generation: Generation) -> int:
    chunks = generation.gathered
    return generation.rows[Signal.SPANS] - (chunks[-1].until if chunks else 0)
