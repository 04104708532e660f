"""Rounds of keeping, and the disk guard, on stores and disks in memory."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.fleet import Fleet
from midwatch.core.spans.form import START_NS, Signal
from midwatch.core.spans.keeping import Guarded, Level
from midwatch.core.spans.reckoning import Reckoned
from midwatch.core.spans.store import Footprint, Piece
from midwatch.core.telemetry import AgentKeep, Keep
from midwatch.hub.keeping.guarding import DiskGuard
from midwatch.hub.keeping.keeper import Keeper
from midwatch.hub.keeping.life import Life
from midwatch.hub.keeping.telling import Teller
from midwatch.hub.keeping.trusting import ClockTrust
from midwatch.store.memory import MemoryMarks, SetSpace
from midwatch.store.spans.memory import MemorySpans

sys.path.insert(0, str(Path(__file__).parents[2]))
from spans import NOON_S, batch, content, point, span

DAY_S = 86_400.0
MIB = 1024 * 1024


class Rows:
    """Beats, events and samples: what was asked of them."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float, dict[str, float]]] = []

    async def expire(self, kind: str, before: float, agents: Mapping[str, float]) -> int:
        self.asked.append((kind, before, dict(agents)))
        return 2


class OnlyDrops:
    """A store that knows no expiry, as one that many hubs share."""

    def __init__(self, store: MemorySpans) -> None:
        self.settle, self.footprint, self.drop = store.settle, store.footprint, store.drop


async def filled() -> MemorySpans:
    store = MemorySpans()
    old, kept, young = (
        span("old", "t1", start_s=-3 * DAY_S),
        span("kept", "t2", start_s=-3 * DAY_S, agent="audit"),
        span("young", "t3"),
    )
    said = [content(old, "a", "old words"), content(young, "a", "new words")]
    await store.append(batch(old, kept, young, contents=said, points=[point()]))
    return store


KEEP = Keep(spans=DAY_S, agents={"audit": AgentKeep(spans=365 * DAY_S)})


@pytest.mark.parametrize("expires", [True, False])
async def test_a_round_lets_go_what_is_too_old_in_any_kind_of_store(expires: bool) -> None:
    store, counts = await filled(), Counts()
    given: Any = store if expires else OnlyDrops(store)
    keeper = Keeper(given, lambda: KEEP, counts, lambda: NOON_S)
    await keeper.round(NOON_S)
    held = await store.footprint()
    assert {a: by[Signal.SPANS].rows for a, by in held.agents.items()} == {"audit": 1, "inbox": 1}
    assert held.signals[Signal.CONTENTS].rows == 1
    assert counts.value("expired", "spans") == 1
    assert keeper.done.expired == {"spans": 1, "contents": 1}
    await keeper.round(NOON_S + 1)
    assert keeper.done.expired == {"spans": 1, "contents": 1}


async def test_small_rows_are_let_go_once_an_hour_by_their_own_ages() -> None:
    rows = Rows()
    keep = Keep(beats=DAY_S, events=None, samples=2 * DAY_S, agents={"audit": AgentKeep(beats=3 * DAY_S)})  # fmt: skip
    keeper = Keeper(await filled(), lambda: keep, Counts(), lambda: NOON_S, small=rows)
    for minute in range(61):
        await keeper.round(NOON_S + 60.0 * minute)
    never = float("-inf")
    assert rows.asked == [
        ("beats", at - DAY_S, {"audit": at - 3 * DAY_S})
        if kind == "beats"
        else (kind, never, {"audit": never})
        if kind == "events"
        else (kind, at - 2 * DAY_S, {"audit": at - 2 * DAY_S})
        for at in (NOON_S, NOON_S + 3600.0)
        for kind in ("beats", "events", "samples")
    ]


async def test_a_hub_that_another_one_does_it_for_does_nothing() -> None:
    async def not_mine() -> bool:
        return False

    store = await filled()
    keeper = Keeper(store, lambda: KEEP, Counts(), lambda: NOON_S, mine=not_mine)
    await keeper.round(NOON_S)
    assert (await store.footprint()).signals[Signal.SPANS].rows == 3


async def test_a_clock_that_goes_back_keeps_nothing_from_its_turn() -> None:
    rows = Rows()
    keeper = Keeper(await filled(), lambda: KEEP, Counts(), lambda: NOON_S, small=rows)
    await keeper.round(NOON_S)
    await keeper.round(NOON_S - 10 * DAY_S)
    assert len(rows.asked) == 6


