"""Tools: limits, retries, spans, and what the caller sees."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import Any

import pytest

import midwatch as mw
from midwatch.sdk import tool as tools
from midwatch.sdk.testing import Recording


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "RETRY_FIRST_S", 0.001)


def test_a_tool_is_counted_and_has_a_span(seen: Recording) -> None:
    @mw.tool(name="find", side_effect=True, poll=True)
    def search(query: str) -> str:
        return query

    with mw.cycle():
        assert search("x") == "x"
        assert search(query="y") == "y"
    assert seen.beats[0]["tool_calls"] == 2
    assert seen.spans[0]["name"] == "execute_tool find"
    assert seen.spans[0]["attributes"] == {
        "midwatch.span": "tool",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "find",
        "midwatch.side_effect": True,
        "midwatch.poll": True,
    }
    # without a limit it may hang: it excuses no silence, but that it came back is a sign of work
    assert seen.told == ["called", "called", "beat"]


def test_what_a_tool_raises_goes_to_the_caller_unchanged(seen: Recording) -> None:
    error = ValueError("boom")

    @mw.tool(timeout_s=5)
    def failing() -> None:
        raise error

    with pytest.raises(ValueError, match="boom") as caught:
        failing()
    assert caught.value is error
    assert seen.spans[0]["status"] == {"code": 2, "message": "ValueError"}
    assert seen.told == ["call opened", "call done"]


def test_a_tool_that_takes_too_long_is_left_behind(seen: Recording) -> None:
    release = threading.Event()

    @mw.tool(timeout_s=0.05)
    def slow() -> None:
        release.wait(60)

    began = time.monotonic()
    with pytest.raises(mw.ToolTimeout, match=r"tool 'slow' took longer than its timeout_s=0.05"):
        slow()
    assert time.monotonic() - began < 30
    release.set()
    assert seen.spans[0]["attributes"]["error.type"] == "ToolTimeout"
    assert seen.told == ["call opened", "call done"]


def test_the_timeout_is_an_ordinary_exception_and_a_timeout_error() -> None:
    error = mw.ToolTimeout("x", 1)
    assert isinstance(error, Exception)
    assert isinstance(error, TimeoutError)
    assert error.permanent is False


def test_a_limited_tool_has_the_callers_context(seen: Recording) -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")

    @mw.tool(timeout_s=5)
    def look() -> str:
        mw.beat(tokens=3)
        return variable.get()

    with mw.cycle():
        assert look() == "set"
    assert seen.beats[0]["tokens"] == 3


async def test_an_async_tool_is_cancelled_at_its_limit(seen: Recording) -> None:
    cancelled: list[str] = []

    @mw.tool(timeout_s=0.05)
    async def slow() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            cancelled.append("yes")

    with pytest.raises(mw.ToolTimeout):
        await slow()
    assert cancelled == ["yes"]
    assert seen.told == ["call opened", "call done"]


async def test_the_tools_own_timeout_error_is_not_taken_for_ours(seen: Recording) -> None:
    @mw.tool(timeout_s=5)
    async def failing() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine") as caught:
        await failing()
    assert not isinstance(caught.value, mw.ToolTimeout)


async def test_cancelling_an_async_tool_passes_through(seen: Recording) -> None:
    @mw.tool(timeout_s=5, retries=3)
    async def slow() -> None:
        await asyncio.sleep(10)

    task = asyncio.create_task(slow())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(seen.spans) == 1


def test_a_tool_is_tried_again_with_a_span_for_each_try(seen: Recording) -> None:
    tries: list[int] = []

    @mw.tool(retries=2)
    def flaky() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("again")
        return "fine"

    with mw.cycle():
        assert flaky() == "fine"
    assert seen.beats[0]["tool_calls"] == 3
    assert [one["status"]["code"] for one in seen.spans] == [2, 2, 1, 1]


async def test_an_async_tool_is_tried_again(seen: Recording) -> None:
    tries: list[int] = []

    @mw.tool(retries=1, timeout_s=5)
    async def flaky() -> str:
        tries.append(1)
        if len(tries) < 2:
            raise OSError("again")
        return "fine"

    assert await flaky() == "fine"


def test_after_the_last_try_the_last_error_is_raised(seen: Recording) -> None:
    tries: list[int] = []

    @mw.tool(retries=2)
    def broken() -> None:
        tries.append(1)
        raise OSError(f"try {len(tries)}")

    with pytest.raises(OSError, match="try 3"):
        broken()


def test_a_tool_with_a_side_effect_is_never_tried_again(seen: Recording) -> None:
    tries: list[int] = []

    @mw.tool(retries=5, side_effect=True)
    def send() -> None:
        tries.append(1)
        raise OSError("lost the answer")

    with pytest.raises(OSError, match="lost the answer"):
        send()
    assert len(tries) == 1


def test_an_error_that_calls_itself_permanent_is_not_tried_again(seen: Recording) -> None:
    class Forbidden(Exception):
        permanent = True

    tries: list[int] = []

    @mw.tool(retries=5)
    def ask() -> None:
        tries.append(1)
        raise Forbidden

    with pytest.raises(Forbidden):
        ask()
    assert len(tries) == 1


def test_generators_can_be_tools(seen: Recording) -> None:
    @mw.tool
    def pages() -> Any:
        yield 1
        yield 2

    with mw.cycle():
        assert list(pages()) == [1, 2]
    assert seen.beats[0]["tool_calls"] == 1


def test_limits_hold_without_a_hub_too() -> None:
    release = threading.Event()

    @mw.tool(timeout_s=0.02)
    def slow() -> None:
        release.wait(10)

    with pytest.raises(mw.ToolTimeout):
        slow()
    release.set()


def test_classes_and_things_that_cannot_be_called_stay_what_they_are() -> None:
    class Thing:
        pass

    for thing in (Thing, 3, "x", None):
        assert mw.tool(timeout_s=1)(thing) is thing


def test_arguments_of_a_later_version_are_accepted_and_counted(seen: Recording) -> None:
    @mw.tool(breaker=5, approve="always")
    def work() -> int:
        return 1

    assert work() == 1
    assert seen.lost == {"unknown_argument": 2}


def test_a_tool_runs_without_its_limit_when_no_thread_is_to_be_had(
    seen: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    @mw.tool(timeout_s=5)
    def search() -> str:
        return "found"

    monkeypatch.setattr(threading, "Thread", Refused)
    assert search() == "found"
    assert seen.lost == {"tool_unlimited": 1}
