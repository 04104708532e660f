"""Suites for the hub's smaller seams: room on the disk, outlets, leases, the bus. Each on every implementation."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from midwatch.core.errors import LinkError, StoreError
from midwatch.core.ports import MAX_HEARD, MAX_TOLD, Bus, Lease, Outlet, Space
from midwatch.store.leases import StateLease
from midwatch.store.memory import Desk, MemoryBus, MemoryLease, MemoryOutlet, SetSpace
from midwatch.store.outlet import DiskOutlet
from midwatch.store.space import DiskSpace
from midwatch.store.state import StateDb
from midwatch.store.telling import PostgresBus

sys.path.insert(0, str(Path(__file__).parents[1]))
from databases import Postgres

DEADLINE_S = 30.0


# -- space ------------------------------------------------------------------------------------

SPACES: dict[str, Callable[[], Space]] = {
    "disk": DiskSpace,
    "set": lambda: SetSpace(free_bytes=5, total_bytes=10),
}


@pytest.fixture(params=sorted(SPACES))
def space(request: pytest.FixtureRequest) -> Space:
    return SPACES[request.param]()


def test_the_room_of_a_directory_is_less_than_the_disk(space: Space, tmp_path: Path) -> None:
    room = space.room(tmp_path)
    assert 0 <= room.free_bytes <= room.total_bytes
    assert room.total_bytes > 0


def test_the_room_of_nowhere_cannot_be_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot tell the free space"):
        DiskSpace().room(tmp_path / "missing")
    broken = SetSpace(5, 10)
    broken.broken = True
    with pytest.raises(StoreError, match="cannot tell the free space"):
        broken.room(tmp_path)


# -- outlets ----------------------------------------------------------------------------------

LIMIT = 100


@dataclass
class Shop:
    """One kind of outlet; opened again it is the same queue."""

    open: Callable[[], Awaitable[Outlet]]
    close: Callable[[], Awaitable[None]]


async def _nothing() -> None:
    pass


def _memory_outlet(_folder: Path) -> Shop:
    kept: deque[tuple[int, bytes]] = deque()

    async def open_() -> Outlet:
        return MemoryOutlet(LIMIT, kept)

    return Shop(open_, _nothing)


def _disk_outlet(folder: Path) -> Shop:
    opened: list[DiskOutlet] = []

    async def close() -> None:
        while opened:
            await opened.pop().stop()

    async def open_() -> Outlet:
        await close()
        opened.append(DiskOutlet(folder / "queue", LIMIT))
        await opened[0].open()
        return opened[0]

    return Shop(open_, close)


OUTLETS: dict[str, Callable[[Path], Shop]] = {"memory": _memory_outlet, "disk": _disk_outlet}


@pytest.fixture(params=sorted(OUTLETS))
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shop]:
    made = OUTLETS[request.param](tmp_path)
    yield made
    await made.close()


async def test_bodies_leave_in_the_order_in_which_they_came(shop: Shop) -> None:
    outlet = await shop.open()
    numbers = [await outlet.put(body) for body in (b"a", b"", b"\0c")]
    assert numbers == sorted(set(numbers))
    assert list(await outlet.waiting(2)) == [(numbers[0], b"a"), (numbers[1], b"")]
    assert len(await outlet.waiting(10)) == 3
    await outlet.sent(numbers[1])
    assert list(await outlet.waiting(10)) == [(numbers[2], b"\0c")]
    found = outlet.backlog()
    assert (found.entries, found.dropped) == (1, 0)


async def test_what_waits_survives_and_numbers_go_on(shop: Shop) -> None:
    outlet = await shop.open()
    first = await outlet.put(b"a")
    second = await outlet.put(b"b")
    await outlet.sent(first)
    outlet = await shop.open()
    assert list(await outlet.waiting(10)) == [(second, b"b")]
    assert await outlet.put(b"c") > second


async def test_what_waits_can_be_changed_and_taken_out(shop: Shop) -> None:
    outlet = await shop.open()
    numbers = [await outlet.put(body) for body in (b"a", b"b", b"", b"c")]
    await outlet.rewrite(lambda body: None if body == b"b" else body * 2)
    wanted = [(numbers[0], b"aa"), (numbers[2], b""), (numbers[3], b"cc")]
    assert list(await outlet.waiting(10)) == wanted
    assert outlet.backlog().entries == 3
    outlet = await shop.open()
    assert list(await outlet.waiting(10)) == wanted
    assert outlet.backlog().dropped == 0
    assert await outlet.put(b"d") > numbers[3]


async def test_over_the_limit_the_oldest_go_and_are_counted(shop: Shop) -> None:
    outlet = await shop.open()
    for name in (b"a", b"b", b"c"):
        await outlet.put(name * 40)
    left = [body[:1] for _, body in await outlet.waiting(10)]
    found = outlet.backlog()
    assert left
    assert left == [b"a", b"b", b"c"][-len(left) :]
    assert found.dropped == 3 - len(left) >= 1
    assert found.size_bytes <= LIMIT


async def test_a_body_that_never_fits_is_refused_for_good(shop: Shop) -> None:
    outlet = await shop.open()
    await outlet.put(b"a")
    with pytest.raises(StoreError, match="larger than the queue") as refused:
        await outlet.put(b"x" * (LIMIT + 1))
    assert refused.value.permanent
    assert [body for _, body in await outlet.waiting(10)] == [b"a"]


# -- leases -----------------------------------------------------------------------------------


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Office:
    """One kind of lease: holders by name, and how time goes by for them."""

    holder: Callable[[str], Lease]
    let_pass: Callable[[float], Awaitable[None]]


def _memory_office() -> Office:
    clock, desk = Clock(), Desk()

    async def let_pass(seconds: float) -> None:
        clock.now += seconds

    return Office(lambda name: MemoryLease(desk, name, clock), let_pass)


def _office_of(db: StateDb) -> Office:
    async def let_pass(seconds: float) -> None:
        earlier = text("UPDATE leases SET until = until - :seconds")
        await db.write(lambda c: c.execute(earlier, {"seconds": seconds}))

    return Office(lambda name: StateLease(db, name), let_pass)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def office(
    request: pytest.FixtureRequest, server: Postgres, tmp_path: Path
) -> AsyncIterator[Office]:
    if request.param == "memory":
        yield _memory_office()
        return
    db = StateDb(tmp_path / "state.db" if request.param == "sqlite" else server.fresh())
    db.open()
    yield _office_of(db)
    await db.stop()


async def test_one_of_two_holds_a_lease_and_keeps_its_number(office: Office) -> None:
    one, two = office.holder("one"), office.holder("two")
    number = await one.hold("watch", 60.0)
    assert number is not None
    assert await two.hold("watch", 60.0) is None
    assert await one.hold("watch", 60.0) == number
    assert await two.hold("settle", 60.0) is not None


async def test_a_lease_that_ran_out_goes_to_the_next_with_a_higher_number(office: Office) -> None:
    one, two = office.holder("one"), office.holder("two")
    first = await one.hold("watch", 60.0)
    await office.let_pass(61.0)
    second = await two.hold("watch", 60.0)
    assert first is not None
    assert second is not None
    assert second > first
    assert await one.hold("watch", 60.0) is None


async def test_who_let_his_lease_run_out_gets_another_number(office: Office) -> None:
    one = office.holder("one")
    first = await one.hold("watch", 60.0)
    await office.let_pass(61.0)
    second = await one.hold("watch", 60.0)
    assert first is not None
    assert second is not None
    assert second > first


async def test_a_lease_that_is_given_back_is_free_at_once(office: Office) -> None:
    one, two = office.holder("one"), office.holder("two")
    first = await one.hold("watch", 60.0)
    await two.release("watch")  # not his
    assert await two.hold("watch", 60.0) is None
    await one.release("watch")
    second = await two.hold("watch", 60.0)
    assert first is not None
    assert second is not None
    assert second > first


async def test_who_holds_leases_is_known_by_their_names(office: Office) -> None:
    one, two = office.holder("one"), office.holder("two")
    await one.hold("hub:a_1", 60.0)
    await two.hold("hub:b", 120.0)
    await two.hold("hubs", 120.0)
    assert await one.held("hub:") == {"hub:a_1", "hub:b"}
    assert await one.held("hub:a%") == frozenset()
    await office.let_pass(61.0)
    assert await one.held("hub:") == {"hub:b"}
    await two.release("hub:b")
    assert await one.held("hub:") == frozenset()


# -- the bus ----------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "postgres"])
async def ends(request: pytest.FixtureRequest, server: Postgres) -> AsyncIterator[tuple[Bus, Bus]]:
    """Two ends of one bus."""
    if request.param == "memory":
        bus = MemoryBus()
        yield bus, bus
        return
    at = server.fresh()
    here, there = PostgresBus(at), PostgresBus(at)
    yield here, there
    await here.stop()
    await there.stop()


async def test_a_listener_whose_connection_was_lost_is_told_so_and_listens_again(
    server: Postgres,
) -> None:
    at = server.fresh()
    here, there = PostgresBus(at), PostgresBus(at)
    ear = await there.hear("facts")
    await here.tell("facts", b"before")
    assert await next_of(ear) == b"before"
    with psycopg.connect(at, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE application_name = 'midwatch-bus'"
        )
    with pytest.raises(LinkError, match="listen again"):
        await next_of(ear)
    ear = await there.hear("facts")
    await here.tell("facts", b"after")
    assert await next_of(ear) == b"after"
    await here.stop()
    await there.stop()


async def test_two_fleets_in_one_database_do_not_hear_each_other(server: Postgres) -> None:
    here, there = PostgresBus(server.fresh()), PostgresBus(server.fresh())
    ear = await there.hear("facts")
    await here.tell("facts", b"theirs")
    await there.tell("facts", b"ours")
    assert await next_of(ear) == b"ours"
    await here.stop()
    await there.stop()


async def test_a_bus_that_cannot_be_reached_says_so(tmp_path: Path) -> None:
    bus = PostgresBus(f"postgresql:///postgres?host={tmp_path}&user=postgres")
    with pytest.raises(StoreError, match="cannot tell"):
        await bus.tell("facts", b"x")
    with pytest.raises(StoreError, match="cannot be heard"):
        await bus.hear("facts")


async def next_of(heard: Any) -> bytes:
    async with asyncio.timeout(DEADLINE_S):
        return await anext(heard)


async def test_all_who_listen_hear_it_in_order(ends: tuple[Bus, Bus]) -> None:
    here, there = ends
    ears = [await here.hear("facts"), await there.hear("facts")]
    for data in (b"1", b"", b"\0\xff3"):
        await here.tell("facts", data)
    for ear in ears:
        assert [await next_of(ear) for _ in range(3)] == [b"1", b"", b"\0\xff3"]


async def test_who_listens_hears_his_topic_from_then_on(ends: tuple[Bus, Bus]) -> None:
    here, there = ends
    await here.tell("facts", b"before")
    ear = await there.hear("facts")
    await here.tell("orders", b"other")
    await here.tell("facts", b"after")
    assert await next_of(ear) == b"after"


async def test_a_listener_waits_for_what_is_told_later(ends: tuple[Bus, Bus]) -> None:
    here, there = ends
    ear = await there.hear("facts")
    waiting = asyncio.create_task(next_of(ear))
    await asyncio.sleep(0)
    await here.tell("facts", b"late")
    assert await waiting == b"late"


async def test_a_message_of_a_mebibyte_passes_and_a_larger_one_is_refused(
    ends: tuple[Bus, Bus],
) -> None:
    here, there = ends
    ear = await there.hear("facts")
    with pytest.raises(StoreError, match="too many for one message") as refused:
        await here.tell("facts", b"x" * (MAX_TOLD + 1))
    assert refused.value.permanent
    await here.tell("facts", b"x" * MAX_TOLD)
    assert len(await next_of(ear)) == MAX_TOLD


async def test_who_is_too_slow_is_told_that_he_missed_some(ends: tuple[Bus, Bus]) -> None:
    here, there = ends
    ear, mark = await there.hear("facts"), await there.hear("mark")
    for number in range(MAX_HEARD + 1):
        await here.tell("facts", str(number).encode())
    await here.tell("mark", b"")
    await next_of(mark)  # so all before it has arrived
    heard = [await next_of(ear) for _ in range(MAX_HEARD)]
    assert heard == [str(n).encode() for n in range(MAX_HEARD)]
    with pytest.raises(LinkError, match="listen again"):
        await next_of(ear)
    again = await there.hear("facts")
    await here.tell("facts", b"on")
    assert await next_of(again) == b"on"


async def test_what_is_broken_says_so() -> None:
    outlet, lease, bus = MemoryOutlet(10), MemoryLease(Desk(), "one", Clock()), MemoryBus()
    outlet.broken = lease.broken = bus.broken = True
    for attempt in (
        lambda: outlet.put(b"a"),
        lambda: lease.hold("watch", 60.0),
        lambda: bus.tell("facts", b"a"),
    ):
        with pytest.raises(StoreError, match="told to be broken"):
            await attempt()