# -- the disk ----------------------------------------------------------------------------------


class Told:
    def __init__(self) -> None:
        self.levels: list[Level] = []
        self.broken = False

    async def __call__(self, now: Guarded) -> None:
        if self.broken:
            raise StoreError("told to be broken")
        self.levels.append(now.level)


async def test_the_door_of_telemetry_closes_before_the_disk_is_full_and_opens_again() -> None:
    space, told = SetSpace(500 * MIB, 1000 * MIB), Told()
    guard = DiskGuard(Path("/data"), space, lambda: 100 * MIB, told, Counts())
    assert guard.closed() is None, "before the first look telemetry is taken"
    for free_mib in (500, 250, 150, 150, 99, 50, 105, 111, 250):
        space.free_bytes = free_mib * MIB
        await guard.look()
        assert (guard.closed() is not None) == (free_mib in (99, 50, 105)), free_mib
    assert told.levels == [Level.FINE, Level.LOW, Level.FULL, Level.LOW, Level.FINE]


async def test_what_could_not_be_told_is_told_with_the_next_look() -> None:
    space, told = SetSpace(150 * MIB, 1000 * MIB), Told()
    guard = DiskGuard(Path("/data"), space, lambda: 100 * MIB, told, Counts())
    told.broken = True
    with pytest.raises(StoreError):
        await guard.look()
    told.broken = False
    await guard.look()
    await guard.look()
    assert told.levels == [Level.LOW]


async def test_faults_of_the_guard_are_counted_and_end_nothing() -> None:
    space, told, counts = SetSpace(150 * MIB, 1000 * MIB), Told(), Counts()

    def broken() -> int:
        raise RuntimeError("a fault")

    told.broken = True
    guard = DiskGuard(Path("/data"), space, lambda: 100 * MIB, told, counts)
    await guard.start()
    await guard.stop()
    assert counts.value("keeping_failures", "disk") == 1
    guard = DiskGuard(Path("/data"), space, broken, told, counts)
    await guard.start()
    await guard.stop()
    assert counts.value("keeping_failures", "disk") == 2


async def test_a_disk_that_cannot_be_looked_at_stays_as_it_was() -> None:
    space, told, counts = SetSpace(10 * MIB, 1000 * MIB), Told(), Counts()
    guard = DiskGuard(Path("/data"), space, lambda: 100 * MIB, told, counts)
    await guard.look()
    space.broken = True
    await guard.look()
    assert guard.closed() is not None
    assert told.levels == [Level.FULL]
    assert counts.value("keeping_failures", "disk") == 1


class NoIncidents:
    def __init__(self) -> None:
        self.open: list[Any] = []

    async def open_incidents(self) -> list[Any]:
        return self.open


async def test_that_all_is_fine_is_told_only_when_something_was_wrong() -> None:
    events: list[dict[str, Any]] = []

    async def append(item: dict[str, Any]) -> None:
        events.append(item)

    book: Any = NoIncidents()
    news = Teller(append, book, lambda: 5.0, "midwatch").of_disk
    fine, low = (Guarded(level, level.value, 1, 2) for level in (Level.FINE, Level.LOW))
    await news(fine)
    assert events == []
    await news(low)
    await news(fine)
    assert [event["kind"] for event in events] == ["disk.low", "disk.fine"]
    assert events[0]["data"] == {"reason": "low", "free_bytes": 1, "limit_bytes": 2}


# -- the clock ---------------------------------------------------------------------------------

YEAR_S = 365 * DAY_S


class Clocks:
    """A wall clock that can be set, and a steady one."""

    def __init__(self, folder: Path) -> None:
        self.real, self.off, self.boot = NOON_S, 0.0, "b1"
        self.file = folder / "clock.json"
        self.counts = Counts()
        self.told: list[bool] = []
        self.broken = False

    def wall(self) -> float:
        return self.real + self.off

    async def tell(self, now: Reckoned) -> None:
        if self.broken:
            raise StoreError("told to be broken")
        self.told.append(now.jumped)

    def trust(self, marks: MemoryMarks | None = None) -> ClockTrust:
        return ClockTrust(
            self.file,
            self.counts,
            self.wall,
            self.tell,
            marks=marks,
            steady=lambda: self.real - NOON_S,
            boot=lambda: self.boot,
        )


