from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import time
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.ingest import bodies
from midwatch.ingest.bodies import THREAD_BYTES, BodyReader, parse, unpack, zstd
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


def packers() -> dict[str, Any]:
    raw = zlib.compressobj(wbits=-15)
    return {
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "deflate raw": lambda b: raw.compress(b) + raw.flush(),
        "zstd": zstd.compress,
    }


@pytest.mark.parametrize("how", packers())
def test_every_packing_is_unpacked(how: str) -> None:
    body = bytes(range(256)) * 100
    assert unpack(packers()[how](body), how.split()[0]) == body


@pytest.mark.parametrize("how", packers())
def test_what_is_cut_off_is_refused_and_not_half_taken(how: str) -> None:
    packed = packers()[how](random.Random(1).randbytes(5_000))
    for cut in (1, len(packed) // 2, len(packed) - 1):
        with pytest.raises(Refusal) as caught:
            unpack(packed[:cut], how.split()[0])
        assert (caught.value.status, caught.value.reason) == (400, "encoding")


@pytest.mark.parametrize("how", packers())
def test_a_bomb_is_refused_by_its_factor(how: str) -> None:
    with pytest.raises(Refusal) as caught:
        unpack(packers()[how](bytes(4_000_000)), how.split()[0])
    assert caught.value.status == 413
    assert "250 times its own size" in caught.value.detail


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_several_members_are_one_body(how: str) -> None:
    pack = packers()[how]
    assert unpack(pack(b"one ") + pack(b"two"), how) == b"one two"
    with pytest.raises(Refusal, match="more than 1000 pieces"):
        unpack(pack(b"") * 1_001, how)


@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate", "zstd"]))
def test_anything_at_all_is_unpacked_or_refused(body: bytes, how: str) -> None:
    with contextlib.suppress(Refusal):
        assert isinstance(unpack(body, how), bytes)


async def test_a_body_is_taken_unpacked_and_gives_its_allowance_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bodies, "MAX_READING_BYTES", 200_000)
    raw = random.Random(2).randbytes(100_000)
    reader = BodyReader()
    for _ in range(3):
        packed = gzip.compress(raw)

        async def receive(packed: bytes = packed) -> dict[str, Any]:
            return {"type": "http.request", "body": packed}

        assert await reader.take(scope((b"content-encoding", b"gzip")), receive) == raw
