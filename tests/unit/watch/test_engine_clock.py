"""The watch when its clock jumps: the host slept, or a time service or a person set it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from midwatch.core.fleet import Agent, Fleet
from midwatch.core.terms import Heartbeat
from midwatch.core.view import FleetView
from midwatch.watch.engine import Watch
from midwatch.watch.memory import MemoryBook, MemoryDeliveries, RecordingPublisher, ScriptedLink
from midwatch.wire import items as wire
from midwatch.wire.items import Kind

FLEET = Fleet(
    agents={
        "inbox": Agent(command=["run"]),
        "cron": Agent(external=True, heartbeat=Heartbeat(every=60.0, missed=2)),
    }
)


class Clocked:
    """A watch whose clock is set by hand; agents share it."""

    def __init__(self) -> None:
        self.now = 1_750_000_000.0
        self.view = FleetView(FLEET, node="home", now=self.now)
        self.watch = Watch(
            view=self.view,
            book=MemoryBook(),
            deliveries=MemoryDeliveries(),
            link=ScriptedLink(),
            publisher=RecordingPublisher(),
            fleet=FLEET,
            clock=lambda: self.now,
            console=lambda _: None,
        )

    async def take(self, kind: Kind, /, **values: Any) -> None:
        await self.watch.observe(kind, [wire.read(kind, {"at": self.now, **values}, self.now)])

    async def live(self, seconds: float) -> None:
        for _ in range(int(seconds / 5)):
            self.now += 5
            await self.watch.tick()

    def kinds(self) -> list[str]:
        return [i.kind for i in self.watch.open_incidents()]


@pytest.fixture
async def clocked() -> AsyncIterator[Clocked]:
    clocked = Clocked()
    await clocked.watch.start()
    yield clocked
    await clocked.watch.stop()


@pytest.mark.parametrize("beats_again", [True, False])
async def test_an_agent_that_hangs_is_found_in_time_after_the_clock_was_set_back(
    clocked: Clocked, beats_again: bool
) -> None:
    await clocked.take(Kind.BEAT, agent="cron")
    await clocked.live(5)
    clocked.now -= 3_600
    await clocked.watch.tick()
    if beats_again:
        await clocked.take(Kind.BEAT, agent="cron")
    await clocked.live(110)
    assert clocked.kinds() == []
    await clocked.live(10)
    assert clocked.kinds() == ["hung-loop"]


async def test_nobody_is_late_because_the_hub_stood_still(clocked: Clocked) -> None:
    await clocked.take(Kind.BEAT, agent="cron")
    clocked.now += 3_600
    await clocked.watch.tick()
    assert clocked.kinds() == []


async def test_what_the_supervisor_says_after_the_clock_was_set_back_is_believed(
    clocked: Clocked,
) -> None:
    async def say(kind: str, **data: Any) -> None:
        await clocked.take(Kind.EVENT, agent="inbox", kind=kind, data=data)

    await say("agent.state", state="running")
    await say("run.ended", run_id="r1", end="finished", expected=True)
    clocked.now -= 3_600
    await say("run.ended", run_id="r2", end="failed", exit_code=1, next="park")
    await say("agent.state", state="parked")
    assert clocked.kinds() == ["crash"]
    agent = clocked.view.agent("inbox", clocked.now)
    assert agent is not None
    assert agent["state"] == "parked"


async def test_a_hub_whose_clock_alone_jumps_calls_nobody_late(clocked: Clocked) -> None:
    ahead = 0.0
    for jump in (0.0, 3_600.0):
        clocked.now += jump
        ahead += jump
        await clocked.watch.tick()
        for _ in range(4):
            await clocked.take(Kind.BEAT, agent="cron", at=clocked.now - ahead)
            await clocked.live(60)
    assert clocked.kinds() == []
