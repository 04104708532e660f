"""One hub of several: it watches only as long as it knows that the lease is its own, and goes on hearing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.fleet import Fleet
from midwatch.core.view import FleetView
from midwatch.hub.together import FACTS, Together
from midwatch.store.memory import MemoryBus
from midwatch.store.opening import Shared
from midwatch.wire.items import Kind

LEASE_S = 0.6


class StrangeLease:
    """A lease that says what it is told to, or nothing."""

    def __init__(self) -> None:
        self.number: int | None = 1
        self.silent = False

    async def hold(self, name: str, ttl_s: float) -> int | None:
        del name, ttl_s
        if self.silent:
            await asyncio.Event().wait()
        return self.number

    async def release(self, name: str) -> None:
        del name

    async def held(self, prefix: str) -> frozenset[str]:
        return frozenset({f"{prefix}here", f"{prefix}there"})


class House:
    def __init__(self) -> None:
        self.lease = StrangeLease()
        self.bus = MemoryBus()
        self.counts = Counts()
        self.begun = 0
        self.working = 0
        self.heard: list[Kind] = []

    def make_watch(self) -> Any:
        async def start() -> None:
            self.begun += 1
            self.working += 1

        async def stop() -> None:
            self.working -= 1

        async def observe(kind: Kind, items: Any) -> None:
            del items
            self.heard.append(kind)

        return SimpleNamespace(start=start, stop=stop, observe=observe)

    @asynccontextmanager
    async def together(self, also: Any = None, name: str = "here") -> AsyncIterator[Together]:
        async def nothing() -> None: ...

        made = Together(
            Shared(self.bus, self.lease, nothing),
            view=FleetView(Fleet(agents={}), node="here", now=0.0),
            book=SimpleNamespace(),  # type: ignore[arg-type]
            nodes=SimpleNamespace(),  # type: ignore[arg-type]
            publisher=SimpleNamespace(),  # type: ignore[arg-type]
            make_watch=self.make_watch,
            read_anew=nothing,
            counts=self.counts,
            clock=lambda: 0.0,
            lease_s=LEASE_S,
            name=name,
        )
        if also is not None:
            made.hear("more", also)
        await made.start()
        try:
            yield made
        finally:
            self.lease.silent = False
            await made.stop()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.01)


async def test_a_hub_whose_state_store_says_nothing_gives_the_watch_up_before_another_has_it() -> (
    None
):
    house = House()
    async with house.together() as hub:
        assert hub.watches
        house.lease.silent = True
        await house.until(lambda: not hub.watches and house.working == 0)
        house.lease.silent = False


async def test_a_hub_knows_who_else_is_there_and_hears_what_they_tell_it() -> None:
    house = House()
    heard: list[dict[str, Any]] = []

    async def take(said: dict[str, Any]) -> None:
        heard.append(said)

    async with house.together(also=take) as hub:
        assert hub.name == "hub:here"
        assert await hub.others() == {"hub:there"}
        await hub.tell("more", {"n": 1})
        await house.until(lambda: bool(house.bus._ears.get("more")))
        await house.bus.tell("more", json.dumps({"from": "there", "n": 2}).encode())
        await house.until(lambda: bool(heard))
    assert heard == [{"from": "there", "n": 2}], "what it told itself it does not take"


async def test_of_two_hubs_of_one_name_the_later_one_takes_another() -> None:
    house = House()

    async def hold(name: str, ttl_s: float) -> int | None:
        del ttl_s
        return None if name == "hub:here:8700" else 1

    house.lease.hold = hold  # type: ignore[method-assign]
    async with house.together(name="here:8700") as hub:
        assert hub.name == "hub:here:8700", "as long as it may be its own end before"
        await house.until(lambda: hub.name.startswith("hub:here:8700 "))


async def test_a_hub_knows_on_which_nodes_others_run() -> None:
    house = House()

    async def held(prefix: str) -> frozenset[str]:
        return frozenset({f"{prefix}here", f"{prefix}there:80", f"{prefix}::1:80 0Z"})

    house.lease.held = held  # type: ignore[method-assign]
    async with house.together() as hub:
        assert await hub.nodes() == {"there", "::1"}


async def test_a_hub_whose_lease_lapsed_meanwhile_begins_anew() -> None:
    house = House()
    async with house.together() as hub:
        house.lease.number = 3
        await house.until(lambda: house.begun >= 2 and hub.watches)
        assert house.working == 1


async def test_a_lease_that_cannot_be_asked_for_is_asked_for_again() -> None:
    house = House()
    async with house.together() as hub:

        async def broken(name: str, ttl_s: float) -> int | None:
            raise KeyError(name, ttl_s)

        house.lease.hold = broken  # type: ignore[method-assign]
        await asyncio.sleep(LEASE_S)

        async def lost(name: str, ttl_s: float) -> int | None:
            raise StoreError(f"{name} {ttl_s}")

        house.lease.hold = lost  # type: ignore[method-assign]
        await house.until(lambda: not hub.watches)


async def test_a_message_that_makes_no_sense_does_not_end_the_hearing() -> None:
    house = House()
    async with house.together():
        for data in (
            b"no json",
            b"[]",
            json.dumps({"from": "x", "spans": {"a": {"new": 1}}}).encode(),
        ):
            await house.bus.tell(FACTS, data)
        fact = {"from": "another", "kind": "beat", "items": []}

        def told() -> bool:
            return bool(house.heard)

        async with asyncio.timeout(20):
            while not told():
                await house.bus.tell(FACTS, json.dumps(fact).encode())
                await asyncio.sleep(0.02)
    assert house.counts.total("hub_messages_lost") >= 1
