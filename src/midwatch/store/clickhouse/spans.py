"""Telemetry on ClickHouse: `SpanStore` for hubs of many machines, over its HTTP interface.

One thread writes, in group commits; what `append` returned is in parts that were synced. Hubs know nothing of each
other: what one of them stored, the next one finds in the tables, and rows that both were given in one moment are one
in each question (`schema`).
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from midwatch.core.counts import Counts
from midwatch.core.errors import SetupError, StoreError
from midwatch.core.spans.form import Batch, Rank, Signal
from midwatch.core.spans.keeping import Expiry
from midwatch.core.spans.store import Footprint, Kept, Proof, Selector, Settled
from midwatch.core.telemetry import SampleRule
from midwatch.store.clickhouse import (
    bounding,
    expiring,
    gone,
    levels,
    minutes,
    schema,
    settling,
    sweeping,
    traces,
)
from midwatch.store.clickhouse.client import QUESTION_S, ClickHouse
from midwatch.store.clickhouse.expiring import CHANGE_S
from midwatch.store.clickhouse.footprint import footprint_of, size_by_part
from midwatch.store.clickhouse.letting import Letting
from midwatch.store.clickhouse.probing import probe
from midwatch.store.clickhouse.rows import COLUMNS, Lines, encode
from midwatch.store.clickhouse.schema import NAMES
from midwatch.store.clickhouse.selecting import Selection
from midwatch.store.clickhouse.sifting import Key, Sifter
from midwatch.store.clickhouse.sql import views
from midwatch.store.clickhouse.sums import Ask
from midwatch.store.group import GroupCommit

COMMIT_S: Final = 0.1
"""Distance of commits while the load lasts: each is a part of the table, which the server merges later."""

READERS: Final = 4
"""Questions of one hub that are asked at the same time."""

EXPORTERS: Final = 2
"""Files that one hub has made at the same time: apart from questions, which do not wait for them."""

LAG_S: Final = 10.0
"""What was stored is settled so much later: until then an insert may be seen later than its time, and two hubs that were
given one span at one time may not know it."""

MUCH: Final = 1_000_000
"""Rows from which on they are not counted each time that somebody asks."""

COUNT_EVERY_S: Final = 600.0

MAX_UNSURE: Final = 200_000
"""Spans that are remembered because the answer to their insert was lost."""

_ORDER: Final = (Signal.CONTENTS, Signal.LOGS, Signal.POINTS, Signal.SPANS)
"""Spans last: until they are there, a batch that failed halfway is not seen, and is stored when it comes again."""

T = TypeVar("T")


class ClickHouseSpans:
    """The store of one of several hubs. `open` before anything else."""

    def __init__(
        self,
        client: ClickHouse,
        counts: Counts,
        *,
        keep_s: Mapping[Signal, float] | None = None,
        terms: settling.Terms | None = None,
        lag_s: float = LAG_S,
    ) -> None:
        """`lag_s`: how long what was stored waits until it is settled."""
        self._client = client
        self._counts = counts
        self._keep_s = dict(keep_s or {})
        self._terms = settling.Terms() if terms is None else terms
        self._lag_s = lag_s
        self._holder = uuid.uuid4().hex
        self._writing = ThreadPoolExecutor(1, "spans-write")
        self._reading = ThreadPoolExecutor(READERS, "spans-read")
        # apart from the writing one: what is removed may take minutes, and nobody's spans wait for it
        self._tidying = ThreadPoolExecutor(1, "spans-tidy")
        self._exporting = ThreadPoolExecutor(EXPORTERS, "spans-export")
        self._group = GroupCommit[Batch, Kept](
            "spans", self._write, self._writing, counts, interval_s=COMMIT_S
        )
        self._resources: set[bytes] = set()
        self._unsure: set[Key] = set()
        self._held: tuple[float, Footprint] | None = None
        self._stopped = False

    # -- life --------------------------------------------------------------------------------

    async def open(
        self, after: Callable[[list[Kept]], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        """Create what is missing. `after` sees what was committed before its answer. Raises SetupError."""
        await asyncio.get_running_loop().run_in_executor(self._writing, prepare, self._client)
        self._group.after = after
        self._group.start()

    async def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        await self._group.stop()
        self._writing.shutdown(wait=False)
        self._reading.shutdown(wait=False)
        self._tidying.shutdown(wait=False)
        self._exporting.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    # -- writing -----------------------------------------------------------------------------

    async def append(self, batch: Batch) -> Kept:
        self._alive()
        return await self._group.submit(batch, len(batch) + len(batch.contents), batch.size_bytes)

    def _write(self, group: list[Batch]) -> list[Kept | StoreError]:
        try:
            return list(self._commit(group))
        except StoreError as error:
            if not error.permanent or len(group) == 1:
                raise
        results: list[Kept | StoreError] = []
        for batch in group:
            # one that the server will never take fails alone
            try:
                results += self._commit([batch])
            except StoreError as error:
                results.append(error)
        return results

    def _commit(self, group: list[Batch]) -> list[Kept]:
        sifter = Sifter(self._client, group, self._unsure)
        kept = [sifter.sift(batch) for batch in group]
        resources = {key: text for batch in group for key, text in batch.resources.items()}
        self._add_resources(resources)
        lines = Lines(resources)
        for signal in _ORDER:
            made = sifter.lines(signal, lines)
            if not made:
                continue
            try:
                self._client.insert(NAMES[signal], COLUMNS[signal], made, uuid.uuid4().hex)
            except StoreError as error:
                if signal is Signal.SPANS and not error.permanent:
                    self._doubt(sifter.keys)
                raise
        self._unsure.difference_update(sifter.keys)
        return kept

    def _doubt(self, keys: Any) -> None:
        if len(self._unsure) > MAX_UNSURE:
            self._unsure.clear()
        self._unsure.update(keys)

    def _add_resources(self, resources: Mapping[bytes, str]) -> None:
        new = {key: text for key, text in resources.items() if key not in self._resources}
        if not new:
            return
        lines = [encode([key, text]) for key, text in new.items()]
        self._client.insert("midwatch_resources", ["resource_id", "text"], lines, uuid.uuid4().hex)
        if len(self._resources) > 100_000:
            self._resources.clear()
        self._resources.update(new)

    # -- open and lost -----------------------------------------------------------------------

    async def close_lost(self, run_id: str, at: float, *, final: bool = True) -> int:
        at_ns = round(at * 1e9)

        def work() -> int:
            if final:
                line = encode([run_id, at_ns, time.time_ns()])
                self._client.insert(
                    "midwatch_lost", ["run_id", "at_ns", "told"], [line], uuid.uuid4().hex
                )
            return self._lose("run_id = {run:String}", {"run": run_id}, at_ns)

        return await self._in_writer(work)

    async def close_silent(self, before: float, at: float) -> int:
        values = {"before": round(before * 1e9)}
        where = "run_id IS NULL AND start_ns < {before:Int64}"
        return await self._in_writer(lambda: self._lose(where, values, round(at * 1e9)))

    def _lose(self, where: str, values: Mapping[str, Any], at_ns: int) -> int:
        table, chosen = NAMES[Signal.SPANS], f"rank = {Rank.OPEN.value} AND {where}"
        count = self._client.ask(f"SELECT count() FROM {table} FINAL WHERE {chosen}", values)
        if not count.rows[0][0]:
            return 0
        given = {
            "rank": str(Rank.LOST.value),
            "duration_ns": f"greatest(0, {at_ns} - start_ns)",
            "version": str(Rank.LOST.value),
        }
        names = ", ".join(f"`{name}`" for name in COLUMNS[Signal.SPANS])
        taken = ", ".join(given.get(name, f"`{name}`") for name in COLUMNS[Signal.SPANS])
        # once more does nothing: what is lost is open no longer
        self._client.run(
            f"INSERT INTO {table} ({names}) SELECT {taken} FROM {table} FINAL WHERE {chosen}",
            values,
        )
        return count.rows[0][0]

    async def open_runs(self) -> Mapping[str, int]:
        told = await self._asked(
            f"SELECT assumeNotNull(run_id), count() FROM {NAMES[Signal.SPANS]} FINAL"
            f" WHERE rank = {Rank.OPEN.value} AND run_id IS NOT NULL GROUP BY 1"
        )
        return {row[0]: row[1] for row in told}

    async def newest(self, since_ns: int) -> Mapping[str, int]:
        told = await self._asked(
            f"SELECT agent, max(start_ns) FROM {NAMES[Signal.SPANS]} WHERE start_ns >= {int(since_ns)} GROUP BY agent"
        )
        return {row[0]: row[1] for row in told}

    # -- what time and people do -------------------------------------------------------------

    async def settle(self, now: float) -> Settled:
        def work() -> tuple[settling.Round, int]:
            done = settling.settle(
                self._client, self._terms, round(self._lag_s * 1e3), lambda: self._stopped
            )
            left = (
                f"SELECT count() FROM {NAMES[Signal.SPANS]} FINAL"
                " WHERE rank = 0 OR stored_ms > (SELECT max(upto_ms) FROM midwatch_applied)"
            )
            return done, self._client.ask(left).rows[0][0]

        done, left = await self._in_tidier(work)
        for reason, number in done.cut_off.items():
            self._counts.add("uncounted", reason, number)
        for by, number in done.folded.items():
            self._counts.add("values_folded", by, number)
        if not self._keep_s:
            return Settled(sealed=done.spans, left=left)
        usual = {signal: round((now - kept) * 1e9) for signal, kept in self._keep_s.items()}
        gone = await self.expire(Expiry(usual))
        return Settled(
            sealed=done.spans, expired=gone.expired, freed_bytes=gone.freed_bytes, left=left
        )

    def letting(
        self,
        rules: Callable[[], Sequence[SampleRule]],
        group: Callable[[str], str | None],
        **more: float,
    ) -> Letting:
        """Return who samples this store. `rules` and `group` say what the fleet file does at the time; `more` is
        Letting's."""
        return Letting(
            self._in_tidier, self._client, self._terms, rules, group, self._counts, **more
        )

    async def expire(self, expiry: Expiry) -> Settled:
        """Let go of what is too old; see `keeping.Expires`."""
        if not expiry.lets_go:
            self._alive()
            return Settled()

        self._held = None

        def work() -> Settled:
            before = self._size()
            went = expiring.expire(self._client, expiry)
            settling.mend(self._client)
            return Settled(expired=went, freed_bytes=max(0, before - self._size()) if went else 0)

        return await self._in_tidier(work)

    async def drop(self, what: Selector) -> Proof:
        chosen = Selection(what)
        self._held = None

        def work() -> Proof:
            size = self._size()
            found = {s: self._count(s, chosen.rows(s), chosen.values) for s in sorted(what.signals)}
            if found.get(Signal.SPANS):
                mine = f"SELECT trace_id FROM {NAMES[Signal.SPANS]} FINAL WHERE {chosen.rows(Signal.SPANS)}"
                settling.mark_dirty(self._client, mine, chosen.values)
            if Signal.SPANS in found:
                # nobody counts these: they tell of spans that went before
                expiring.delete_any(self._client, gone.GONE, chosen.lines(), chosen.values)
            # spans last: they say which contents and log records are chosen
            for signal in sorted(found, key=_ORDER.index):
                if found[signal]:
                    expiring.delete(self._client, NAMES[signal], chosen.rows(signal), chosen.values)
            settling.mend(self._client)
            # what sampling let go before may be of it, too
            sweeping.give_back(self._client, 0.0)
            left = {s: self._count(s, chosen.rows(s), chosen.values) for s in found}
            return Proof(found, left, max(0, size - self._size()))

        return await self._in_tidier(work)

    def _count(self, signal: Signal, where: str, values: Mapping[str, Any]) -> int:
        told = self._client.ask(
            f"SELECT count() FROM {NAMES[signal]} FINAL WHERE {where}", values, timeout_s=CHANGE_S
        )
        return told.rows[0][0]

    # -- looking -----------------------------------------------------------------------------

    async def with_client(self, work: Callable[[ClickHouse], T]) -> T:
        """Return what `work` makes of the database, in a reading thread. Raises StoreError."""
        return await self._in_reader(lambda: work(self._client))

    async def in_exporter(self, work: Callable[[ClickHouse], T]) -> T:
        """Return what `work` makes of the database in minutes, in a thread for that. Raises StoreError."""
        self._alive()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._exporting, work, self._client)

    async def _asked(self, sql: str) -> list[list[Any]]:
        return await self._in_reader(lambda: self._client.ask(sql).rows)

    async def footprint(self) -> Footprint:
        """Return what is held; of much it is what was held a while ago, because counting it reads all keys."""
        if self._held is not None:
            counted_at, held = self._held
            much = sum(one.rows for one in held.signals.values()) > MUCH
            if much and time.monotonic() - counted_at < COUNT_EVERY_S:
                return held
        held = await self._in_reader(lambda: footprint_of(self._client))
        self._held = time.monotonic(), held
        return held

    def _size(self) -> int:
        return sum(size_by_part(self._client).values())

    async def probe(self) -> None:
        await self._in_writer(lambda: probe(self._client, self._holder))

    async def question(self, work: Callable[[Ask], T], timeout_s: float = QUESTION_S) -> T:
        """Return what `work` makes of answers, in a reading thread. Raises StoreError."""

        def ask(sql: str, values: Mapping[str, Any], /) -> list[list[Any]]:
            return self._client.ask(sql, values, timeout_s=timeout_s).rows

        return await self._in_reader(lambda: work(ask))

    def _alive(self) -> None:
        if self._stopped:
            raise StoreError("the telemetry store is closed", permanent=True)

    async def _in_writer(self, work: Callable[[], T]) -> T:
        self._alive()
        return await asyncio.get_running_loop().run_in_executor(self._writing, work)

    async def _in_tidier(self, work: Callable[[], T]) -> T:
        self._alive()
        return await asyncio.get_running_loop().run_in_executor(self._tidying, work)

    async def _in_reader(self, work: Callable[[], T]) -> T:
        self._alive()
        return await asyncio.get_running_loop().run_in_executor(self._reading, work)


