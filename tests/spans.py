"""Rows of telemetry to fill stores with, and every store and its questions: for the suites of the contract.

Whoever brings another store adds its opener to `PLACES`; the suites then hold for it as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest

from midwatch.core.counts import Counts
from midwatch.core.spans import form
from midwatch.core.spans.form import (
    CONTENTS,
    LOGS,
    NO_SPAN,
    POINTS,
    SPANS,
    Batch,
    ContentKind,
    Rank,
    Role,
    Row,
)
from midwatch.core.spans.questions import Questions
from midwatch.core.spans.store import Kept, SpanStore
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.questions import ClickHouseQuestions
from midwatch.store.clickhouse.settling import Terms
from midwatch.store.clickhouse.spans import ClickHouseSpans
from midwatch.store.questions.embedded import EmbeddedQuestions
from midwatch.store.questions.memory import MemoryQuestions
from midwatch.store.spans.embedded import Due, EmbeddedSpans
from midwatch.store.spans.manifest import MemoryManifest
from midwatch.store.spans.memory import MemorySpans, Shelf

sys.path.insert(0, str(Path(__file__).parent))
from clickhouse import ClickHouseServer, clickhouse

S = 10**9
NOON_S = 1_790_000_000
NOON_NS = NOON_S * S
GROUPS = {"inbox": "support", "search": "support"}
WINDOWS = {"gpt-4o-mini": 100_000}


@dataclass
class Place:
    """One kind of store. `open` may be called again after `stop`: what was kept is there."""

    open: Callable[[], Awaitable[tuple[SpanStore, Questions]]]
    stores: list[SpanStore] = field(default_factory=list)

    async def opened(self) -> tuple[SpanStore, Questions]:
        store, questions = await self.open()
        self.stores.append(store)
        return store, questions


def _memory(_folder: Path) -> Place:
    shelf = Shelf()

    async def open_() -> tuple[SpanStore, Questions]:
        return MemorySpans(shelf), MemoryQuestions(shelf, GROUPS, WINDOWS)

    return Place(open_)


class _Gathering(EmbeddedSpans):
    """Gathers what spans come to after each commit: behind it, not behind the first question."""

    async def append(self, batch: Batch) -> Kept:
        kept = await super().append(batch)
        # behind a question this would be a line in the log: a span that is longer than the intake takes
        with contextlib.suppress(duckdb.OutOfRangeException):
            await asyncio.to_thread(self._engine.gather, 1)
        return kept


def _embedded(due: Due, kind: type[EmbeddedSpans] = EmbeddedSpans) -> Callable[[Path], Place]:
    def at(folder: Path) -> Place:
        manifest = MemoryManifest()

        async def open_() -> tuple[SpanStore, Questions]:
            store = kind(folder / "spans", manifest, Counts(), due=due)
            await store.open()
            return store, EmbeddedQuestions(store, lambda: GROUPS, lambda: WINDOWS)

        return Place(open_)

    return at


_SERVERS: list[ClickHouseServer] = []


@pytest.fixture(scope="session")  # so before the house counts a test's children
def clickhouse_server() -> Iterator[ClickHouseServer]:
    if _SERVERS:  # of another part of the tests in this process, which waits for all of them
        yield _SERVERS[0]
        return
    with clickhouse() as running:
        _SERVERS.append(running)
        yield running
        _SERVERS.remove(running)


_TABLES = (
    "SELECT name FROM system.tables WHERE database = currentDatabase()"
    " AND engine LIKE '%MergeTree' AND name != 'midwatch_schema'"
)


def _clickhouse(_folder: Path) -> Place:
    # one database for all tests, emptied: making it takes longer than most of them
    address = f"http://127.0.0.1:{_SERVERS[0].port}/test"
    emptied = False

    async def open_() -> tuple[SpanStore, Questions]:
        nonlocal emptied
        client = ClickHouse(address)
        terms = Terms(lambda _: WINDOWS, lambda: ("customer", "task"))
        # nobody else writes: what is stored may be settled at once
        store = ClickHouseSpans(client, Counts(), terms=terms, lag_s=0.0)
        await store.open()
        if not emptied:
            for (name,) in client.ask(_TABLES).rows:
                client.run(f"TRUNCATE TABLE {name}")
            emptied = True
        return store, ClickHouseQuestions(store, lambda: GROUPS, lambda: WINDOWS)

    return Place(open_)


PLACES: dict[str, Callable[[Path], Place]] = {
    "memory": _memory,
    # all in the newest generation; sealed whenever it is settled; sealed after each commit
    "embedded": _embedded(Due()),
    "embedded, sealed": _embedded(Due(age_s=0.0)),
    "embedded, sealed at once": _embedded(Due(rows=1, age_s=0.0)),
    # all in the newest generation, and what it comes to in memory
    "embedded, gathered": _embedded(Due(), _Gathering),
    "clickhouse": _clickhouse,
}


ONCE: dict[str, tuple[str, ...]] = {
    "embedded": ("hot",),
    "embedded, sealed": ("settled",),
    "embedded, sealed at once": ("hot",),
    "embedded, gathered": ("hot",),
    "clickhouse": ("settled",),
}
"""Of stores that show the same before and after settling as another one: when they are asked. All others: both."""


@pytest.fixture(
    params=[
        (name, moment) for name in sorted(PLACES) for moment in ONCE.get(name, ("hot", "settled"))
    ],
    ids=" ".join,
)
async def seen(
    request: pytest.FixtureRequest, clickhouse_server: ClickHouseServer, tmp_path: Path
) -> AsyncIterator[tuple[Place, bool]]:
    """Yield a place, and whether what is kept is settled before it is asked for: the answers must be the same."""
    name, moment = request.param
    made = PLACES[name](tmp_path)
    yield made, moment == "settled"
    for store in made.stores:
        await store.stop()


@pytest.fixture
async def ask(seen: tuple[Place, bool]) -> Any:
    """Return a function that keeps rows and returns the questions."""
    place, settled = seen

    async def keep(*rows: Row, **more: Any) -> Any:
        store, questions = await place.opened()
        await store.append(batch(*rows, **more))
        if settled:
            await store.settle(NOON_S + 86_400.0)
        return questions

    return keep


@pytest.fixture(params=sorted(PLACES))
async def place(
    request: pytest.FixtureRequest, clickhouse_server: ClickHouseServer, tmp_path: Path
) -> AsyncIterator[Place]:
    made = PLACES[request.param](tmp_path)
    yield made
    for store in made.stores:
        await store.stop()


def trace_id(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def span_id(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=8).digest()


def span(name: str = "a", trace: str = "t", /, parent: str | None = None, **more: Any) -> Row:
    """Return an ended span of `inbox`; `name` is its id and its name, `start_s` counts from noon."""
    row = NO_SPAN[:]
    start_s = more.pop("start_s", 0.0)
    values: dict[str, Any] = {
        "agent": "inbox",
        "trace_id": trace_id(trace),
        "span_id": span_id(name),
        "parent_id": None if parent is None else span_id(parent),
        "start_ns": NOON_NS + round(start_s * S),
        "duration_ns": S,
        "name": name,
        **more,
    }
    for column, value in values.items():
        row[SPANS.at[column]] = value
    if row[form.RANK] == Rank.OPEN:
        row[form.DURATION_NS] = None
    return row


def call(name: str = "a", trace: str = "t", /, parent: str | None = None, **more: Any) -> Row:
    """Return a model call of 100 tokens in, 40 of them cached, 20 out, for 5 nano-dollars."""
    values: dict[str, Any] = {
        "role": Role.CALL.value,
        "provider": "openai",
        "model": "gpt-4o-mini",
        "input_tokens": 100,
        "cached_tokens": 40,
        "output_tokens": 20,
        "cost_nusd": 5,
    }
    return span(name, trace, parent, **{**values, **more})


def content(of: Row, key: str, text: str, kind: ContentKind = ContentKind.INPUT, place: int = 0) -> Row:  # fmt: skip
    """Return a content of a span; say `content_count` in the span yourself."""
    return CONTENTS.of(
        agent=of[form.AGENT],
        trace_id=of[form.TRACE_ID],
        span_id=of[form.SPAN_ID],
        place=place,
        start_ns=of[form.START_NS],
        kind=kind.value,
        key=key,
        text=text,
        is_json=False,
        characters=len(text),
        hash=span_id(text),
    )


def point(name: str = "p", **more: Any) -> Row:
    values: dict[str, Any] = {
        "point_id": trace_id(name),
        "agent": "inbox",
        "metric": "queue",
        "kind": 0,
        "temporality": 0,
        "time_ns": NOON_NS,
        "value": 1.5,
    }
    return POINTS.of(**{**values, **more})


def record(name: str = "l", **more: Any) -> Row:
    """Return a log record."""
    values: dict[str, Any] = {
        "log_id": trace_id(name),
        "agent": "inbox",
        "time_ns": NOON_NS,
        "body": name,
    }
    return LOGS.of(**{**values, **more})


def batch(*spans: Row, **more: Any) -> Batch:
    return Batch(spans=list(spans), **more)
