from __future__ import annotations

import asyncio

import pytest

from midwatch.api.node import Nodes
from midwatch.core.counts import Counts
from midwatch.core.errors import LinkError
from midwatch.core.ports import Reply


def nodes() -> Nodes:
    return Nodes(lambda agent: "n" if agent != "far" else "m", Counts())


async def test_a_waiting_poll_gets_the_command_at_once() -> None:
    link = nodes()
    poll = asyncio.create_task(link.take("n", 30.0))
    await asyncio.sleep(0)
    sent = asyncio.create_task(link.send("inbox", "stop"))
    (command,) = await poll
    assert (command["agent"], command["do"]) == ("inbox", "stop")
    assert link.answer(command["id"], Reply("stopped", "stopped"))
    assert await sent == Reply("stopped", "stopped")
    assert not link.answer(command["id"], Reply("again", "stopped"))


async def test_a_command_goes_to_the_node_of_its_agent_alone() -> None:
    link = nodes()
    sent = asyncio.create_task(link.send("far", "stop", timeout_s=5))
    await asyncio.sleep(0)
    assert await link.take("n", 0) == []
    (command,) = await link.take("m", 0)
    link.answer(command["id"], Reply("done", "stopped"))
    assert (await sent).result == "done"


async def test_a_command_that_nobody_fetched_is_taken_back() -> None:
    link = nodes()
    with pytest.raises(LinkError, match="has not asked for commands"):
        await link.send("inbox", "stop", timeout_s=0.01)
    assert await link.take("n", 0) == []


async def test_a_node_that_does_not_answer_is_named() -> None:
    link = nodes()
    sent = asyncio.create_task(link.send("inbox", "stop", timeout_s=0.05))
    await asyncio.sleep(0)
    await link.take("n", 0)
    with pytest.raises(LinkError, match="did not answer within"):
        await sent


async def test_many_pings_of_one_agent_are_one_command() -> None:
    link = nodes()
    for _ in range(5):
        link.seen("inbox")
    assert [c["do"] for c in await link.take("n", 0)] == ["seen"]
    link.seen("inbox")
    assert len(await link.take("n", 0)) == 1


async def test_closing_ends_polls() -> None:
    link = nodes()
    poll = asyncio.create_task(link.take("n", 30.0))
    await asyncio.sleep(0)
    link.close()
    assert await poll == []