def keeping(clocks: Clocks, store: MemorySpans, rows: Rows) -> Keeper:
    return Keeper(
        store, lambda: KEEP, clocks.counts, clocks.wall, small=rows, trust=clocks.trust()
    )  # fmt: skip


async def held(store: MemorySpans) -> int:
    return (await store.footprint()).signals[Signal.SPANS].rows


@pytest.mark.parametrize("off", [YEAR_S, -YEAR_S])
async def test_a_jump_of_the_wall_clock_lets_nothing_go(tmp_path: Path, off: float) -> None:
    clocks, store, rows = Clocks(tmp_path), await filled(), Rows()
    keeper = keeping(clocks, store, rows)
    await keeper.round(clocks.wall())
    assert await held(store) == 2
    clocks.off = off
    for _ in range(100):
        clocks.real += 60.0
        await keeper.round(clocks.wall())
    assert await held(store) == 2, "the youngest is two hours old, whatever the wall says"
    for kind, before, _ in rows.asked:
        assert before <= clocks.real - KEEP.age_s("", kind), kind
    assert clocks.told == [False, True]
    # once it is right again, what is really old goes
    clocks.off = 0.0
    clocks.real += DAY_S + 60.0
    await keeper.round(clocks.wall())
    assert clocks.told == [False, True, False]
    assert await held(store) == 1


async def test_a_wrong_clock_is_not_believed_after_a_restart_either(tmp_path: Path) -> None:
    clocks, store = Clocks(tmp_path), await filled()
    await keeping(clocks, store, Rows()).round(clocks.wall())
    clocks.off, clocks.boot = YEAR_S, "b2"
    again = keeping(clocks, store, Rows())
    await again.round(clocks.wall())
    assert await held(store) == 2
    assert clocks.told == [False, True]


class Pieces(MemorySpans):
    """A store that knows the times of what it holds, as those on disks do."""

    async def footprint(self) -> Footprint:
        times = [row[START_NS] for row in self.shelf.spans]
        found = await super().footprint()
        return replace(found, pieces=[Piece(at, at, 1) for at in times])


NO_TIME = '{"boot": "b1", "at": NaN, "wall": Infinity, "steady": 0}'
HUGE = f'{{"boot": "b1", "at": 1{"0" * 400}, "wall": 0, "steady": 0}}'


async def test_without_a_memory_what_is_stored_tells_how_late_it_is(tmp_path: Path) -> None:
    store = Pieces((await filled()).shelf)
    for written in (None, "torn", "[1]", '{"boot": "b1", "at": "x"}', NO_TIME, HUGE):
        clocks = Clocks(tmp_path)
        if written is None:
            clocks.file.unlink(missing_ok=True)
        else:
            clocks.file.write_text(written)
        clocks.off = YEAR_S
        await keeping(clocks, store, Rows()).round(clocks.wall())
        # by the time of the newest that is stored, the day of the oldest is over
        assert await held(store) == 2, written
        assert clocks.told == [True], written
        assert clocks.counts.value("keeping_failures", "clock") == (written is not None)


async def test_a_person_confirms_the_clock_and_what_is_too_old_goes(tmp_path: Path) -> None:
    clocks, store = Clocks(tmp_path), await filled()
    trust = clocks.trust()
    keeper = Keeper(store, lambda: KEEP, clocks.counts, clocks.wall, trust=trust)
    await keeper.round(clocks.wall())
    clocks.off = YEAR_S
    await keeper.round(clocks.wall())
    assert await held(store) == 2
    assert (await trust.confirm()).believed
    await keeper.round(clocks.wall())
    assert await held(store) == 0


async def test_what_a_person_confirmed_while_the_store_was_asked_holds(tmp_path: Path) -> None:
    clocks = Clocks(tmp_path)
    clocks.off = YEAR_S
    trust = clocks.trust()

    async def meanwhile() -> float:
        await trust.confirm()
        return NOON_S

    assert await trust.aged(meanwhile) == clocks.wall()
    assert trust.now is not None
    assert trust.now.believed


async def nothing() -> None:
    return None


