from __future__ import annotations

import asyncio
from typing import Any

import pytest

from midwatch.ingest import bodies
from midwatch.ingest.bodies import BodyReader
from midwatch.wire.problem import Refusal


def scope(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"headers": list(headers)}


async def never() -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_body_that_never_comes_is_a_408_and_the_task_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bodies, "READ_TIMEOUT_S", 0.02)
    with pytest.raises(Refusal) as caught:
        await BodyReader().read(scope(), never)
    assert caught.value.status == 408
    await asyncio.sleep(0)  # would raise if the task were still cancelled


async def test_a_cancelled_request_stays_cancelled() -> None:
    task = asyncio.create_task(BodyReader().read(scope(), never))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_all_bodies_together_share_one_allowance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_READING_BYTES", 100)
    reader = BodyReader()
    first = {"type": "http.request", "body": b"x" * 80, "more_body": True}
    parts = [first]

    async def slow() -> dict[str, Any]:
        return parts.pop() if parts else await never()

    async def quick() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x" * 80}

    holding = asyncio.create_task(reader.read(scope(), slow))
    await asyncio.sleep(0)
    with pytest.raises(Refusal) as caught:
        await reader.read(scope(), quick)
    assert (caught.value.status, caught.value.headers["retry-after"]) == (503, "1")
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    assert await reader.read(scope(), quick) == b"x" * 80


async def test_a_body_that_is_complete_by_its_length_needs_no_second_message() -> None:
    parts = [{"type": "http.request", "body": b"{}", "more_body": True}]

    async def once() -> dict[str, Any]:
        return parts.pop() if parts else await never()

    assert await BodyReader().read(scope((b"content-length", b"2")), once) == b"{}"
