"""Forwarding: what goes out, when it is repeated, and a target that is down for an hour."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.access import Caller, Scope
from midwatch.core.counts import Counts
from midwatch.core.spans.form import CONTENTS, LOGS, POINTS, SPANS, Batch, Rank, Signal
from midwatch.core.spans.understanding import Interpreter
from midwatch.core.telemetry import ForwardTarget
from midwatch.hub.forwarding.encoding import Encoder
from midwatch.hub.forwarding.forwarding import Lane
from midwatch.hub.forwarding.pacing import LONGEST_S, MOST_S, Answer, Then, retry_after_s, step
from midwatch.hub.forwarding.target import ScriptedTarget
from midwatch.ingest.otlp import object_points
from midwatch.ingest.otlp.objects import Objects
from midwatch.ingest.otlp.owners import Sender
from midwatch.ingest.otlp.protobuf import Protobuf
from midwatch.ingest.otlp.rows import Rows
from midwatch.store.memory import MemoryOutlet

sys.path.insert(0, str(Path(__file__).parents[2]))
from spans import NOON_NS, NOON_S, batch, content, point, record, span

S = 10**9


class Everybody:
    """Knows every agent."""

    def knows(self, name: str) -> bool:
        return True

    def declared(self, name: str) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return lambda *_: True


SENDER = Sender(Caller("test", frozenset({Scope.WRITE, Scope.NODE})))


def read(signal: Signal, body: bytes, *, as_json: bool = False) -> Batch:
    names: Any = Everybody()
    rows = Rows(SENDER, names, Interpreter(), NOON_S + 3600.0)
    reader: Any = Objects(object_points.read) if as_json else Protobuf()
    reader.read(signal, body, rows)
    assert not rows.refused.counts, rows.refused.message
    return rows.batch


SERVICE = {"key": "service.name", "value": {"stringValue": "inbox"}}
RESOURCE = {"attributes": [SERVICE, {"key": "host.cpus", "value": {"intValue": "8"}}]}
T, P, C = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "c7ad6b7169203331"


def attribute(key: str, **value: Any) -> dict[str, Any]:
    return {"key": key, "value": value}


SENT = {
    Signal.SPANS: {
        "resourceSpans": [
            {
                "resource": RESOURCE,
                "schemaUrl": "https://example.org/1",
                "scopeSpans": [
                    {
                        "scope": {
                            "name": "my.llm",
                            "version": "1.2",
                            "attributes": [attribute("lang", stringValue="py")],
                        },
                        "spans": [
                            {
                                "traceId": T,
                                "spanId": C,
                                "parentSpanId": P,
                                "traceState": "a=b",
                                "flags": 257,
                                "name": "chat gpt-4o-mini ☃",
                                "kind": 3,
                                "startTimeUnixNano": str(NOON_NS + 123),
                                "endTimeUnixNano": str(NOON_NS + 5 * S),
                                "status": {"code": 2, "message": "it broke"},
                                "droppedAttributesCount": 3,
                                "attributes": [
                                    attribute("gen_ai.operation.name", stringValue="chat"),
                                    attribute("gen_ai.request.model", stringValue="gpt-4o-mini"),
                                    attribute("gen_ai.usage.input_tokens", intValue="12"),
                                    attribute("gen_ai.input.messages", stringValue='[{"a":1}]'),
                                    attribute("mine.double", doubleValue=1.0),
                                    attribute("mine.int", intValue="-5"),
                                    attribute("mine.flag", boolValue=True),
                                    attribute("mine.bytes", bytesValue="AAEC"),
                                    attribute(
                                        "mine.list",
                                        arrayValue={
                                            "values": [{"intValue": "1"}, {"stringValue": "x"}]
                                        },
                                    ),
                                    attribute(
                                        "mine.map",
                                        kvlistValue={"values": [attribute("k", doubleValue=2.5)]},
                                    ),
                                ],
                                "events": [
                                    {
                                        "timeUnixNano": str(NOON_NS + S),
                                        "name": "gen_ai.user.message",
                                        "attributes": [attribute("content", stringValue="hello")],
                                    }
                                ],
                                "links": [
                                    {
                                        "traceId": T,
                                        "spanId": P,
                                        "attributes": [attribute("why", stringValue="retry")],
                                    }
                                ],
                            }
                        ],
                    }
                ],
            }
        ]
    },
    Signal.LOGS: {
        "resourceLogs": [
            {
                "resource": RESOURCE,
                "scopeLogs": [
                    {
                        "scope": {"name": "my.log"},
                        "logRecords": [
                            {
                                "timeUnixNano": str(NOON_NS),
                                "observedTimeUnixNano": str(NOON_NS + 5),
                                "severityNumber": 9,
                                "severityText": "INFO",
                                "body": {"kvlistValue": {"values": [attribute("a", intValue="1")]}},
                                "attributes": [attribute("x", stringValue="y")],
                                "traceId": T,
                                "spanId": C,
                                "flags": 1,
                                "eventName": "job.done",
                            }
                        ],
                    }
                ],
            }
        ]
    },
    Signal.POINTS: {
        "resourceMetrics": [
            {
                "resource": RESOURCE,
                "scopeMetrics": [
                    {
                        "scope": {"name": "my.meter"},
                        "metrics": [
                            {
                                "name": "queue",
                                "unit": "1",
                                "description": "how many wait",
                                "gauge": {
                                    "dataPoints": [{"timeUnixNano": str(NOON_NS), "asDouble": 1.5}]
                                },
                            },
                            {
                                "name": "done",
                                "sum": {
                                    "aggregationTemporality": 2,
                                    "isMonotonic": True,
                                    "dataPoints": [
                                        {
                                            "startTimeUnixNano": str(NOON_NS - S),
                                            "timeUnixNano": str(NOON_NS),
                                            "asInt": "7",
                                            "attributes": [attribute("a", stringValue="b")],
                                            "exemplars": [
                                                {
                                                    "timeUnixNano": str(NOON_NS),
                                                    "asInt": "1",
                                                    "traceId": T,
                                                    "spanId": C,
                                                }
                                            ],
                                        }
                                    ],
                                },
                            },
                            {
                                "name": "latency",
                                "histogram": {
                                    "aggregationTemporality": 1,
                                    "dataPoints": [
                                        {
                                            "timeUnixNano": str(NOON_NS),
                                            "count": "3",
                                            "sum": 4.5,
                                            "min": 0.5,
                                            "max": 3.0,
                                            "bucketCounts": ["1", "2"],
                                            "explicitBounds": [1.0],
                                        }
                                    ],
                                },
                            },
                            {
                                "name": "latency.exp",
                                "exponentialHistogram": {
                                    "aggregationTemporality": 1,
                                    "dataPoints": [
                                        {
                                            "timeUnixNano": str(NOON_NS),
                                            "count": "3",
                                            "sum": 4.5,
                                            "scale": -2,
                                            "zeroCount": "1",
                                            "positive": {"offset": -1, "bucketCounts": ["1", "1"]},
                                            "negative": {"offset": 0, "bucketCounts": []},
                                        }
                                    ],
                                },
                            },
                            {
                                "name": "old",
                                "summary": {
                                    "dataPoints": [
                                        {
                                            "timeUnixNano": str(NOON_NS),
                                            "count": "2",
                                            "sum": 3.0,
                                            "quantileValues": [{"quantile": 0.5, "value": 1.0}],
                                        }
                                    ]
                                },
                            },
                        ],
                    }
                ],
            }
        ]
    },
}


def keyed(found: Batch) -> dict[str, Any]:
    """Return all rows as people read them: attributes and contents in no order."""

    def plain(item: dict[str, Any]) -> dict[str, Any]:
        # the order of attributes may be another one, and with it the place of a content
        return {k: v for k, v in item.items() if k not in ("place", "point_id", "log_id", "key")}

    return {
        table.name: sorted(
            json.dumps(plain(table.item(row)), sort_keys=True, default=str) for row in rows
        )
        for table, rows in ((SPANS, found.spans), (POINTS, found.points), (LOGS, found.logs))
    } | {"resources": sorted(found.resources.values())}


@pytest.mark.parametrize("signal", list(SENT))
def test_what_came_in_goes_out_as_it_came(signal: Signal) -> None:
    came = read(signal, json.dumps(SENT[signal]).encode(), as_json=True)
    assert came.rows(signal)
    (body,) = Encoder().bodies(came, signal)
    assert body.items == len(came.rows(signal))
    again = read(signal, body.data)
    assert keyed(again) == keyed(came)
    assert {tuple(r[CONTENTS.at[n]] for n in ("key", "text")) for r in again.contents} == {
        tuple(r[CONTENTS.at[n]] for n in ("key", "text")) for r in came.contents
    }


def test_bodies_behind_each_other_are_one_request() -> None:
    came = read(Signal.SPANS, json.dumps(SENT[Signal.SPANS]).encode(), as_json=True)
    (body,) = Encoder().bodies(came, Signal.SPANS)
    assert len(read(Signal.SPANS, body.data * 3).spans) == 3


def test_without_contents_no_prompt_goes_out() -> None:
    came = read(Signal.SPANS, json.dumps(SENT[Signal.SPANS]).encode(), as_json=True)
    (body,) = Encoder().bodies(came, Signal.SPANS, with_contents=False)
    assert b"hello" not in body.data
    assert b"gpt-4o-mini" in body.data
    assert not read(Signal.SPANS, body.data).contents


def test_spans_that_are_open_do_not_go_out() -> None:
    some = batch(span("a"), span("b", rank=Rank.OPEN.value))
    (body,) = Encoder().bodies(some, Signal.SPANS)
    assert body.items == 1


def test_much_goes_out_in_several_requests() -> None:
    rows = [span(f"n{n}", f"t{n}", attributes=json.dumps({"x": "y" * 10_000})) for n in range(500)]
    bodies = list(Encoder().bodies(batch(*rows), Signal.SPANS))
    assert sum(body.items for body in bodies) == 500
    assert len(bodies) >= 4
    assert max(len(body.data) for body in bodies) < 2 * 1024 * 1024


# -- what follows an answer --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "then"),
    [
        (200, Then.TAKEN), (202, Then.TAKEN), (0, Then.AGAIN), (429, Then.AGAIN), (502, Then.AGAIN),
        (503, Then.AGAIN), (504, Then.AGAIN), (500, Then.AGAIN), (401, Then.AGAIN), (404, Then.AGAIN),
        (308, Then.AGAIN), (400, Then.LET_GO), (413, Then.LET_GO), (415, Then.LET_GO), (422, Then.LET_GO),
    ],
)  # fmt: skip
def test_what_may_be_repeated_is_and_a_bad_body_is_let_go(status: int, then: Then) -> None:
    assert step(Answer(status), 0, NOON_S, 0.5).then is then


@given(st.integers(0, 1000), st.floats(0, 1))
def test_pauses_grow_and_are_bounded(failures: int, chance: float) -> None:
    pause = step(Answer(503), failures, NOON_S, chance).wait_s
    assert 0.5 <= pause <= MOST_S


def test_no_request_is_repeated_before_the_target_asks_for_it() -> None:
    assert step(Answer(503, retry_after="120"), 0, NOON_S, 0.0).wait_s == 120.0
    date = "Mon, 21 Sep 2026 14:18:20 GMT"  # a hundred seconds after NOON_S, or bounded
    asked = retry_after_s(date, NOON_S)
    assert asked is not None
    assert 0 <= asked <= LONGEST_S
    assert retry_after_s("soon", NOON_S) is None
    assert retry_after_s("99999999", NOON_S) == LONGEST_S
    assert retry_after_s("Mon, 01 Jan 2001 00:00:00 GMT", NOON_S) == 0.0


# -- one target --------------------------------------------------------------------------------


class Time:
    """A clock that goes on when somebody sleeps."""

    def __init__(self) -> None:
        self.now = float(NOON_S)
        self.slept: list[float] = []
        self.at: dict[float, Any] = {}

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        for at in sorted(self.at):
            if at <= self.now:
                self.at.pop(at)()
        await asyncio.sleep(0)


class House:
    def __init__(self, limit: int = 10**6, **config: Any) -> None:
        self.time, self.counts, self.target = Time(), Counts(), ScriptedTarget()
        self.outlet = MemoryOutlet(limit)
        self.encoder = Encoder()
        self.lane = Lane(
            "tempo",
            ForwardTarget(url="http://tempo:4318", **config),
            self.outlet,
            self.target,
            self.counts,
            clock=self.time,
            sleep=self.time.sleep,
            chance=lambda: 0.5,
        )

    async def put(self, *rows: Any, **more: Any) -> None:
        await self.lane.put(self.encoder, batch(*rows, **more))

    async def until_empty(self) -> None:
        self.lane.start()
        async with asyncio.timeout(20):
            while self.outlet.backlog().entries:
                await asyncio.sleep(0)
        await self.lane.stop()

    def names(self) -> list[str]:
        return [
            row[SPANS.at["name"]]
            for signal, data in self.target.taken
            if signal is Signal.SPANS
            for row in read(signal, data).spans
        ]


async def test_a_target_that_is_down_for_an_hour_has_everything_afterwards_in_order() -> None:
    house = House()
    house.target.down = True
    for number in range(60):
        await house.put(span(f"n{number}", f"t{number}"))

    def up() -> None:
        house.target.down = False

    house.time.at[NOON_S + 3600.0] = up
    await house.until_empty()
    assert house.names() == [f"n{number}" for number in range(60)]
    assert house.time.now >= NOON_S + 3600
    # pauses double up to a minute: it is not hammered
    assert house.target.asked < 100
    assert house.counts.value("forwarded", "tempo") == 60
    assert house.counts.total("forward_dropped") == 0
    assert house.lane.state.failures == 0


async def test_a_queue_that_is_full_lets_the_oldest_go_and_counts_them() -> None:
    house = House(limit=2_000)
    house.target.down = True
    for number in range(40):
        await house.put(span(f"n{number}", f"t{number}"))
    dropped = house.counts.value("forward_dropped", "tempo")
    assert dropped > 0
    house.target.down = False
    await house.until_empty()
    assert house.names() == [f"n{number}" for number in range(dropped, 40)]


async def test_a_body_that_is_refused_for_good_holds_nobody_up() -> None:
    house = House()
    house.target.answers = [Answer(400, "bad")]
    await house.put(span("bad", "t1"))
    assert await house.lane.send_once() == 0.0
    await house.put(span("good", "t2"))
    await house.until_empty()
    assert house.names() == ["good"]
    assert house.counts.value("forward_dropped", "tempo") == 1


async def test_what_a_partial_success_refuses_is_counted_and_not_repeated() -> None:
    house = House()
    house.target.answers = [Answer(200, rejected=1)]
    await house.put(span("a", "t1"), span("b", "t2"))
    await house.until_empty()
    assert house.target.asked == 1
    assert house.counts.value("forward_dropped", "tempo") == 1
    assert house.counts.value("forwarded", "tempo") == 1


async def test_small_bodies_go_together_and_signals_apart() -> None:
    house = House()
    for number in range(5):
        await house.put(span(f"n{number}", f"t{number}"))
    await house.put(points=[point()], logs=[record()])
    await house.until_empty()
    assert [signal for signal, _ in house.target.taken] == [
        Signal.SPANS,
        Signal.POINTS,
        Signal.LOGS,
    ]
    assert len(house.names()) == 5


async def test_a_target_has_only_what_it_asked_for() -> None:
    house = House(agents=["in*"], signals=["spans"], contents=False)
    mine, other = span("mine", "t1"), span("other", "t2", agent="search")
    await house.put(mine, other, contents=[content(mine, "a", "secret")], points=[point()])
    await house.until_empty()
    assert house.names() == ["mine"]
    assert b"secret" not in house.target.taken[0][1]
    assert len(house.target.taken) == 1


async def test_a_queue_that_fails_costs_what_it_could_not_keep_and_no_more() -> None:
    house = House()
    house.outlet.broken = True
    await house.put(span("lost"))
    assert house.counts.value("forward_dropped", "tempo") == 1
    house.outlet.broken = False
    await house.put(span("kept"))
    await house.until_empty()
    assert house.names() == ["kept"]


async def test_a_body_of_another_version_is_passed_over() -> None:
    house = House()
    await house.outlet.put(b"\xff\0\0\0\0what")
    await house.outlet.put(b"x")
    await house.put(span("a"))
    await house.until_empty()
    assert house.names() == ["a"]