async def test_what_one_hub_is_told_of_the_clock_holds_for_all_that_agree(tmp_path: Path) -> None:
    marks, hubs, clocks = MemoryMarks(), list[ClockTrust](), list[Clocks]()
    for name, off in (("a", YEAR_S), ("b", YEAR_S + 60.0), ("c", 2 * YEAR_S)):
        (tmp_path / name).mkdir()
        one = Clocks(tmp_path / name)
        hubs.append(one.trust(marks))
        await hubs[-1].aged(nothing)
        one.off = off
        assert await hubs[-1].aged(nothing) == NOON_S
        clocks.append(one)
    await hubs[0].confirm()
    assert await hubs[1].aged(nothing) == NOON_S + YEAR_S + 60.0
    assert await hubs[2].aged(nothing) == NOON_S
    assert [one.told[-1] for one in clocks] == [False, False, True]
    # one that jumps after it is asked about anew, and after a restart, too
    clocks[1].off += 1_800.0
    for trust in (hubs[1], clocks[1].trust(marks)):
        assert await trust.aged(nothing) < clocks[1].wall() - 1_700.0


async def test_a_confirmation_that_cannot_be_shared_holds_for_nobody(tmp_path: Path) -> None:
    marks, clocks = MemoryMarks(), Clocks(tmp_path)
    trust = clocks.trust(marks)
    await trust.aged(nothing)
    clocks.off = YEAR_S
    marks.broken = True
    with pytest.raises(StoreError):
        await trust.confirm()
    assert await trust.aged(nothing) == NOON_S
    assert clocks.counts.value("keeping_failures", "clock") == 1


async def test_the_clock_of_a_hub_that_does_not_settle_goes_on_too(tmp_path: Path) -> None:
    clocks = Clocks(tmp_path)

    async def another_does() -> bool:
        return False

    life = Life(MemorySpans(), tmp_path, Fleet(agents={}), Counts(), clocks.wall, mine=another_does)
    life.trust = clocks.trust()
    for _ in range(2):
        clocks.real += 60.0
        await life.round()
        assert life.trust.now is not None
        assert life.trust.now.aged == clocks.real


async def test_what_cannot_be_told_or_written_is_counted_and_told_later(tmp_path: Path) -> None:
    clocks = Clocks(tmp_path / "nowhere")
    trust = clocks.trust()
    clocks.broken = True
    assert await trust.aged(nothing) == NOON_S
    assert clocks.counts.value("keeping_failures", "clock") == 2
    clocks.broken = False
    await trust.aged(nothing)
    assert clocks.told == [False]


async def test_a_jump_is_an_event_and_its_end_one_only_while_its_incident_is_open() -> None:
    events: list[dict[str, Any]] = []

    async def append(item: dict[str, Any]) -> None:
        events.append(item)

    book: Any = NoIncidents()
    news = Teller(append, book, lambda: 5.0, "midwatch").of_clock
    even = Reckoned("b", 1.0, 1.0, 1.0)
    await news(even)
    assert events == []
    jumped = Reckoned("b", 1.0, 1.0 + YEAR_S, 1.0, need_s=DAY_S, off_s=YEAR_S)
    await news(jumped)
    book.open = [type("Open", (), {"kind": "clock-jump", "subject": ""})()]
    await news(even)
    assert [event["kind"] for event in events] == ["clock.jumped", "clock.steady"]
    assert events[0]["data"] == {
        "reason": jumped.reason,
        "off_s": YEAR_S,
        "need_s": DAY_S,
        "aged": 1.0,
    }


async def test_of_several_hubs_each_tells_of_itself_and_of_nodes_where_none_runs() -> None:
    events: list[dict[str, Any]] = []

    async def append(item: dict[str, Any]) -> None:
        events.append(item)

    async def others() -> set[str]:
        return {"here", "there"}

    book: Any = NoIncidents()
    book.open = [
        SimpleNamespace(kind=kind, subject=node)
        for kind, node in (("disk-full", "there"), ("disk-full", "gone"), ("clock-jump", "here"))
    ]
    teller = Teller(append, book, lambda: 5.0, "midwatch", node="here", others=others)
    await teller.of_disk(Guarded(Level.FINE, "fine", 1, 2))
    await teller.of_clock(Reckoned("b", 1.0, 1.0, 1.0))
    await teller.of_disk(Guarded(Level.LOW, "low", 1, 2))
    await teller.of_disk(Guarded(Level.FINE, "fine", 1, 2))
    told = [(event["kind"], event["data"]["node"]) for event in events]
    assert told == [
        ("disk.fine", "gone"),
        ("clock.steady", "here"),
        ("disk.low", "here"),
        ("disk.fine", "here"),
    ]
