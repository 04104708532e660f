from __future__ import annotations

import asyncio

import pytest

from midwatch.core.spans.shares import Shares
from midwatch.ingest.admission import Admission
from midwatch.wire.problem import Refusal


async def test_turns_are_taken_one_after_the_other_and_given_back() -> None:
    admission = Admission(Shares(inside_bytes=10))
    order: list[str] = []

    async def come(who: str) -> None:
        async with admission.turn(who, 10):
            order.append(who)
            await asyncio.sleep(0)

    await asyncio.gather(come("a"), come("a"), come("b"), come("c"))
    assert sorted(order) == ["a", "a", "b", "c"]
    assert (admission.shares.inside, admission.shares.waiting) == (0, 0)


async def test_a_flood_is_told_to_come_again_while_a_calm_sender_gets_its_turn() -> None:
    admission = Admission(Shares(inside_bytes=10, waiting_bytes=100, quantum=10))
    gate = asyncio.Event()
    kept: list[str] = []

    async def come(who: str) -> None:
        async with admission.turn(who, 10):
            await gate.wait()
            kept.append(who)

    flood = [asyncio.create_task(come("flood")) for _ in range(40)]
    await asyncio.sleep(0)
    calm = asyncio.create_task(come("calm"))
    await asyncio.sleep(0)
    gate.set()
    await calm
    told = [r for r in await asyncio.gather(*flood, return_exceptions=True) if r is not None]
    assert all(isinstance(r, Refusal) and r.status == 503 for r in told)
    assert all(isinstance(r, Refusal) and r.headers["retry-after"] == "1" for r in told)
    # one inside, and half of the room
    assert len(told) == 40 - 6
    assert kept.index("calm") <= 2


async def test_who_waits_too_long_is_told_so_and_leaves_the_line() -> None:
    admission = Admission(Shares(inside_bytes=1), wait_s=0.01)
    async with admission.turn("a", 1):
        with pytest.raises(Refusal, match="no turn for 'b' within"):
            async with admission.turn("b", 1):
                raise AssertionError
        assert admission.shares.waiting == 0


async def test_a_sender_that_hangs_up_while_waiting_leaves_the_line() -> None:
    admission = Admission(Shares(inside_bytes=1))
    async with admission.turn("a", 1):

        async def wait() -> None:
            async with admission.turn("b", 1):
                raise AssertionError

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        assert admission.shares.waiting == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert admission.shares.waiting == 0
    assert admission.shares.inside == 0


async def test_a_turn_that_comes_as_its_sender_hangs_up_is_given_to_the_next() -> None:
    admission = Admission(Shares(inside_bytes=1))
    entered: list[str] = []

    async def come(who: str) -> None:
        async with admission.turn(who, 1):
            entered.append(who)

    async with admission.turn("a", 1):
        gone, stays = asyncio.create_task(come("b")), asyncio.create_task(come("c"))
        await asyncio.sleep(0)
    # it is b's turn now, but b does not hear of it any more
    gone.cancel()
    await asyncio.gather(gone, stays, return_exceptions=True)
    assert entered == ["c"]
    assert admission.shares.inside == 0


async def test_a_closed_door_says_why() -> None:
    why: list[str | None] = ["the disk is full: 3 MB are left, 1 GB is kept free (hub.keep.free)"]
    admission = Admission(closed=lambda: why[0])
    with pytest.raises(Refusal) as caught:
        async with admission.turn("a", 1):
            raise AssertionError
    assert (caught.value.status, caught.value.headers["retry-after"]) == (503, "10")
    assert "the disk is full" in caught.value.detail
    why[0] = None
    async with admission.turn("a", 1):
        pass
