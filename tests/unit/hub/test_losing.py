"""Open spans are closed when their run is over, however the hub learns of it, and at no other time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.spans import NOON_S, batch, span

from midwatch.core.counts import Counts
from midwatch.core.fleet import Fleet
from midwatch.core.spans.form import NAME, RANK, Rank
from midwatch.core.spans.opened import SILENT_S
from midwatch.core.view import LOST_AFTER_S, FleetView
from midwatch.hub import losing
from midwatch.hub.losing import Losing
from midwatch.store.spans.memory import MemorySpans, Shelf
from midwatch.wire.items import Item, Kind

OPEN = Rank.OPEN.value


class House:
    """A store, a view, a clock that is set by hand, and what was reported of runs."""

    def __init__(self) -> None:
        self.now = float(NOON_S)
        self.shelf = Shelf()
        self.store = MemorySpans(self.shelf)
        self.view = FleetView(Fleet(agents={}), node="here", now=self.now)
        self.counts = Counts()
        self.runs: dict[str, Any] = {}
        self.losing = Losing(self.store, self.view, self._find, self.counts, lambda: self.now)

    async def _find(self, run_id: str) -> Any:
        return self.runs.get(run_id)

    def event(self, kind: str, run_id: str, **data: Any) -> Item:
        item = {
            "id": f"{kind}-{run_id}", "agent": "inbox", "kind": kind, "at": self.now, "run_id": run_id,
            "data": {"run_id": run_id, **data},
        }  # fmt: skip
        self.view.apply(Kind.EVENT, item, self.now)
        return item

    def runs_now(self, run_id: str) -> None:
        self.event("run.started", run_id)
        self.event("agent.state", run_id, state="running")

    def ranks(self) -> dict[str, str]:
        rows = {row[NAME]: Rank(row[RANK]).name.lower() for row in self.shelf.spans}
        return dict(sorted(rows.items()))

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.losing.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.005)

    async def look(self) -> None:
        """Let it look once, as if a look were due."""
        await self.losing._compare(self.now, heard=True)


async def test_the_end_of_a_run_closes_its_spans_and_no_others() -> None:
    house = House()
    house.runs_now("r1")
    await house.store.append(
        batch(span("a", rank=OPEN, run_id="r1"), span("b", rank=OPEN, run_id="r2"))
    )
    house.runs["r2"] = {"run_id": "r2"}
    async with house.working():
        house.now += 5.0
        house.losing.observe(Kind.EVENT, [house.event("run.ended", "r1")])
        await house.until(lambda: house.ranks() == {"a": "lost", "b": "open"})
    assert house.counts.total("spans_lost") == 1


async def test_a_run_of_no_supervisor_ends_when_it_says_so() -> None:
    house = House()
    await house.store.append(batch(span("a", rank=OPEN, run_id="r1")))
    report = {"id": "i", "agent": "x", "run_id": "r1", "at": house.now + 1, "state": "ended"}
    async with house.working():
        house.losing.observe(Kind.RUN, [{**report, "state": "started"}])
        house.losing.observe(Kind.RUN, [report])
        await house.until(lambda: house.ranks() == {"a": "lost"})


async def test_what_ended_while_the_hub_was_away_is_closed_with_its_own_time() -> None:
    house = House()
    await house.store.append(batch(span("a", rank=OPEN, run_id="r1")))
    house.runs["r1"] = {"run_id": "r1", "ended_at": NOON_S + 2.5}
    async with house.working():
        await house.until(lambda: house.ranks() == {"a": "lost"})
    (row,) = house.shelf.spans
    assert row[6] == 2_500_000_000


async def test_a_known_run_that_nobody_names_alive_is_lost_and_not_before_all_were_heard() -> None:
    house = House()
    await house.store.append(batch(span("a", rank=OPEN, run_id="r1")))
    house.runs["r1"] = {"run_id": "r1"}
    await house.losing._compare(house.now, heard=False)
    assert house.ranks() == {"a": "open"}
    await house.look()
    assert house.ranks() == {"a": "lost"}


async def test_a_living_run_and_one_that_nobody_ever_named_stay_open() -> None:
    house = House()
    house.runs_now("r1")
    await house.store.append(
        batch(span("a", rank=OPEN, run_id="r1"), span("b", rank=OPEN, run_id="strange"))
    )
    await house.look()
    assert house.ranks() == {"a": "open", "b": "open"}
    house.now += SILENT_S + 1.0
    await house.look()
    assert house.ranks() == {"a": "open", "b": "lost"}


async def test_a_node_that_falls_silent_closes_what_is_open_and_not_what_comes_after() -> None:
    house = House()
    house.runs_now("r1")
    await house.store.append(batch(span("a", rank=OPEN, run_id="r1")))
    house.now += LOST_AFTER_S + 1.0
    assert house.view.lose_silent(house.now)
    await house.look()
    assert house.ranks() == {"a": "lost"}
    # it was the network
    house.now += 1.0
    house.event("agent.state", "r1", state="running")
    await house.store.append(batch(span("b", rank=OPEN, run_id="r1")))
    await house.look()
    assert house.ranks() == {"a": "lost", "b": "open"}


async def test_spans_of_no_run_are_given_a_day() -> None:
    house = House()
    await house.store.append(
        batch(span("old", rank=OPEN), span("new", rank=OPEN, start_s=SILENT_S))
    )
    house.now += SILENT_S + 5.0
    async with house.working():
        await house.until(lambda: house.ranks() == {"new": "open", "old": "lost"})


async def test_a_store_that_refuses_is_asked_again(monkeypatch: Any) -> None:
    monkeypatch.setattr(losing, "AGAIN_S", 0.0)
    house = House()
    await house.store.append(batch(span("a", rank=OPEN, run_id="r1")))
    await house.store.stop()
    house.losing.observe(Kind.EVENT, [house.event("run.ended", "r1")])
    async with house.working():
        await asyncio.sleep(0)
        refused = house.store
        house.losing._store = MemorySpans(house.shelf)
        assert refused is not house.losing._store
        await house.until(lambda: house.ranks() == {"a": "lost"})


async def test_a_fault_is_counted_and_does_not_end_the_work(monkeypatch: Any) -> None:
    monkeypatch.setattr(losing, "AGAIN_S", 0.01)
    house = House()
    house.runs_now("r1")
    await house.store.append(batch(span("a", rank=OPEN, run_id="r1")))
    close, faults = house.store.close_lost, [ValueError("a fault"), KeyError("another")]

    async def closing(*what: Any, **how: Any) -> int:
        if faults:
            raise faults.pop()
        return await close(*what, **how)

    monkeypatch.setattr(house.store, "close_lost", closing)
    async with house.working():
        house.losing.observe(Kind.EVENT, [house.event("run.ended", "r1")])
        await house.until(lambda: house.ranks() == {"a": "lost"})
    assert house.counts.value("keeping_failures", "fault") == 2


async def test_many_runs_that_nobody_named_keep_no_other_waiting() -> None:
    house = House()
    made_up = [
        span(f"m{n}", rank=OPEN, run_id=f"made-up-{n}") for n in range(losing.MAX_ASKED + 50)
    ]
    await house.store.append(batch(*made_up))
    await house.look()
    await house.store.append(batch(span("a", rank=OPEN, run_id="r1")))
    house.runs["r1"] = {"run_id": "r1", "ended_at": NOON_S + 2.5}
    house.runs["made-up-0"] = {"run_id": "made-up-0", "ended_at": NOON_S + 2.5}
    for _ in range(4):
        await house.look()
    assert {name for name, rank in house.ranks().items() if rank == "lost"} == {"a", "m0"}
    house.now += SILENT_S + 1.0
    for _ in range(4):
        await house.look()
    assert set(house.ranks().values()) == {"lost"}
