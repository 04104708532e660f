"""An order to delete in several hubs: each does its part, and none is taken for done that is not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from midwatch.core.errors import StoreError
from midwatch.core.spans.form import Signal
from midwatch.core.spans.store import Proof, Selector
from midwatch.hub import everywhere
from midwatch.hub.everywhere import Everywhere, as_json, of_json
from midwatch.hub.forwarding.forgetting import Forgetting

WHAT = Selector(sessions=frozenset({"s1"}))


class Town:
    """Hubs that hear each other at once."""

    def __init__(self) -> None:
        self.ends: dict[str, End] = {}
        self.log: list[tuple[str, str]] = []


class End:
    """One hub: what it is told to remove, and whether it is there."""

    def __init__(self, town: Town, name: str, removed: int = 0) -> None:
        self.town, self.name, self.removed = town, f"hub:{name}", removed
        self.deaf = self.broken = self.faulty = False
        self.also = ""
        """A hub that is started when this one begins."""
        self.loses = 0
        """So many messages to it are lost."""
        self.tasks: list[asyncio.Task[None]] = []
        self.begun: list[Forgetting] = []
        town.ends[self.name] = self
        self.everywhere = Everywhere(self, self)

    # the other hubs

    async def others(self) -> frozenset[str]:
        return frozenset(self.town.ends) - {self.name}

    def hear(self, topic: str, take: Any) -> None:
        self.take = take

    async def tell(self, topic: str, what: dict[str, Any]) -> None:
        for other in tuple(self.town.ends.values()):
            if other is self or other.deaf:
                continue
            if other.loses:
                other.loses -= 1
                continue
            await other.take(json.loads(json.dumps(what)))

    def spawn(self, work: Any) -> None:
        self.tasks.append(asyncio.create_task(work))

    # its own part

    async def forget(self, what: Selector) -> tuple[Proof, int]:
        self.town.log.append((self.name, "store"))
        return Proof({Signal.SPANS: 3}, {Signal.SPANS: 0}), self.removed

    async def begin(self, what: Selector) -> Forgetting:
        assert what == WHAT
        self.town.log.append((self.name, "begin"))
        if self.broken:
            raise StoreError("the disk is full")
        if self.faulty:
            raise RuntimeError("a fault")
        if self.also:
            End(self.town, self.also)
        self.begun.append(Forgetting(what))
        return self.begun[-1]

    async def end(self, order: Forgetting) -> None:
        self.town.log.append((self.name, "end"))
        order.removed = self.removed

    def leave(self, order: Forgetting) -> None:
        self.begun.remove(order)


async def test_every_queue_is_emptied_before_the_store_and_once_more_after() -> None:
    town = Town()
    asked, others = End(town, "a", 1), [End(town, "b", 2), End(town, "c", 4)]
    proof, queued = await asked.everywhere.forget(WHAT)
    assert proof.complete
    assert queued == 7
    names = [other.name for other in others]
    assert sorted(town.log[:2]) == [(name, "begin") for name in names]
    assert town.log[2] == (asked.name, "store")
    assert sorted(town.log[3:]) == [(name, "end") for name in names]
    assert not any(end.begun or end.everywhere._orders for end in town.ends.values())


async def test_a_hub_alone_asks_nobody() -> None:
    asked = End(Town(), "a", 5)
    assert (await asked.everywhere.forget(WHAT))[1] == 5


async def test_a_hub_that_cannot_fails_the_order_before_the_store_loses_anything() -> None:
    town = Town()
    asked, other = End(town, "a"), End(town, "b")
    other.broken = True
    with pytest.raises(StoreError, match="hub b says: the disk is full"):
        await asked.everywhere.forget(WHAT)
    assert (asked.name, "store") not in town.log


async def test_a_hub_that_goes_away_fails_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everywhere, "LOOK_S", 0.01)
    town = Town()
    asked, other = End(town, "a"), End(town, "b")
    other.deaf = True
    waiting = asyncio.create_task(asked.everywhere.forget(WHAT))
    while not asked.everywhere._waiting:
        await asyncio.sleep(0)
    del town.ends[other.name]
    with pytest.raises(StoreError, match="hub b went away"):
        await waiting
    assert asked.everywhere._waiting == {}


@pytest.mark.parametrize(("to_asked", "to_other"), [(0, 2), (1, 0), (2, 1)])
async def test_a_message_that_is_lost_is_told_again_and_done_once(
    monkeypatch: pytest.MonkeyPatch, to_asked: int, to_other: int
) -> None:
    monkeypatch.setattr(everywhere, "LOOK_S", 0.01)
    town = Town()
    asked, other = End(town, "a", 1), End(town, "b", 2)
    asked.loses, other.loses = to_asked, to_other
    async with asyncio.timeout(20):
        assert (await asked.everywhere.forget(WHAT))[1] == 3
    assert town.log == [(other.name, "begin"), (asked.name, "store"), (other.name, "end")]


async def test_a_fault_of_another_hub_fails_the_order_at_once() -> None:
    town = Town()
    asked, other = End(town, "a"), End(town, "b")
    other.faulty = True
    with pytest.raises(StoreError, match=r"hub b says: a fault of the hub \(RuntimeError\)"):
        await asked.everywhere.forget(WHAT)


async def test_a_hub_that_is_started_meanwhile_fails_the_order() -> None:
    town = Town()
    asked = End(town, "a")
    End(town, "b").also = "c"
    with pytest.raises(StoreError, match="hub c was started meanwhile"):
        await asked.everywhere.forget(WHAT)


async def test_a_hub_that_is_silent_fails_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everywhere, "ORDER_S", 0.05)
    town = Town()
    asked, other = End(town, "a"), End(town, "b")
    other.deaf = True
    with pytest.raises(StoreError, match="hub b did not answer"):
        await asked.everywhere.forget(WHAT)


async def test_an_order_whose_asker_died_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everywhere, "ORDER_S", 0.02)
    town = Town()
    other = End(town, "b")
    await other.take({"do": "begin", "order": "o", "what": as_json(WHAT)})
    async with asyncio.timeout(20):
        while other.begun or ("hub:b", "begin") not in town.log:
            await asyncio.sleep(0.005)
    assert other.everywhere._orders == {}
    await other.take({"do": "end", "order": "o"})
    await asyncio.gather(*other.tasks)
    assert ("hub:b", "end") not in town.log


def test_an_order_is_told_whole() -> None:
    whole = Selector(
        frozenset({Signal.SPANS, Signal.LOGS}), frozenset({"a"}), frozenset({"r"}), frozenset({"s"}),
        frozenset({"u"}), {"customer": "acme"}, frozenset({b"\1" * 16}), 2**62,
    )  # fmt: skip
    assert of_json(json.loads(json.dumps(as_json(whole)))) == whole
    assert of_json(as_json(WHAT)) == WHAT
