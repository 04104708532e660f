"""Telemetry in this process: DuckDB for what is new, Parquet for what stays. `SpanStore` for one hub.

One thread writes in group commits, one seals, two read. What `append` returned is in the generation's log and synced;
nothing else is written on that way. The layout of the folder:

    g00000007.duckdb, .wal         the generation that is written to, and those that wait to be sealed
    segments/spans-00000012.…      what is sealed: Parquet, and the fingerprints of its rows
    spill/                         what a query could not hold in memory
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import duckdb

from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.spans.form import RUN_ID, START_NS, Batch, Signal
from midwatch.core.spans.keeping import Expiry
from midwatch.core.spans.store import Footprint, Kept, Proof, Selector, Settled
from midwatch.core.telemetry import SampleRule
from midwatch.store import identity
from midwatch.store.duck import READ_TIMEOUT_S, READERS, Asked, answered, first_line
from midwatch.store.group import GroupCommit
from midwatch.store.spans.dropping import Dropper
from midwatch.store.spans.engine import Engine, Open, View
from midwatch.store.spans.footprint import footprint_of, newest_of
from midwatch.store.spans.gathered import Gatherer
from midwatch.store.spans.keys import Key
from midwatch.store.spans.letting import Letting
from midwatch.store.spans.manifest import Manifest
from midwatch.store.spans.rotating import Due as Due
from midwatch.store.spans.rotating import Rotation
from midwatch.store.spans.sealing import Sealer, Settling
from midwatch.store.spans.selecting import Selection
from midwatch.store.spans.sifting import Sifted, Sifter, lost
from midwatch.store.spans.tidying import Tidier

COMMIT_S: Final = 0.025
"""Distance of commits while the load lasts: a post of 256 spans waits for at most one of them."""

MAX_FROZEN: Final = 4
"""Generations that may wait to be sealed; with more, sealing is behind and nothing more is taken."""

BEHIND_S: Final = 5.0
"""How long a batch waits then before it is refused."""

SWEEP_S: Final = 86_400.0
"""How often it is looked through for what speaks of nothing any more."""

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True)
class _Since:
    """What was sealed since somebody asked."""

    sealed: int = 0
    sampled: int = 0
    freed_bytes: int = 0


class EmbeddedSpans:
    """The store of one hub. `open` before anything else; `after` sees what was committed before its answer."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        counts: Counts,
        *,
        due: Due | None = None,
        keep_s: Mapping[Signal, float] | None = None,
        settling: Settling | None = None,
        clock: Callable[[], float] = time.time,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._engine = Engine(folder)
        self._gatherer = Gatherer(self._engine.gather, self._engine.left)
        self._manifest = manifest
        self._counts = counts
        self._due = due if due is not None else Due()
        self._rotation = Rotation(self._due, self._rotate, self._unrotated)
        self._keep_s = dict(keep_s or {})
        self._clock = clock
        self._writing = ThreadPoolExecutor(1, "spans-write")
        self._reading = ThreadPoolExecutor(READERS, "spans-read")
        self._group = GroupCommit[Batch, Kept](
            "spans", self._write, self._writing, counts, interval_s=COMMIT_S
        )
        self._sealer = Sealer(self._engine, manifest, settling, step)
        self._dropper = Dropper(self._engine, self._sealer)
        self._tidier = Tidier(self._engine, self._sealer)
        self._swept_at = clock()
        self._step = step
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._sifter: Sifter | None = None
        self._identity: identity.Identity | None = None
        self._began = 0.0
        self._rotated = asyncio.Event()
        self._sealed = asyncio.Event()
        self._since = _Since()
        self._sealing: asyncio.Task[None] | None = None
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- life --------------------------------------------------------------------------------

    async def open(
        self, after: Callable[[list[Kept]], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        """Open the folder, which must be this process's alone. Raises SetupError that says what to do."""
        self._loop = asyncio.get_running_loop()
        named = await self._manifest.load()
        await self._loop.run_in_executor(self._writing, self._engine.start, named)
        await self._loop.run_in_executor(self._writing, self._begun)
        self._sealer.start(named.number)
        self._group.after = after
        self._group.start()
        if self._engine.layout.frozen:
            self._rotated.set()
        self._sealing = asyncio.create_task(self._seal_on(), name="spans sealing")

    async def stop(self) -> None:
        """Write what waits and let go. What is not sealed is sealed after the next start."""
        if self._stopped:
            return
        self._stopped = True
        await self._group.stop()
        if self._sealing is not None:
            self._sealing.cancel()
            await asyncio.wait([self._sealing])
        loop = asyncio.get_running_loop()
        async with self._sealer.turn:
            await loop.run_in_executor(None, self._sealer.stop)
        # DuckDB refuses to close a connection that a thread is not quite done with
        await loop.run_in_executor(None, partial(self._reading.shutdown, cancel_futures=True))
        await loop.run_in_executor(None, self._gatherer.stop)
        await loop.run_in_executor(self._writing, self._engine.close)
        self._writing.shutdown(wait=False)

    def _begun(self) -> None:
        """Take note of a new generation. In the writing thread."""
        self._cursor = self._engine.cursor()
        self._sifter = Sifter(self._engine)
        self._identity = identity.identity_of(self._engine.layout.hot.path)
        self._began = time.monotonic()

    def _rotate(self) -> None:
        self._engine.rotate()
        self._begun()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._rotated.set)

    # -- writing -----------------------------------------------------------------------------

    async def append(self, batch: Batch) -> Kept:
        self._alive()
        if len(self._engine.layout.frozen) >= MAX_FROZEN:
            await self._room()
        return await self._group.submit(batch, len(batch), batch.size_bytes)

    async def _room(self) -> None:
        """Wait until a generation is sealed. Raises StoreError when that takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEHIND_S):
                while len(self._engine.layout.frozen) >= MAX_FROZEN:
                    self._sealed.clear()
                    await self._sealed.wait()
                return
        raise StoreError(
            f"{MAX_FROZEN} generations wait to be sealed; send it again in a moment, and see the hub's log"
        )

    @property
    def waiting(self) -> int:
        """Spans, points and log records that wait for their commit."""
        return self._group.waiting

    def gauges(self) -> dict[str, int]:
        """Return how it is, for `/metrics`: nothing of it is looked up."""
        layout = self._engine.layout
        return {
            "spans_waiting": self.waiting,
            "spans_unsealed": sum(each.rows[Signal.SPANS] for each in layout.generations),
            "spans_open": len(self._engine.opened.spans),
            "spans_frozen_generations": len(layout.frozen),
            "spans_segments": len(layout.segments),
        }

    def _write(self, group: list[Batch]) -> list[Kept | StoreError]:
        """Write one group in one transaction; a batch that cannot be written fails alone."""
        try:
            return list(self._commit(group))
        except (duckdb.DataError, duckdb.ProgrammingError, TypeError, ValueError, OverflowError) as error:  # fmt: skip
            if len(group) == 1:
                raise StoreError(f"cannot be stored: {first_line(error)}", permanent=True) from None
        except duckdb.Error as error:
            self._recover(error)
            raise self._unwritten(error) from None
        results: list[Kept | StoreError] = []
        for batch in group:
            try:
                results += self._write([batch])
            except StoreError as error:
                results.append(error)
        return results

    def _commit(self, group: list[Batch]) -> list[Kept]:
        cursor, sifter = self._ready()
        sifted = Sifted()
        with self._engine.pinned() as layout:
            kept = [sifter.sift(cursor, layout, batch, sifted) for batch in group]
            self._add(cursor, sifted)
        self._rotation.behind(self._engine.layout.hot)
        if sifted.untold:
            log.warning("%d announcements of spans were not kept: too many are open", sifted.untold)
        return kept

    def _add(self, cursor: duckdb.DuckDBPyConnection, sifted: Sifted) -> None:
        """Commit, and let memory know it in the same moment: a view sees both or neither."""
        hot = self._engine.layout.hot
        with self._engine.lock:
            cursor.begin()
            try:
                hot.write(cursor, sifted.writes)
                cursor.commit()
            except BaseException:
                with contextlib.suppress(duckdb.Error):  # the first error is the one to tell
                    cursor.rollback()
                raise
            hot.wrote(sifted.writes)
            self._learn(sifted)

    def _learn(self, sifted: Sifted) -> None:
        engine = self._engine
        keys = engine.layout.hot.keys
        assert keys is not None, "the generation that is written to knows its keys"
        for signal, more in sifted.keys.items():
            keys[signal].update(more)
        opened = engine.opened
        if sifted.opened or sifted.closed or sifted.writes.lost:
            opened.spans.update(sifted.opened)
            for key in sifted.closed:
                opened.spans.pop(key, None)
            opened.version += 1
        engine.lost.update(sifted.writes.lost)

    def _ready(self) -> tuple[duckdb.DuckDBPyConnection, Sifter]:
        if self._engine.base is None and not self._stopped:
            self._engine.open(self._engine.layout.segments)  # an earlier failure closed everything
            self._begun()
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._rotated.set)
        if self._cursor is None or self._sifter is None:
            raise StoreError("the telemetry store is closed", permanent=True)
        return self._cursor, self._sifter

    def _recover(self, error: duckdb.Error) -> None:
        """After a fatal error DuckDB refuses all further work until everything is opened anew."""
        if isinstance(error, duckdb.FatalException | duckdb.InternalError | duckdb.IOException):
            log.error("the telemetry store failed and is opened anew: %s", first_line(error))
            self._engine.close()

    def _unrotated(self, error: Exception) -> None:
        with contextlib.suppress(
            duckdb.Error
        ):  # one that cannot be closed is told when it is opened anew
            if isinstance(error, duckdb.Error):
                self._recover(error)
            else:
                self._engine.close()  # half a rotation may have been done: all is read anew
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._counts.add, "keeping_failures", "rotation")

    def _unwritten(self, error: Exception) -> StoreError:
        return StoreError(
            f"the telemetry store cannot write: {first_line(error)}; see the disk of {self._engine.folder}"
        )

    def _alive(self) -> None:
        if self._stopped or self._sealing is None:
            raise StoreError("the telemetry store is closed; open it anew")

    async def _in_writer(self, work: Callable[[], T]) -> T:
        """Return what `work` does in the writing thread. Raises StoreError."""
        self._alive()

        def safe() -> T:
            try:
                return work()
            except duckdb.Error as error:
                self._recover(error)
                raise self._unwritten(error) from None

        return await asyncio.get_running_loop().run_in_executor(self._writing, safe)

    # -- what is open ------------------------------------------------------------------------

    async def close_lost(self, run_id: str, at: float, *, final: bool = True) -> int:
        at_ns = round(at * 1e9)
        over = {run_id: at_ns} if final else {}
        return await self._in_writer(
            lambda: self._lose(lambda o: o.row[RUN_ID] == run_id, at_ns, over)
        )

    async def close_silent(self, before: float, at: float) -> int:
        before_ns, at_ns = round(before * 1e9), round(at * 1e9)
        return await self._in_writer(
            lambda: self._lose(
                lambda o: o.row[RUN_ID] is None and o.row[START_NS] < before_ns, at_ns, {}
            )
        )

    def _lose(self, chosen: Callable[[Open], bool], at_ns: int, runs: Mapping[str, int]) -> int:
        cursor, _ = self._ready()
        found: list[Key] = [k for k, each in self._engine.opened.spans.items() if chosen(each)]
        sifted = Sifted()
        sifted.writes.lost = dict(runs)
        sifted.writes.rows[Signal.SPANS] = [
            lost(self._engine.opened.spans[key].row, at_ns) for key in found
        ]
        sifted.keys[Signal.SPANS] = dict.fromkeys(found, 1)
        sifted.closed = set(found)
        if found or runs:
            self._add(cursor, sifted)
            self._rotation.behind(self._engine.layout.hot)
        return len(found)

    async def open_runs(self) -> Mapping[str, int]:
        def count() -> dict[str, int]:
            runs: dict[str, int] = {}
            for each in self._engine.opened.spans.values():
                if (run_id := each.row[RUN_ID]) is not None:
                    runs[run_id] = runs.get(run_id, 0) + 1
            return runs

        return await self._in_writer(count)

    async def newest(self, since_ns: int) -> Mapping[str, int]:
        return await self.read(lambda view: newest_of(view, since_ns))

    # -- settling, dropping ------------------------------------------------------------------

    async def settle(self, now: float) -> Settled:
        await self._in_writer(self._rotate_if_due)
        expired: dict[Signal, int] = {}
        async with self._sealer.turn:
            await self._seal_all()
            while True:
                done = await self._sealer.compact()
                if not done.freed_bytes:
                    break
                self._since.freed_bytes += done.freed_bytes
            if self._keep_s:
                usual = {s: round((now - kept) * 1e9) for s, kept in self._keep_s.items()}
                expired, freed = await self._sealer.expire(Expiry(usual))
                self._since.freed_bytes += freed
        since, self._since = self._since, _Since()
        left = sum(each.rows[Signal.SPANS] for each in self._engine.layout.generations)
        left += len(self._engine.opened.spans)
        return Settled(since.sealed, since.sampled, expired, since.freed_bytes, left)

    async def expire(self, expiry: Expiry) -> Settled:
        """Let go of what is sealed and too old; see `keeping.Expires`."""
        self._alive()
        if not expiry.lets_go:
            return Settled()
        async with self._sealer.turn:
            rows, freed = await self._sealer.expire(expiry)
            if self._swept_at + SWEEP_S <= self._clock():
                self._swept_at = self._clock()
                await self._tidier.sweep(expiry)
            else:
                await self._tidier.join(expiry)
        return Settled(expired=rows, freed_bytes=freed)

    def letting(self, rules: Callable[[], Sequence[SampleRule]], group: Callable[[str], str | None], steady: Callable[[], float] = time.monotonic) -> Letting:  # fmt: skip
        """Return what samples this store. `group` is an agent's; `steady` returns seconds that nobody sets."""
        return Letting(self._engine, self._sealer, rules, group, self._counts, steady)

    def _rotate_if_due(self) -> None:
        self._ready()
        if self._due.old(self._engine.layout.hot, time.monotonic() - self._began):
            self._rotate()

    async def _seal_on(self) -> None:
        """Seal whatever was frozen, as long as the store is open."""
        while True:
            await self._rotated.wait()
            self._rotated.clear()
            try:
                async with self._sealer.turn:
                    await self._seal_all()
            except StoreError as error:
                self._counts.add("keeping_failures", "store")
                log.error("telemetry waits to be sealed: %s", error)  # noqa: TRY400  no trace: it is the disk
            except Exception:
                # what settles is not ours: its fault must not end sealing, or soon nothing more can be taken
                self._counts.add("keeping_failures", "fault")
                log.exception("telemetry waits to be sealed")

    async def _seal_all(self) -> None:
        while self._engine.layout.frozen:
            done = await self._sealer.seal()
            self._sealed.set()
            self._since.sealed += done.rows
            if done.unsettled:
                self._counts.add("uncounted", "generation")
            if done.repeated:
                self._counts.add("duplicates", "span", done.repeated)
            self._since.sampled += done.sampled
            self._since.freed_bytes += done.freed_bytes

    async def drop(self, what: Selector) -> Proof:
        self._alive()
        selection = Selection(what)
        async with self._sealer.turn:
            try:
                await self._dropper.choose(selection)
                # what is in a generation can only be dropped with it: from its log, too
                opened = await self._in_writer(lambda: self._forget(selection))
                await self._seal_all()
                proof = await self._dropper.drop(selection, opened)
                if Signal.SPANS in what.signals:
                    await self._tidier.forget()
                return proof
            finally:
                await self._dropper.forget(selection)

    def _forget(self, selection: Selection) -> int:
        """Freeze the generation, and leave out of the next those open spans that are dropped; return how many."""
        self._ready()
        chosen = self._dropper.opened(selection)
        with self._engine.lock:
            for key in chosen:
                self._engine.opened.spans.pop(key, None)
            self._engine.opened.version += 1
        self._rotate()
        return len(chosen)

    # -- looking -----------------------------------------------------------------------------

    async def read(self, work: Callable[[View], T], timeout_s: float = READ_TIMEOUT_S) -> T:
        """Return what `work` makes of a view, in a reading thread. Raises StoreError."""
        self._alive()

        def run(asked: Asked) -> T:
            cursor = self._engine.cursor()
            asked.append(cursor)
            try:
                with self._engine.view(cursor) as view:
                    found = work(view)
                self._gatherer.behind(view.summed)
                return found
            finally:
                asked.clear()
                cursor.close()

        return await answered(self._reading, run, timeout_s)

    async def footprint(self) -> Footprint:
        return await self.read(lambda view: footprint_of(view, self._engine))

    async def probe(self) -> None:
        now = self._clock()

        def write() -> None:
            cursor, _ = self._ready()
            hot = self._engine.layout.hot
            identity.check(hot.path, self._identity)
            cursor.execute(f"INSERT INTO {hot.name}.probe VALUES (?)", [now])

        await self._in_writer(write)

        def look(view: View) -> float | None:
            found = view.cursor.execute(f"SELECT max(written) FROM {view.layout.hot.name}.probe").fetchone()  # fmt: skip
            return found[0] if found else None

        seen = await self.read(look, 2.0)
        if seen is None or seen < now:
            raise StoreError("the telemetry store does not show what was just written")
