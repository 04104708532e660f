"""Edges at which a watcher blames the wrong one: hosts that sleep or stand still, bursts, chatter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from midwatch.core.states import State
from midwatch.supervisor.system import Standing
from midwatch.wire.notify import Notice

READS = Standing(state="S", waits_in="n_tty_read", reads_terminal=True)


def waiting(make: Any, **entry: Any) -> Any:
    house = make(tty=True, **entry)
    house.keeper.begin(resumed=False)
    house.system.advance(1.5)
    house.process.launch.on_output(b"Continue? (y/N) ")
    house.process.standing = READS
    house.system.advance(12.0)
    assert house.keeper.state is State.WAITING
    return house


def test_an_agent_that_goes_on_by_itself_and_prints_without_a_pause_no_longer_waits(
    make: Any,
) -> None:
    house = waiting(make)
    house.process.standing = Standing(state="R")
    for _ in range(30):
        house.process.launch.on_output(b"working\r\n")
        house.system.advance(0.1)
    assert house.keeper.state is State.RUNNING


def test_an_agent_that_waits_and_says_that_it_stops_is_draining(make: Any) -> None:
    house = waiting(make)
    house.keeper.hear(Notice(draining=True))
    assert house.keeper.state is State.DRAINING
    house.system.advance(30.0)
    assert house.keeper.state is State.DRAINING


def test_a_night_in_which_the_host_slept_makes_no_child_old(make: Any) -> None:
    house = make(children={"ttl": 3600.0})
    house.keeper.begin(resumed=False)
    child = house.system.add_member(house.process, age_s=60.0)
    look(house)
    house.system.sleep(8 * 3600.0)  # the kernel's age of a process goes on
    house.process.members[:] = [replace(child, age_s=60.0 + 8 * 3600.0)]
    house.system.advance(60.0)
    assert house.system.killed_members == []
    house.process.members[:] = [replace(child, age_s=3601.0 + 8 * 3600.0)]
    house.system.advance(11.0)
    assert len(house.system.killed_members) == 1


def look(house: Any) -> None:
    process = house.keeper.run.process
    house.keeper.sampled(house.system.sample([process]).get(process.pid))
    house.system.advance(11.0)
