"""Deleting what waits for other back-ends: item by item, as the store would."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.access import Caller, Scope
from midwatch.core.counts import Counts
from midwatch.core.spans.form import CONTENTS, LOGS, POINTS, SPANS, Batch, Signal
from midwatch.core.spans.store import Selector
from midwatch.core.spans.understanding import Interpreter
from midwatch.core.telemetry import ForwardTarget
from midwatch.hub.forwarding.encoding import Encoder
from midwatch.hub.forwarding.forgetting import Everybody, Forgetting, traces_of
from midwatch.hub.forwarding.forwarding import Lane
from midwatch.hub.forwarding.queued import Queued, weight
from midwatch.hub.forwarding.target import ScriptedTarget
from midwatch.ingest.otlp.owners import Sender
from midwatch.ingest.otlp.protobuf import Protobuf
from midwatch.ingest.otlp.rows import Rows
from midwatch.store.memory import MemoryOutlet
from midwatch.store.questions.memory import MemoryQuestions
from midwatch.store.spans.memory import MemorySpans

sys.path.insert(0, str(Path(__file__).parents[2]))

from spans import NOON_S, batch, content, point, record, span, trace_id

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
        config = ForwardTarget(url="http://tempo:4318")
        self.lane = Lane("tempo", config, self.outlet, self.target, Counts())

    async def keep(self, *rows: Any, **more: Any) -> None:
        """Store rows, and queue them in one post."""
        given = batch(*rows, **more)
        await self.store.append(given)
        await self.lane.put(Encoder(), given)

    async def forget(self, **what: Any) -> int:
        selector = Selector(**what)
        traces = await traces_of(MemoryQuestions(self.store.shelf), selector)
        order = Forgetting(selector, traces)
        await self.lane.forget(order.learn)
        await self.lane.forget(order.change)
        await self.store.drop(selector)
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


def mixed() -> tuple[list[Any], dict[str, Any]]:
    """Two traces of two agents, of which one says its session, user and tags in its first span alone."""
    spans = [
        span("a1", "t1", session="s1", user="ann", tags='{"customer":"acme"}', run_id="r1"),
        span("a2", "t1", run_id="r1"),
        span("b1", "t2", session="s2", agent="audit"),
        span("c1", "t3", start_s=-3_600.0),
    ]
    return spans, {
        "contents": [content(spans[1], "gen_ai.input.messages", "word of ann"), content(spans[2], "gen_ai.input.messages", "word of bob")],
        "points": [point()],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("what", "gone"),
    [
        ({"sessions": ["s1"]}, ["a1", "a2"]),
        ({"users": ["ann"]}, ["a1", "a2"]),
        ({"tags": {"customer": "acme"}}, ["a1", "a2"]),
        ({"tags": {"customer": "other"}}, []),
        ({"sessions": ["s1"], "users": ["bob"]}, []),
        ({"agents": ["audit"]}, ["b1"]),
        ({"runs": ["r1"]}, ["a1", "a2"]),
        ({"sessions": ["s1", "s2"], "agents": ["audit"]}, ["b1"]),
        ({"before_ns": round((NOON_S - 60.0) * 1e9)}, ["c1"]),
    ],
    ids=str,
)
async def test_a_queue_loses_what_the_store_does_and_nothing_else(
    what: dict[str, Any], gone: list[str]
) -> None:
    house = House()
    spans, more = mixed()
    await house.keep(*spans, **more)
    more_gone = await house.forget(
        **{k: frozenset(v) if isinstance(v, list) else v for k, v in what.items()}
    )
    left = await house.left()
    wanted = sorted({"a1", "a2", "b1", "c1"} - set(gone))
    assert left["spans"] == house.stored() == wanted
    assert ("word of ann" in left["contents"]) == ("a2" in wanted)
    assert more_gone >= len(gone)


async def test_what_a_queue_alone_knows_chooses_its_trace_too() -> None:
    house = House()
    await house.keep(span("a1", "t1", session="s1", dialect="gen_ai"))
    await house.keep(span("a2", "t1"))
    await house.store.drop(Selector(traces=frozenset({trace_id("t1")})))
    assert await house.forget(sessions=frozenset({"s1"})) == 2
    assert (await house.left())["spans"] == []


async def test_what_the_store_alone_knows_chooses_what_waits() -> None:
    house = House()
    await house.keep(span("a1", "t1", session="s1"))
    await house.left()
    await house.keep(span("a2", "t1"))
    assert await house.forget(sessions=frozenset({"s1"})) == 1
    assert (await house.left())["spans"] == ["a1"]


async def test_contents_alone_leave_their_spans() -> None:
    house = House()
    spans, more = mixed()
    await house.keep(*spans, **more)
    assert await house.forget(signals=frozenset({Signal.CONTENTS}), sessions=frozenset({"s1"})) == 0
    left = await house.left()
    assert left["spans"] == ["a1", "a2", "b1", "c1"]
    assert left["contents"] == ["word of bob"]


async def test_log_records_go_with_their_trace_and_points_with_their_agent() -> None:
    house = House()
    said = span("a1", "t1", session="s1")
    await house.keep(
        said, logs=[record("of a1", trace_id=trace_id("t1")), record("alone")], points=[point()]
    )
    assert await house.forget(sessions=frozenset({"s1"})) == 2
    await house.forget(signals=frozenset({Signal.POINTS}), agents=frozenset({"inbox"}))
    left = await house.left()
    assert left == {"spans": [], "contents": [], "logs": ["alone"], "points": []}


async def test_what_another_version_queued_stays_as_it_is() -> None:
    order = Forgetting(Selector(agents=frozenset({"inbox"})), set())
    for other in (b"", b"\x00\x01\x00\x00\x00body", b"\xff" * 40):
        assert order.learn(other) == other
        assert order.change(other) == other
        assert weight(other) == 1
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
    await house.keep(span("a1", "t1"), span("a2", "t2"))
    with monkeypatch.context() as patched:
        # as a span whose mended bytes made it larger than what may come in
        patched.setattr(Rows, "fits", lambda _, size: size < 0)
        assert await house.forget(**what) == gone
    assert (await house.left())["spans"] == ["a2"][: 2 - gone]
