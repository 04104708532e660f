"""The one way in which waits of a call end: by a kill, by a client that leaves, and never later than that."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from midwatch.gateway import refusals
from midwatch.gateway.carried import Carried
from midwatch.gateway.http.played import PlayedOutgoing
from midwatch.gateway.http.port import ClientGone
from midwatch.gateway.waiting import Interrupted, Waiting


def call() -> Carried:
    needed = [one for one in fields(Carried) if one.default is one.default_factory is MISSING]
    return Carried(*[None] * len(needed))  # type: ignore[arg-type]


async def waits(under_way: Carried, out: PlayedOutgoing, **more: Any) -> str:
    try:
        with Waiting(under_way, out, **more):
            await asyncio.Event().wait()
    except Interrupted:
        await asyncio.sleep(0)  # a cancellation that is left over would come here
        return "interrupted"
    return "went on"


@pytest.mark.parametrize("how", ["kill", "leave"])
@pytest.mark.parametrize("before", [True, False])
async def test_a_wait_ends_when_the_call_is_killed_or_its_client_leaves(
    how: str, before: bool
) -> None:
    under_way, out = call(), PlayedOutgoing()
    end = {"kill": lambda: under_way.kill(refusals.stopping()), "leave": out.leave}[how]
    if before:
        end()
    task = asyncio.create_task(waits(under_way, out))
    await asyncio.sleep(0)
    end()
    assert await asyncio.wait_for(task, 30) == "interrupted"
    assert task.cancelling() == 0
    assert under_way.interrupt is None


async def test_a_client_that_leaves_ends_no_wait_for_what_is_made_anyway() -> None:
    under_way, out = call(), PlayedOutgoing()
    task = asyncio.create_task(waits(under_way, out, leaving=False))
    await asyncio.sleep(0)
    out.leave()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    under_way.kill(refusals.stopping())
    assert await asyncio.wait_for(task, 30) == "interrupted"


async def test_an_end_that_comes_as_the_wait_is_over_disturbs_nothing_behind_it() -> None:
    under_way, out = call(), PlayedOutgoing()

    async def carry() -> str:
        with Waiting(under_way, out):
            await asyncio.sleep(0)
            out.leave()  # its callback is on its way
        for _ in range(5):
            await asyncio.sleep(0)
        return "whole"

    task = asyncio.create_task(carry())
    assert await asyncio.wait_for(task, 30) == "whole"
    assert task.cancelling() == 0


async def test_the_end_of_the_task_itself_is_no_interruption() -> None:
    under_way, out = call(), PlayedOutgoing()
    task = asyncio.create_task(waits(under_way, out))
    await asyncio.sleep(0)
    under_way.kill(refusals.stopping())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_client_that_is_found_gone_interrupts_too() -> None:
    with pytest.raises(Interrupted), Waiting(call(), PlayedOutgoing()):
        raise ClientGone
