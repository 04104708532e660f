from __future__ import annotations

import asyncio
import gzip
import time
from typing import Any

import pytest

from midwatch.ingest import bodies
from midwatch.ingest.bodies import THREAD_BYTES, BodyReader, parse
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
        await BodyReader().read(scope(), never, bytes)
    assert caught.value.status == 408
    await asyncio.sleep(0)  # would raise if the task were still cancelled


async def test_a_cancelled_request_stays_cancelled() -> None:
    task = asyncio.create_task(BodyReader().read(scope(), never, bytes))
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

    holding = asyncio.create_task(reader.read(scope(), slow, bytes))
    await asyncio.sleep(0)
    with pytest.raises(Refusal) as caught:
        await reader.read(scope(), quick, bytes)
    assert (caught.value.status, caught.value.headers["retry-after"]) == (503, "1")
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    assert await reader.read(scope(), quick, bytes) == (b"x" * 80, 80)


async def test_a_body_that_is_complete_by_its_length_needs_no_second_message() -> None:
    parts = [{"type": "http.request", "body": b"{}", "more_body": True}]

    async def once() -> dict[str, Any]:
        return parts.pop() if parts else await never()

    assert await BodyReader().read(scope((b"content-length", b"2")), once, parse) == ({}, 2)


async def test_large_bodies_are_decoded_one_after_the_other_and_hold_their_allowance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = b" " * (THREAD_BYTES + 1)
    packed = gzip.compress(raw)
    reader = BodyReader()
    at_once: list[int] = []
    held: list[int] = []
    working = 0

    def decode(body: bytes) -> int:
        nonlocal working
        working += 1
        at_once.append(working)
        held.append(reader._reading)
        time.sleep(0.02)  # so that a second one would be seen beside it
        working -= 1
        return len(body)

    def sender(body: bytes) -> Any:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        return receive

    answers = await asyncio.gather(
        *(reader.read(scope(), sender(raw), decode) for _ in range(3)),
        *(
            reader.read(scope((b"content-encoding", b"gzip")), sender(packed), decode)
            for _ in range(3)
        ),
    )
    assert answers == [(len(raw), len(raw))] * 6
    assert at_once == [1] * 6
    # while one is decoded, those that wait for it count
    assert max(held) >= 2 * len(raw) + 3 * len(packed)
    assert reader._reading == 0


def test_many_tiny_containers_are_refused_before_they_are_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bodies, "MAX_CONTAINERS", 100)
    assert len(parse(b"[" + b"[]," * 98 + b"1]")) == 99
    with pytest.raises(Refusal) as caught:
        parse(b"[" + b"{}," * 100 + b"1]")
    assert caught.value.status == 413
    assert "lists and objects" in caught.value.detail
