"""From a frozen generation to segments, and from segments to others: every step may be the last before a crash.

    1. write the segments and sync them      a crash leaves files that nobody names: swept at the next start
    2. change the manifest                   the one transaction: from here on the segments count
    3. show the new layout                   a crash leaves a generation that is sealed: removed at the next start
    4. remove what nobody reads any more

Sealing, compacting, expiring and dropping are the same three moves over different rows; one at a time.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

import duckdb

from midwatch.core.errors import StoreError
from midwatch.core.spans.form import Signal
from midwatch.core.spans.keeping import Expiry
from midwatch.store.duck import first_line
from midwatch.store.spans import repeated
from midwatch.store.spans.engine import Engine, View, hiding, read_parquet
from midwatch.store.spans.generation import Generation
from midwatch.store.spans.keys import fingerprint
from midwatch.store.spans.known import TRACE_NS
from midwatch.store.spans.manifest import Manifest
from midwatch.store.spans.segments import RESOURCES, Segment
from midwatch.store.spans.shape import COLUMNS, TIME
from midwatch.store.spans.sources import Pins

NICE: Final = 5
"""How far the sealing thread steps back: whoever posts spans goes first, but on a busy machine sealing must not
starve, or nothing more can be taken."""

RELEASE_S: Final = 15.0
"""How long is waited for readers to let go of what was replaced; they have a time limit themselves."""

MAX_FAULTS: Final = 2
"""How often settling may fail on a generation before it is sealed without."""

COMPACT_AT: Final = 8
"""Small segments of one kind that lie side by side before they become one."""

SMALL_ROWS: Final = 100_000
"""A segment with fewer rows is small."""

SMALL_BYTES: Final = 16 * 1024 * 1024
"""And fewer bytes: contents are large."""

COMPACT_BYTES: Final = 128 * 1024 * 1024
"""Bytes of a segment that compacting makes."""

COMPACT_ROWS: Final = 500_000
"""Rows of a segment that compacting makes: as many as a generation may have."""

STRADDLE_NS: Final = 86_400 * 10**9
"""How much of what has expired may stay because the rest of its segment has not: a day."""

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Beside:
    """What settling adds to a generation that is being sealed."""

    keep: str = ""
    """A condition on span rows, with their columns: those for which it is false are sampled away, with their contents.
    Empty: all stay."""
    tables: Mapping[str, str] = field(default_factory=dict[str, str])
    """Kind → query: rows that are written as segments of that kind, in the same step."""
    sampled: int = 0
    repeated: int = 0
    """Rows that were sealed before, with another start."""


class Settling(Protocol):
    """Counts once, samples and sums, over one frozen generation: called in the sealing thread, may be called again."""

    def __call__(self, view: View, generation: int, spans: str, contents: str) -> Beside:
        """`spans` and `contents` are the generation's rows as queries in parentheses, each row once; `view.sealed`
        and `view.other` are what was settled before. What is registered on the view's cursor stays until its
        tables are written."""
        ...


@dataclass(frozen=True, slots=True)
class Done:
    """What one change did."""

    rows: int = 0
    sampled: int = 0
    repeated: int = 0
    freed_bytes: int = 0
    unsettled: bool = False
    """Settling failed: there are neither verdicts nor sums."""


class Sealer:
    """Changes segments, in one thread, one change at a time. `step` is told where it is: tests stop it there."""

    def __init__(
        self,
        engine: Engine,
        manifest: Manifest,
        settling: Settling | None = None,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.turn = asyncio.Lock()
        """Whoever changes segments has it."""
        self._engine = engine
        self._manifest = manifest
        self._settling = settling
        self._step = step
        self._thread = ThreadPoolExecutor(1, "spans-seal", initializer=_step_back)
        self._number = 0
        self._faults = 0
        self._given_up: set[int] = set()
        """Generations that settling failed on too often."""

    def start(self, number: int) -> None:
        """Begin with the highest segment number that was ever given."""
        self._number = number

    def stop(self) -> None:
        """Wait for what is being written."""
        self._thread.shutdown(wait=True)

    async def run(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Return what `work` makes of a cursor, in the sealing thread. Raises StoreError."""

        def safe() -> T:
            try:
                cursor = self._engine.cursor()
                before = self._number
                try:
                    return work(cursor)
                except BaseException:
                    # it is tried again, under other numbers: on a full disk what is half done must not add up
                    self._engine.shelf.discard(range(before + 1, self._number + 1))
                    raise
                finally:
                    cursor.close()
            except (duckdb.Error, OSError) as error:
                raise StoreError(
                    f"cannot seal telemetry: {first_line(error)}; see the disk of {self._engine.folder}"
                ) from None

        return await asyncio.get_running_loop().run_in_executor(self._thread, safe)

    def next_number(self) -> int:
        """Return a number that no segment ever had. In the sealing thread."""
        self._number += 1
        return self._number

    async def change(self, what: str, add: Sequence[Segment], remove: Sequence[Segment], sealed: int = 0) -> list[Pins]:  # fmt: skip
        """Make it so: manifest, then layout. Returns the pins of what went."""
        self._step(f"{what} written")
        await self._manifest.change(add, remove, sealed)
        self._step(f"{what} named")
        # not in the loop: letting go of a generation frees all that it had in memory
        pins = await self.run(lambda _: self._engine.swap(add, remove, sealed))
        self._step(f"{what} shown")
        return pins

    # -- sealing -----------------------------------------------------------------------------

    async def seal(self) -> Done:
        """Seal the oldest frozen generation, if there is one. Whoever calls has the turn."""
        frozen = self._engine.layout.frozen
        if not frozen:
            return Done()
        generation = frozen[0]
        add, remove, beside = await self.run(lambda cursor: self._write(cursor, generation))
        before = generation.size_bytes
        await self.change("seal", add, remove, generation.number)
        spans = sum(segment.rows for segment in add if segment.kind == Signal.SPANS.value)
        spans -= sum(segment.rows for segment in remove)
        unsettled = generation.number in self._given_up
        self._given_up.discard(generation.number)
        return Done(max(0, spans), beside.sampled, beside.repeated, before, unsettled)

    def _write(
        self, cursor: duckdb.DuckDBPyConnection, generation: Generation
    ) -> tuple[list[Segment], list[Segment], Beside]:
        number, shelf = generation.number, self._engine.shelf
        rows = {s: f"SELECT {COLUMNS[s]} FROM {generation.name}.{s.value}" for s in Signal}
        again = repeated.find(cursor, shelf, generation, self._engine.layout.segments)
        if again is not None:
            repeated.hide(cursor, generation)
        # a row of this generation may be hidden by a later one as well
        generations = self._engine.layout.generations
        if any(each.hides for each in generations):
            rows[Signal.SPANS] = hiding(rows[Signal.SPANS], generations)
        if again:
            rows |= {s: repeated.without(rows[s]) for s in (Signal.SPANS, Signal.CONTENTS)}
        beside = Beside()
        with contextlib.ExitStack() as held:
            if (
                self._settling is not None
                and generation.rows[Signal.SPANS]
                and number not in self._given_up
            ):
                # what settling registers is gone with the view
                view = held.enter_context(self._engine.view(cursor))
                try:
                    beside = self._settling(view, number, f"({rows[Signal.SPANS]})", f"({rows[Signal.CONTENTS]})")  # fmt: skip
                except Exception:
                    # whatever is wrong with it, spans must not wait for ever, or soon no more can be taken
                    self._faults += 1
                    if self._faults >= MAX_FAULTS:
                        self._faults = 0
                        self._given_up.add(number)
                        log.exception("generation %d is sealed without verdicts and sums", number)
                    raise
                self._faults = 0
            made = self._write_all(cursor, generation, rows, beside)
        rewritten, remove = self._without_hidden(cursor, generation)
        shelf.sync()
        return [*made, *rewritten], remove, replace(beside, repeated=again or 0)

    def _write_all(
        self,
        cursor: duckdb.DuckDBPyConnection,
        generation: Generation,
        rows: dict[Signal, str],
        beside: Beside,
    ) -> list[Segment]:
        """Write what stays of a generation, and what settling made of it."""
        number, shelf = generation.number, self._engine.shelf
        if beside.keep:
            rows[Signal.CONTENTS] = (
                f"SELECT {COLUMNS[Signal.CONTENTS]} FROM ({rows[Signal.CONTENTS]}) AS c WHERE NOT EXISTS"
                f" (SELECT 1 FROM ({rows[Signal.SPANS]}) AS s WHERE NOT ({beside.keep}) AND s.trace_id = c.trace_id"
                "   AND s.span_id = c.span_id AND s.agent = c.agent)"
            )
            rows[Signal.SPANS] = f"SELECT * FROM ({rows[Signal.SPANS]}) WHERE {beside.keep}"
        made = [
            shelf.write(cursor, signal, rows[signal], self.next_number(), number)
            for signal in Signal
            if generation.rows[signal]
        ]
        others = {RESOURCES: f"SELECT DISTINCT * FROM {generation.name}.resources", **beside.tables}
        if any(generation.rows.values()):
            made += [shelf.write_other(cursor, k, q, self.next_number(), number) for k, q in others.items()]  # fmt: skip
        return [segment for segment in made if segment is not None]

    def _without_hidden(
        self, cursor: duckdb.DuckDBPyConnection, generation: Generation
    ) -> tuple[list[Segment], list[Segment]]:
        """Write those segments anew in which a lost row lies that ended in this generation."""
        if not generation.hides:
            return [], []
        hidden = cursor.execute(f"SELECT agent, trace_id, span_id, start_ns FROM {generation.name}.hidden").fetchall()  # fmt: skip
        numbers = [(at, fingerprint(agent.encode() + trace + span)) for agent, trace, span, at in hidden]  # fmt: skip
        add: list[Segment] = []
        remove: list[Segment] = []
        for segment in self._engine.layout.segments:
            if segment.kind != Signal.SPANS.value:
                continue
            prints = self._engine.shelf.prints(segment)
            # a lost row may have had another start than its end has
            if any(
                segment.reaches(at - TRACE_NS, at + TRACE_NS + 1) and number in prints
                for at, number in numbers
            ):
                rows = f"SELECT * FROM {read_parquet([self._engine.shelf.path(segment)])}"
                made = self._engine.shelf.write(
                    cursor, Signal.SPANS, hiding(rows, [generation]), self.next_number(), segment.generation
                )  # fmt: skip
                add += [made] if made is not None else []
                remove.append(segment)
        return add, remove

    # -- compacting, expiring ----------------------------------------------------------------

    async def compact(self) -> Done:
        """Make one segment of several small ones. Whoever calls has the turn."""
        small = self._small()
        if not small:
            return Done()
        made = await self.run(lambda cursor: self._join(cursor, small))
        await self.change("compact", [made] if made is not None else [], small)
        freed = sum(s.size_bytes for s in small) - (made.size_bytes if made is not None else 0)
        return Done(freed_bytes=max(0, freed))

    def _small(self) -> list[Segment]:
        kinds: dict[str, list[Segment]] = {}
        for segment in self._engine.layout.segments:
            small = segment.rows < SMALL_ROWS and segment.size_bytes < SMALL_BYTES
            if small and (segment.kind == RESOURCES or segment.kind in set(Signal)):
                kinds.setdefault(segment.kind, []).append(segment)
        for several in kinds.values():
            if len(several) >= COMPACT_AT:
                several.sort(key=lambda segment: (segment.from_ns, segment.number))
                rows, size, taken = 0, 0, list[Segment]()
                for segment in several:
                    rows, size = rows + segment.rows, size + segment.size_bytes
                    if rows > COMPACT_ROWS or size > COMPACT_BYTES:
                        break
                    taken.append(segment)
                if len(taken) > 1:
                    return taken
        return []

    def _join(self, cursor: duckdb.DuckDBPyConnection, small: Sequence[Segment]) -> Segment | None:
        shelf, kind = self._engine.shelf, small[0].kind
        table = read_parquet([shelf.path(segment) for segment in small])
        newest = max(segment.generation for segment in small)
        if kind == RESOURCES:
            made = shelf.write_other(cursor, kind, f"SELECT DISTINCT * FROM {table}", self.next_number(), newest)  # fmt: skip
        else:
            made = shelf.write(cursor, Signal(kind), f"SELECT * FROM {table}", self.next_number(), newest)  # fmt: skip
        shelf.sync()
        return made

    async def rewrite(self, conditions: Mapping[int, str]) -> list[Pins]:  # fmt: skip
        """Write segments anew with only those rows for which a condition holds: `conditions` by segment number.
        Whoever calls has the turn."""
        chosen = [s for s in self._engine.layout.segments if s.number in conditions]

        def work(cursor: duckdb.DuckDBPyConnection) -> list[Segment]:
            shelf = self._engine.shelf
            made: list[Segment | None] = []
            for segment in chosen:
                rows = f"SELECT * FROM {read_parquet([shelf.path(segment)])} AS r WHERE {conditions[segment.number]}"
                number, kind = self.next_number(), segment.kind
                if kind in set(Signal):
                    made.append(shelf.write(cursor, Signal(kind), rows, number, segment.generation))
                else:
                    made.append(shelf.write_other(cursor, kind, rows, number, segment.generation))
            shelf.sync()
            return [segment for segment in made if segment is not None]

        if not chosen:
            return []
        return await self.change("rewrite", await self.run(work), chosen)

    async def expire(self, expiry: Expiry) -> tuple[dict[Signal, int], int]:
        """Remove what is older: whole segments, and of the others what is old by more than a day, or all that they
        have of an agent. Returns rows and bytes. Whoever calls has the turn."""
        rows: dict[Signal, int] = {}
        segments = self._engine.layout.segments
        old: list[Segment] = []
        partly: dict[int, str] = {}
        for segment in segments:
            if segment.kind not in set(Signal):
                continue
            signal = Signal(segment.kind)
            gone = [segment.to_ns < expiry.before_ns(signal, agent) for agent in segment.agents]
            if gone and all(gone):
                old.append(segment)
            elif any(gone) or any(
                first < expiry.before_ns(signal, agent) - STRADDLE_NS
                for agent, (_, first) in segment.agents.items()
            ):
                partly[segment.number] = _young(signal, segment, expiry)
        count, size = _totals(segments)
        if old:
            await self.change("expire", [], old)
        await self.rewrite(partly)
        after, size_after = _totals(self._engine.layout.segments)
        for kind, number in count.items():
            if less := number - after.get(kind, 0):
                rows[Signal(kind)] = less
        return rows, max(0, size - size_after)


