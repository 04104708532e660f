"""Deleting what waits for other back-ends: item by item, as the store would."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.access import Caller, Scope
from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.fleet import Fleet
from midwatch.core.spans.form import CONTENTS, LOGS, POINTS, SPANS, Batch, Signal
from midwatch.core.spans.store import Proof, Selector
from midwatch.core.spans.understanding import Interpreter
from midwatch.core.telemetry import ForwardTarget
from midwatch.hub.forwarding.encoding import Body, Encoder
from midwatch.hub.forwarding.forgetting import Everybody, Forgetting
from midwatch.hub.forwarding.forwarding import Lane
from midwatch.hub.forwarding.queued import Queued, weight
from midwatch.hub.forwarding.target import ScriptedTarget
from midwatch.hub.keeping.life import Life
from midwatch.ingest.otlp.owners import Sender
from midwatch.ingest.otlp.protobuf import Protobuf
from midwatch.ingest.otlp.rows import Rows
from midwatch.store.memory import MemoryOutlet
from midwatch.store.opening import traces_of
from midwatch.store.spans.memory import MemorySpans

sys.path.insert(0, str(Path(__file__).parents[2]))

import forgotten
from forgotten import without
from spans import NOON_S, batch, span, trace_id

SENDER = Sender(Caller("test", frozenset({Scope.WRITE, Scope.NODE})))


def read(signal: Signal, body: bytes) -> Batch:
    rows = Rows(SENDER, Everybody(), Interpreter(), NOON_S + 3_600.0)
    Protobuf().read(signal, body, rows)
    assert not rows.refused.counts, rows.refused.message
    return rows.batch


class House:
    """A store, and a lane to a target that has taken nothing yet."""

    def __init__(self) -> None:
        self.store = MemorySpans()
        self.outlet = MemoryOutlet(10**7)
        self.target = ScriptedTarget()
        self.counts = Counts()
        config = ForwardTarget(url="http://tempo:4318")
        self.lane = Lane("tempo", config, self.outlet, self.target, self.counts)

    async def keep(self, given: Batch) -> None:
        """Store rows, and queue them in one post."""
        await self.store.append(given)
        await self.lane.put(Encoder(), given)

    async def forget(self, what: Selector) -> int:
        order = Forgetting(what)
        order.know(await traces_of(self.store, what))
        await self.lane.forget(order.learn)
        await self.lane.forget(order.change)
        await self.store.drop(what)
        return order.removed

    async def left(self) -> dict[str, list[str]]:
        """Send all that waits; return what the target took: names of spans, texts of contents, records, points."""
        while await self.lane.send_once() is not None:
            pass
        found: dict[str, list[str]] = {"spans": [], "contents": [], "logs": [], "points": []}
        for signal, data in self.target.taken:
            taken = read(signal, data)
            found["spans"] += [row[SPANS.at["name"]] for row in taken.spans]
            found["contents"] += [row[CONTENTS.at["text"]] for row in taken.contents]
            found["logs"] += [row[LOGS.at["body"]] for row in taken.logs]
            found["points"] += [row[POINTS.at["metric"]] for row in taken.points]
        return {kind: sorted(names) for kind, names in found.items()}

    def stored(self) -> list[str]:
        return sorted(row[SPANS.at["name"]] for row in self.store.shelf.spans)


@pytest.mark.parametrize(("how", "gone", "logs"), forgotten.ORDERS, ids=str)
async def test_a_queue_loses_what_the_store_does_and_nothing_else(
    how: dict[str, Any], gone: list[str], logs: list[str]
) -> None:
    house, told = House(), forgotten.told()
    await house.keep(told)
    removed = await house.forget(forgotten.selector(how))
    left = await house.left()
    assert left["spans"] == house.stored() == without(forgotten.spans_of(told), gone)
    of_store = sorted(row[LOGS.at["body"]] for row in house.store.shelf.rows[Signal.LOGS].values())
    assert left["logs"] == of_store == without(forgotten.logs_of(told), logs)
    assert ("word of ann" in left["contents"]) == ("a2" not in gone)
    assert removed >= len(gone) + len(logs)


async def test_what_a_queue_alone_knows_chooses_its_trace_too() -> None:
    house = House()
    await house.keep(batch(span("a1", "t1", session="s1", dialect="gen_ai")))
    await house.keep(batch(span("a2", "t1")))
    await house.store.drop(Selector(traces=frozenset({trace_id("t1")})))
    assert await house.forget(Selector(sessions=frozenset({"s1"}))) == 2
    assert (await house.left())["spans"] == []


async def test_what_the_store_alone_knows_chooses_what_waits() -> None:
    house = House()
    await house.keep(batch(span("a1", "t1", session="s1")))
    await house.left()
    await house.keep(batch(span("a2", "t1")))
    assert await house.forget(Selector(sessions=frozenset({"s1"}))) == 1
    assert (await house.left())["spans"] == ["a1"]


async def test_contents_alone_leave_their_spans() -> None:
    house, told = House(), forgotten.told()
    await house.keep(told)
    only = Selector(signals=frozenset({Signal.CONTENTS}), sessions=frozenset({"s1"}))
    assert await house.forget(only) == 0
    left = await house.left()
    assert left["spans"] == forgotten.spans_of(told)
    assert left["contents"] == ["word of bob"]


async def test_points_go_with_their_agent() -> None:
    house = House()
    await house.keep(forgotten.told())
    await house.forget(Selector(signals=frozenset({Signal.POINTS}), agents=frozenset({"inbox"})))
    left = await house.left()
    assert left["points"] == []
    assert left["logs"] == forgotten.logs_of(forgotten.told())


@pytest.mark.parametrize("other", [b"", b"\x00\x01\x00\x00\x00body", b"\xff" * 40])
async def test_what_cannot_be_read_is_told_and_neither_sent_nor_kept(other: bytes) -> None:
    house = House()
    await house.outlet.put(other)
    await house.keep(batch(span("a1", "t1")))
    assert (await house.left())["spans"] == ["a1"]
    assert house.counts.value("forward_dropped", "tempo") == 1
    await house.outlet.put(other)
    assert await house.forget(Selector(agents=frozenset({"nobody"}))) == 1
    assert house.outlet.backlog().entries == 0


def test_what_is_queued_is_read_back() -> None:
    one = Queued(Signal.LOGS, 7, (("inbox", None), ("a", "r")), b"data")
    assert Queued.read(one.record()) == one
    assert weight(one.record()[:16]) == 7


@pytest.mark.parametrize(
    ("what", "gone"),
    [
        ({"traces": frozenset({trace_id("t1")})}, 1),
        ({"before_ns": 2**62}, 2),
        ({"traces": frozenset({trace_id("t1")}), "signals": frozenset({Signal.CONTENTS})}, 1),
    ],
)
async def test_what_would_be_refused_now_is_deleted_all_the_same(
    monkeypatch: pytest.MonkeyPatch, what: dict[str, Any], gone: int
) -> None:
    house = House()
    await house.keep(batch(span("a1", "t1"), span("a2", "t2")))
    with monkeypatch.context() as patched:
        # as a span whose mended bytes made it larger than what may come in
        patched.setattr(Rows, "fits", lambda _, size: size < 0)
        assert await house.forget(Selector(**what)) == gone
    assert (await house.left())["spans"] == ["a2"][: 2 - gone]


# -- what comes in while an order is carried out -----------------------------------------------


class Slow(MemorySpans):
    """A store whose `drop` lets something happen before it, as one that has much to rewrite."""

    def __init__(self) -> None:
        super().__init__()
        self.before_drop: list[Callable[[], Awaitable[object]]] = []

    async def drop(self, what: Selector) -> Proof:
        for work in self.before_drop:
            await work()
        return await super().drop(what)


class Held:
    """Stands for queues: what is on its way to them arrives when it is let go."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.on_the_way = 0
        self.queued: list[str] = []
        self.waits = True
        self._bodies: list[Body] = []

    async def see(self, fresh: Batch) -> None:
        self.on_the_way += 1
        await self.let_go.wait()
        self.queued += forgotten.spans_of(fresh)
        self._bodies = list(Encoder().bodies(fresh, Signal.SPANS))

    async def forget(self, order: Forgetting) -> None:
        for body in self._bodies:
            record = Queued(body.signal, body.items, body.whose, body.data).record()
            if order.change(order.learn(record)) is None:
                self.queued = []


