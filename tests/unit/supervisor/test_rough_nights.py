"""Edges at which a watcher blames the wrong one: hosts that sleep or stand still, bursts, chatter."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Any

from midwatch.core.exits import Wish
from midwatch.core.states import State
from midwatch.supervisor.machine.system import Standing
from midwatch.supervisor.terminal import carry_out
from midwatch.wire.notify import Notice


def waiting(make: Any, **entry: Any) -> Any:
    house = make(tty=True, **entry)
    house.keeper.begin(resumed=False)
    house.system.advance(1.5)
    house.process.launch.on_output(b"Continue? (y/N) ")
    house.process.reads_terminal = True
    house.system.advance(12.0)
    assert house.keeper.state is State.WAITING
    return house


def test_an_agent_that_goes_on_by_itself_and_prints_without_a_pause_no_longer_waits(
    make: Any,
) -> None:
    house = waiting(make)
    house.process.reads_terminal = False
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


def test_a_grace_in_which_everything_stood_still_is_given_again(make: Any) -> None:
    house = make([(0.0, "ignore TERM")], limits={"stop_grace": 20.0})
    house.keeper.begin(resumed=False)
    house.system.advance(2.0)
    house.keeper.finish(Wish.STOP, "stopped by ada")
    house.system.stand_still(600.0)
    house.system.advance(10.0)
    assert signal.SIGKILL not in house.process.signals
    house.system.advance(11.0)
    assert signal.SIGKILL in house.process.signals


def test_what_cannot_be_killed_is_told_once_and_tried_less_and_less(make: Any) -> None:
    house = make()
    house.keeper.begin(resumed=False)
    house.system.advance(2.0)
    tries: list[float] = []

    def in_vain(_process: Any) -> int:
        tries.append(house.system.now())
        return 1

    house.system.kill_tree = in_vain
    house.process.standing = Standing(state="D", waits_in="nfs_wait")
    house.keeper.finish(Wish.KILL, "killed by ada", kill=True)
    house.system.advance(60.0)
    told = [line for line in house.said if "SIGKILL" in line]
    assert len(told) == 1
    assert "D in nfs_wait" in told[0]
    assert tries[3] - tries[0] < 1.0
    assert len([t for t in tries if t > house.system.now() - 10.0]) <= 11


def test_a_hang_is_judged_only_after_what_came_due_with_it(make: Any) -> None:
    """The look that is a moment late after a pause of the host must not come before its pardon."""
    house = make(liveness="heartbeat", heartbeat={"every": 60.0, "missed": 2})
    house.keeper.begin(resumed=False)
    house.keeper.hear(Notice(beat=True))
    house.system.advance(90.0)
    house.system.stand_still(30.5)  # the look was due half a second before its end
    house.system.call_at(house.system.now(), lambda: house.keeper.forgive(30.5))
    house.system.advance(20.0)
    assert house.events("run.hung") == []
    house.system.advance(20.0)
    assert len(house.events("run.hung")) == 1


def test_a_run_that_its_look_finds_over_a_limit_is_not_told_as_hung_too(make: Any) -> None:
    house = make(
        liveness="heartbeat", heartbeat={"every": 10.0, "missed": 1}, limits={"processes": 5}
    )
    house.keeper.begin(resumed=False)
    house.system.advance(4.0)
    house.process.children = 9
    house.system.advance(6.5)
    assert len(house.events("run.over_limit")) == 1
    assert house.events("run.hung") == []


async def test_what_a_line_of_the_terminal_cannot_hold_is_refused_whole(make: Any) -> None:
    house = waiting(make)
    answer, data = await carry_out(house.keeper, "input", {"text": "я" * 3000}, "ada")
    assert (data["why"], bytes(house.process.typed)) == ("input", b"")
    assert "4,000 bytes" in answer