def prepare(client: ClickHouse) -> None:
    """Bring a database to this version's tables. Raises SetupError."""
    try:
        client.run(f"CREATE DATABASE IF NOT EXISTS {client.database}")
        client.run(schema.MARKS)
        told = client.ask("SELECT max(version) FROM midwatch_schema").rows[0][0]
        if told < schema.VERSION:
            older = (*traces.older(), *minutes.older()) if told else ()
            for statement in (*schema.statements(), *_own(), *older, *views(client.database)):
                client.run(statement)
            client.insert(
                "midwatch_schema", ["one", "version"], [encode([1, schema.VERSION])], "first"
            )
    except StoreError as error:
        raise SetupError(
            f"cannot use hub.stores.telemetry: {error}; see the fleet file and the server"
        ) from None
    if told > schema.VERSION:
        raise SetupError(
            f"{client.where} was written by a newer Midwatch (schema {told}, this one knows {schema.VERSION}): "
            "install that version again, or give hubs of this version another database"
        )


def _own() -> list[str]:
    settings = schema.SETTINGS
    return [
        traces.table(settings),
        minutes.table(settings),
        *settling.tables(settings),
        *levels.tables(settings),
        *sweeping.tables(settings),
        gone.table(settings),
        bounding.table(settings),
    ]
