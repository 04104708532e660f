"""Decorators of every kind of function, and the contexts that they keep."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import midwatch as mw
from midwatch.sdk import span
from midwatch.sdk.testing import Recording


def test_a_decorated_function_is_a_cycle_at_each_call(seen: Recording) -> None:
    @mw.cycle
    def work(number: int, *, twice: bool = False) -> int:
        """Work."""
        mw.beat(tokens=number)
        return number * 2 if twice else number

    @mw.cycle()
    def more() -> int:
        return work(3, twice=True)

    assert more() == 6
    assert work.__name__ == "work"
    assert work.__doc__ == "Work."
    assert [beat.get("tokens") for beat in seen.beats] == [3, None]


async def test_a_decorated_coroutine_is_a_cycle(seen: Recording) -> None:
    @mw.cycle
    async def work() -> int:
        await asyncio.sleep(0)
        mw.beat(tokens=1)
        return 7

    assert inspect.iscoroutinefunction(work)
    assert await work() == 7
    assert [beat["tokens"] for beat in seen.beats] == [1]


def test_a_decorated_generator_is_a_cycle_from_first_to_last(seen: Recording) -> None:
    @mw.cycle
    def work() -> Any:
        mw.beat(tokens=1)
        received = yield "first"
        mw.beat(tokens=10)
        try:
            yield received
        except KeyError:
            yield "caught"
        return "returned"

    assert inspect.isgeneratorfunction(work)

    def consume() -> Any:
        steps = work()
        assert next(steps) == "first"
        assert span.current.get() is None  # nothing leaks while it is paused
        mw.beat(tokens=1000)
        assert steps.send("sent") == "sent"
        assert steps.throw(KeyError("k")) == "caught"
        return (yield from steps)

    with pytest.raises(StopIteration) as ended:
        next(consume())
    assert ended.value.value == "returned"
    assert [beat["tokens"] for beat in seen.beats] == [1000, 11]


def test_a_generator_that_is_closed_ends_its_cycle(seen: Recording) -> None:
    closed: list[str] = []

    @mw.cycle
    def work() -> Iterator[int]:
        try:
            yield 1
        finally:
            closed.append("yes")

    steps = work()
    next(steps)
    steps.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert closed == ["yes"]
    assert [beat["result"] for beat in seen.beats] == ["ok"]


def test_a_generator_that_raises_has_failed(seen: Recording) -> None:
    @mw.cycle
    def work() -> Iterator[int]:
        yield 1
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        list(work())
    assert seen.beats[0]["error"] == "ValueError: boom"


async def test_a_decorated_async_generator_is_a_cycle(seen: Recording) -> None:
    @mw.cycle
    async def work() -> AsyncIterator[int]:
        mw.beat(tokens=1)
        yield 1
        await asyncio.sleep(0)
        mw.beat(tokens=10)
        yield 2

    received: list[int] = []
    async for number in work():
        assert span.current.get() is None
        received.append(number)
    assert received == [1, 2]
    assert [beat["tokens"] for beat in seen.beats] == [11]


async def test_an_async_generator_that_is_left_ends_its_cycle(seen: Recording) -> None:
    closed: list[str] = []

    @mw.cycle
    async def work() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append("yes")

    steps: Any = work()
    assert await anext(steps) == 1
    await steps.aclose()
    assert closed == ["yes"]
    assert [beat["result"] for beat in seen.beats] == ["ok"]


def test_methods_of_every_kind_can_be_decorated(seen: Recording) -> None:
    class Agent:
        @mw.cycle
        def own(self) -> str:
            return type(self).__name__

        @mw.cycle
        @classmethod
        def of_class(cls) -> str:
            return cls.__name__

        @mw.cycle
        @staticmethod
        def static() -> str:
            return "static"

    assert [Agent().own(), Agent.of_class(), Agent().static()] == ["Agent", "Agent", "static"]
    assert len(seen.beats) == 3


async def test_partials_and_objects_can_be_decorated(seen: Recording) -> None:
    class Worker:
        async def __call__(self) -> int:
            return 5

    async def add(one: int, two: int) -> int:
        return one + two

    assert await mw.cycle(Worker())() == 5
    assert await mw.cycle(functools.partial(add, 1))(2) == 3
    assert mw.cycle(functools.partial(int, "7"))() == 7
    assert len(seen.beats) == 3


def test_sessions_and_turns_are_spans_around_what_is_in_them(seen: Recording) -> None:
    @mw.tool
    def search(query: str) -> str:
        return query.upper()

    with mw.cycle(), mw.session("ticket-7") as session, mw.turn():
        assert session.id == "ticket-7"
        assert search("secret words") == "SECRET WORDS"
        mw.outcome("success", goal_met=True)
    tool, turn, conversation, cycle = seen.spans
    assert [tool["name"], turn["name"], conversation["name"], cycle["name"]] == [
        "execute_tool search",
        "invoke_agent inbox",
        "session",
        "cycle",
    ]
    assert tool["parentSpanId"] == turn["spanId"]
    assert turn["parentSpanId"] == conversation["spanId"]
    assert conversation["parentSpanId"] == cycle["spanId"]
    assert "parentSpanId" not in cycle
    assert {one["traceId"] for one in seen.spans} == {cycle["traceId"]}
    assert len(cycle["traceId"]) == 32
    assert len(cycle["spanId"]) == 16
    for inside in (tool, turn, conversation):
        assert inside["attributes"]["gen_ai.conversation.id"] == "ticket-7"
    assert "gen_ai.conversation.id" not in cycle["attributes"]
    assert conversation["attributes"]["midwatch.outcome"] == "success"
    assert conversation["attributes"]["midwatch.goal_met"] is True
    assert tool["attributes"]["gen_ai.tool.name"] == "search"
    assert "secret" not in str(seen.spans).lower()
    assert int(tool["endTimeUnixNano"]) >= int(tool["startTimeUnixNano"]) > 10**18


def test_a_session_decorator_keeps_its_id(seen: Recording) -> None:
    @mw.session("always")
    def work() -> None:
        pass

    work()
    work()
    assert [one["attributes"]["gen_ai.conversation.id"] for one in seen.spans] == ["always"] * 2


def test_a_session_without_an_id_gets_one(seen: Recording) -> None:
    with mw.session() as one, mw.session() as other:
        assert one.id is not None
        assert one.id != other.id


def test_spans_of_separate_cycles_are_separate_traces(seen: Recording) -> None:
    for _ in range(2):
        with mw.cycle():
            pass
    assert len({one["traceId"] for one in seen.spans}) == 2


def test_a_decorated_function_is_still_of_its_kind() -> None:
    async def steps() -> AsyncIterator[int]:
        yield 1

    async def wait() -> None: ...

    def count() -> Iterator[int]:
        yield 1

    for decorate in (mw.cycle, mw.tool, mw.turn, mw.session()):
        assert inspect.isasyncgenfunction(decorate(steps))
        assert inspect.iscoroutinefunction(decorate(wait))
        assert inspect.isgeneratorfunction(decorate(count))