@pytest.mark.parametrize("told_by", ["the store", "what comes in meanwhile"])
async def test_a_post_that_is_on_its_way_from_the_store_to_a_queue_is_reached(
    tmp_path: Path, told_by: str
) -> None:
    store, queues = Slow(), Held()
    life = Life(store, tmp_path, Fleet(agents={}), Counts(), lambda: NOON_S)
    life._forwarding = queues  # type: ignore[assignment]
    saying = batch(span("a1", "t1", session="s1"))
    posts: list[asyncio.Task[Any]] = []

    async def post() -> None:
        # the store has it before it drops; the queue gets it after
        posts.append(asyncio.create_task(life.append(batch(span("a2", "t1")))))
        while not queues.on_the_way:
            await asyncio.sleep(0)

    async def say() -> None:
        # nothing that says so is in a queue, nor was in the store when it was asked for traces
        queues.let_go.set()
        await life.append(saying)
        queues.let_go.clear()
        queues.on_the_way = 0

    if told_by == "the store":
        await store.append(saying)
        store.before_drop = [post]
    else:
        store.before_drop = [say, post]
    order = asyncio.create_task(life.forget(Selector(sessions=frozenset({"s1"}))))
    while not posts:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not order.done(), "it waits for the post"
    queues.let_go.set()
    proof, queued = await order
    await posts[0]
    assert proof.complete
    assert queued >= 1
    assert queues.queued == []
    assert store.shelf.spans == []


async def test_an_order_leaves_nothing_of_itself_behind(tmp_path: Path) -> None:
    life = Life(MemorySpans(), tmp_path, Fleet(agents={}), Counts(), lambda: NOON_S)
    queues = Held()
    queues.let_go.set()
    life._forwarding = queues  # type: ignore[assignment]
    kept = await life.append(batch(span("a1", "t1", session="s1")))
    assert kept.new == 1
    proof, _ = await life.forget(Selector(sessions=frozenset({"s1"})))
    assert proof.before[Signal.SPANS] == 1
    assert not life._under_way
    assert not life._orders


async def test_an_order_does_not_wait_for_ever_for_a_post_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midwatch.hub.keeping.life.UNDER_WAY_S", 0.01)
    life = Life(MemorySpans(), tmp_path, Fleet(agents={}), Counts(), lambda: NOON_S)
    queues = Held()
    life._forwarding = queues  # type: ignore[assignment]
    post = asyncio.create_task(life.append(batch(span("a1", "t1", session="s1"))))
    while not queues.on_the_way:
        await asyncio.sleep(0)
    with pytest.raises(StoreError, match=r"1 posts .* repeat the order"):
        await life.forget(Selector(sessions=frozenset({"s1"})))
    assert not life._orders
    queues.let_go.set()
    await post
