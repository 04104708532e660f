"""What lies beside the signals: joined when there is much of it, gone with what it speaks of."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.counts import Counts
from midwatch.core.sketch import Sketch, bucket
from midwatch.core.spans.form import Signal
from midwatch.core.spans.keeping import Expiry
from midwatch.core.spans.rollup import Key, Sum
from midwatch.core.spans.store import Selector
from midwatch.store.spans import tidying
from midwatch.store.spans.embedded import SWEEP_S, Due, EmbeddedSpans
from midwatch.store.spans.engine import View
from midwatch.store.spans.manifest import MemoryManifest
from midwatch.store.spans.minutes import COLUMNS, read
from midwatch.store.spans.sealing import Beside
from midwatch.store.spans.settled import Books, Terms
from midwatch.store.spans.tidying import MANY

sys.path.insert(0, str(Path(__file__).parents[3]))
from spans import NOON_NS, NOON_S, S, batch, span, trace_id

TERMS = Terms(lambda: {"inbox": "support"})


def settling(view: View, generation: int, spans: str, contents: str) -> Beside:
    """Write a verdict for each span that names its session, and its sums."""
    verdicts = f"SELECT agent, trace_id, span_id, session, {generation} AS generation FROM {spans}"
    sums = Books(TERMS)(view, generation, spans, contents).tables
    return Beside(tables={**sums, "verdicts": verdicts})


class House:
    def __init__(self, folder: Path) -> None:
        self.folder, self.now, self.manifest = folder, float(NOON_S), MemoryManifest()
        self.store = EmbeddedSpans(
            folder, self.manifest, Counts(), due=Due(age_s=0.0), settling=settling, clock=lambda: self.now
        )  # fmt: skip

    async def put(self, *rows: Any, resources: Mapping[bytes, str] | None = None) -> None:
        await self.store.append(batch(*rows, resources=dict(resources or {})))
        await self.store.settle(self.now)

    def segments(self, kind: str) -> int:
        return sum(1 for each in self.manifest.named.segments if each.kind == kind)

    async def rows(self, kind: str) -> list[tuple[Any, ...]]:
        def ask(view: View) -> list[Any]:
            found = view.other(kind)
            return [] if found is None else view.cursor.execute(f"FROM {found}").fetchall()

        return await self.store.read(ask)

    async def sums(self, kind: str) -> list[tuple[Key, Sum]]:
        def ask(view: View) -> list[tuple[Key, Sum]]:
            rows = view.cursor.execute(f"SELECT {COLUMNS} FROM {view.other(kind)}").fetchall()
            return [read(row) for row in rows]

        return await self.store.read(ask)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path / "spans")
    await made.store.open()
    yield made
    await made.store.stop()


def usual(days: float, **more: int) -> Expiry:
    return Expiry({Signal.SPANS: NOON_NS - round(days * 86_400 * 10**9)}, sums_since_s=more)


async def test_many_small_segments_become_one_and_say_the_same(house: House) -> None:
    for number in range(MANY):
        await house.put(span(f"n{number}", f"t{number}"))
    before = sorted(await house.rows("verdicts"))
    assert house.segments("verdicts") == MANY
    await house.store.expire(usual(1.0, minutes=0))
    assert house.segments("verdicts") == house.segments("minutes") == 1
    assert sorted(await house.rows("verdicts")) == before
    (minute,) = await house.sums("minutes")
    assert minute[0] == Key(NOON_S // 60 * 60, "inbox", "support", "agent", "inbox")
    assert (minute[1].spans, minute[1].traces) == (MANY, MANY)
    assert minute[1].trace_latency == Sketch({bucket(S): MANY}, MANY * S)


async def test_no_more_sums_are_joined_at_one_time_than_memory_holds(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(MANY):
        await house.put(span(f"n{number}", f"t{number}"))
    largest = max(s.size_bytes for s in house.store._engine.layout.segments if s.kind == "minutes")
    monkeypatch.setattr(tidying, "JOINED_BYTES", 3 * largest)
    await house.store.expire(usual(1.0, minutes=0))
    assert 1 < house.segments("minutes") <= -(-MANY // 3)
    assert sum(one.spans for _, one in await house.sums("minutes")) == MANY
    monkeypatch.setattr(tidying, "JOINED_BYTES", largest)
    for number in range(MANY):
        await house.put(span(f"m{number}", f"u{number}"))
    before = house.segments("minutes")
    await house.store.expire(usual(1.0, minutes=0))
    assert house.segments("minutes") == before, "they are large"


async def test_what_is_dropped_takes_its_verdicts_with_it_at_once(house: House) -> None:
    await house.put(span("a", "t1", session="secret-session"), span("b", "t2", session="other"))
    proof = await house.store.drop(Selector(sessions=frozenset({"secret-session"})))
    assert proof.complete
    assert [row[3] for row in await house.rows("verdicts")] == ["other"]
    left = [p for p in house.folder.rglob("*") if p.is_file() and b"secret-session" in p.read_bytes()]  # fmt: skip
    assert left == []


async def test_once_a_day_verdicts_resources_and_sums_go_with_what_they_speak_of(
    house: House,
) -> None:
    old, young = span("old", "t1", start_s=-5 * 86_400.0, resource_id=b"o" * 16), span("young", "t2", resource_id=b"y" * 16)  # fmt: skip
    await house.put(old, resources={b"o" * 16: "{}"})
    await house.put(young, resources={b"y" * 16: "{}"})
    expiry = usual(2.0, minutes=NOON_S - 2 * 86_400)
    await house.store.expire(expiry)
    assert len(await house.rows("verdicts")) == 2, "not before its time"
    house.now += SWEEP_S
    await house.store.expire(expiry)
    assert [bytes(row[1]) for row in await house.rows("verdicts")] == [trace_id("t2")]
    assert [key.start_s for key, _ in await house.sums("minutes")] == [NOON_S // 60 * 60]
    assert [bytes(row[0]) for row in await house.rows("resources")] == [b"y" * 16]
