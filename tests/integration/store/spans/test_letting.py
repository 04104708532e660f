"""Sampling what is sealed: whole traces, exact weights, nothing that is still going on, and no crash in between."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.spans.form import NAME, Rank, Role, Signal
from midwatch.core.telemetry import SampleRule
from midwatch.store.spans.embedded import Due, EmbeddedSpans
from midwatch.store.spans.letting import WEIGHTS
from midwatch.store.spans.manifest import MemoryManifest

sys.path.insert(0, str(Path(__file__).parents[3]))
from spans import NOON_S, batch, call, content, record, span

RULES = [
    SampleRule(name="failures", when="errors > 0", keep=1.0),
    SampleRule(name="routine", keep=0.1),
]


class Stopped(BaseException):
    """Where a crash would be."""


class House:
    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest, self.counts = folder, MemoryManifest(), Counts()
        self.rules = RULES
        self.steady_s = 0.0
        self.stop_at: str | None = None
        self.store: EmbeddedSpans

    def _step(self, where: str) -> None:
        if where == self.stop_at:
            raise Stopped

    async def open(self) -> None:
        self.store = EmbeddedSpans(
            self.folder, self.manifest, self.counts, due=Due(age_s=0.0), step=self._step
        )
        await self.store.open()
        self.letting = self.store.letting(
            lambda: self.rules, lambda _: "support", lambda: self.steady_s
        )

    async def begin(self) -> None:
        """Open, and let sampling note where it begins."""
        await self.open()
        assert await self.letting.round(NOON_S) == 0

    async def judge(self) -> int:
        """Let all that is sealed become quiet, and judge it."""
        gone = await self.letting.round(NOON_S)
        self.steady_s += 61.0
        return gone + await self.letting.round(NOON_S)

    async def put(self, *rows: Any, **more: Any) -> None:
        await self.store.append(batch(*rows, **more))
        await self.store.settle(NOON_S)

    async def rows(self, signal: Signal = Signal.SPANS) -> list[tuple[Any, ...]]:
        return await self.store.read(
            lambda view: view.cursor.execute(f"FROM {view.rows(signal)}").fetchall()
        )

    async def names(self) -> Counter[str]:
        return Counter(row[NAME] for row in await self.rows())

    async def weights(self) -> list[int]:
        def ask(view: Any) -> list[Any]:
            kept = view.other(WEIGHTS)
            assert kept is not None
            return view.cursor.execute(f"SELECT weight FROM {kept} WHERE trace_id IS NOT NULL").fetchall()  # fmt: skip

        return [row[0] for row in await self.store.read(ask)]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path / "spans")
    yield made
    await made.store.stop()


def routine(number: int, **more: Any) -> list[Any]:
    """Return a trace of three spans."""
    name = f"r{number}"
    return [
        span(f"{name}.a", name, role=Role.AGENT.value, **more),
        call(f"{name}.b", name, parent=f"{name}.a", **more),
        span(f"{name}.c", name, parent=f"{name}.a", role=Role.TOOL.value, tool="mail", **more),
    ]


async def test_failures_stay_whole_a_share_of_the_rest_stays_and_the_disk_is_given_back(
    house: House,
) -> None:
    await house.begin()
    rows = [row for number in range(200) for row in routine(number)]
    said = [content(row, "input", f"words of {row[NAME]} " * 50) for row in rows]
    bad = [span("f.a", "f"), span("f.b", "f", parent="f.a", status=2)]
    await house.put(*rows, *bad, contents=said, logs=[record()])
    before = (await house.store.footprint()).size_bytes
    gone = await house.judge()
    names = await house.names()
    assert names["f.a"] == names["f.b"] == 1
    assert len(names) == gone_left(gone, 602)
    kept = {name.partition(".")[0] for name in names if name.startswith("r")}
    assert len(kept) == 20
    assert len(names) == 20 * 3 + 2, "traces stay or go as a whole"
    # the last of two hundred is the twentieth that stays: nothing is pending
    assert sum(await house.weights()) == 200
    assert len(await house.rows(Signal.CONTENTS)) == 60
    assert len(await house.rows(Signal.LOGS)) == 1
    assert (await house.store.footprint()).size_bytes < before
    assert await house.judge() == 0


def gone_left(gone: int, there: int) -> int:
    return there - gone


async def test_what_was_there_before_the_first_rule_stays(house: House) -> None:
    await house.open()
    await house.put(*routine(1))
    house.rules = [SampleRule(keep=0.0)]
    await house.judge()
    await house.put(*routine(2))
    assert await house.judge() == 3
    assert {name[:2] for name in await house.names()} == {"r1"}


async def test_a_trace_that_still_goes_on_is_not_judged(house: House) -> None:
    house.rules = [SampleRule(keep=0.0)]
    await house.begin()
    open_span = span("o.x", "o", rank=Rank.OPEN.value)
    first = routine(1)
    await house.put(*first[:2], span("o.y", "o"), open_span)
    # the last span of r1 is in a newer generation, the open one has no end
    await house.store.append(batch(first[2]))
    assert await house.judge() == 0
    await house.put()
    assert await house.judge() == 3
    assert set(await house.names()) == {"o.x", "o.y"}
    await house.put(span("o.x", "o"))
    assert await house.judge() == 2


async def test_nothing_is_judged_before_it_has_been_quiet(house: House) -> None:
    house.rules = [SampleRule(keep=0.0)]
    await house.begin()
    await house.put(*routine(1), *routine(2, start_s=-7 * 86_400.0))
    # neither a hub whose clock is a year ahead nor spans of last week make a trace quiet
    assert await house.letting.round(NOON_S + 365 * 86_400.0) == 0
    house.steady_s = 59.0
    assert await house.letting.round(NOON_S + 365 * 86_400.0) == 0
    house.steady_s = 60.0
    # nor does a clock that was set back keep it
    assert await house.letting.round(NOON_S - 86_400.0) == 6


async def test_a_late_failure_keeps_the_trace_that_it_belongs_to(house: House) -> None:
    await house.begin()
    await house.put(*[row for number in range(9) for row in routine(number)])
    await house.put(span("late", "r3", parent="r3.a", status=2))
    await house.judge()
    names = await house.names()
    assert {name for name in names if name.startswith("r3") or name == "late"} == {
        "r3.a",
        "r3.b",
        "r3.c",
        "late",
    }


async def test_shares_go_on_across_generations_and_restarts(house: House) -> None:
    await house.begin()
    for number in range(20):
        if number % 7 == 6:
            await house.store.stop()
            await house.open()
        await house.put(*routine(number))
        await house.judge()
    assert len({name.partition(".")[0] for name in await house.names()}) == 2
    assert await house.weights() == [10, 10]
    held = [s for s in house.manifest.named.segments if s.kind == WEIGHTS]
    assert len(held) <= 9, "weights are put together"


async def test_a_condition_that_cannot_be_decided_keeps_and_is_counted(house: House) -> None:
    house.rules = [SampleRule(name="vip", when='tags.customer == "acme"', keep=0.0)]
    await house.begin()
    await house.put(*routine(1), span("v", "v", tags='{"customer":"acme"}'))
    assert await house.judge() == 1
    assert set(await house.names()) == {"r1.a", "r1.b", "r1.c"}
    assert house.counts.value("sample_failures", "vip") == 1


@pytest.mark.parametrize("where", ["sample written", "sample named", "sample shown"])
async def test_a_crash_leaves_a_trace_whole_or_takes_it_whole(house: House, where: str) -> None:
    await house.begin()
    await house.put(*[row for number in range(30) for row in routine(number)])
    house.stop_at = where
    with pytest.raises(Stopped):
        await house.judge()
    house.stop_at = None
    await house.store.stop()
    await house.open()
    await house.judge()
    names = await house.names()
    assert len(names) == 9
    assert len({name.partition(".")[0] for name in names}) == 3
    assert sum(await house.weights()) == 30


async def test_a_manifest_that_fails_counts_nothing_twice(house: House) -> None:
    await house.begin()
    await house.put(*[row for number in range(10) for row in routine(number)])
    house.manifest.broken = True
    with pytest.raises(StoreError):
        await house.judge()
    house.manifest.broken = False
    await house.judge()
    assert sum(await house.weights()) == 10
    assert len(await house.names()) == 3