def _young(signal: Signal, segment: Segment, expiry: Expiry) -> str:
    """Return the condition for rows of a segment that are not too old."""
    usual = expiry.before_ns(signal, "")
    others = [
        (a, expiry.before_ns(signal, a)) for a in sorted(segment.agents) if a in expiry.agents
    ]
    if not others:
        return f"{TIME[signal]} >= {usual}"
    cases = " ".join(f"WHEN {_quoted(agent)} THEN {at}" for agent, at in others)
    return f"{TIME[signal]} >= CASE agent {cases} ELSE {usual} END"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _totals(segments: Sequence[Segment]) -> tuple[dict[str, int], int]:
    rows: dict[str, int] = {}
    for segment in segments:
        if segment.kind in set(Signal):
            rows[segment.kind] = rows.get(segment.kind, 0) + segment.rows
    return rows, sum(segment.size_bytes for segment in segments)


async def released(pins: Sequence[Pins]) -> None:
    """Wait until nobody reads what was replaced. Raises StoreError when somebody does for too long."""
    waiting = [asyncio.wrap_future(each.gone) for each in pins]
    if not waiting:
        return
    done, late = await asyncio.wait(waiting, timeout=RELEASE_S)
    for each in done:
        each.result()
    if late:
        raise StoreError(
            f"{len(late)} files are still being read after {RELEASE_S:.0f} s; try again"
        )


def _step_back() -> None:
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
    except OSError as error:
        log.debug("the sealing thread keeps its priority: %s", error)
