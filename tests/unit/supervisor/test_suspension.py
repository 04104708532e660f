"""Suspended with a process: its calls are refused elsewhere, and here it is neither judged nor started again."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from midwatch.core.exits import Wish
from midwatch.core.states import State
from midwatch.supervisor.journal import Journal
from midwatch.wire.notify import Notice

BEATS = {"liveness": "heartbeat", "heartbeat": {"every": 10.0, "missed": 2}}


def _suspended(make: Any, script: Any = (), **entry: Any) -> Any:
    house = make(script, **entry)
    house.keeper.begin(resumed=False)
    house.system.advance(2.0)
    house.keeper.suspend("suspended by a person")
    return house


def test_its_process_is_left_and_shown(make: Any) -> None:
    house = _suspended(make)
    assert house.keeper.state is State.SUSPENDED
    assert house.process.signals == []
    told = house.events("agent.state")[-1]
    assert (told["state"], told["pid"]) == ("suspended", house.process.pid)


def test_it_may_be_silent_for_as_long_as_it_is_suspended_and_no_longer(make: Any) -> None:
    house = _suspended(make, **BEATS)
    house.system.advance(1000.0)
    assert (house.keeper.state, len(house.system.launched)) == (State.SUSPENDED, 1)
    house.keeper.resume("resumed by a person")
    assert house.keeper.state is State.RUNNING
    house.system.advance(15.0)
    assert house.keeper.state is State.RUNNING
    house.system.advance(60.0)
    assert house.events("run.hung")


@pytest.mark.parametrize("notice", [Notice(beat=True), Notice(draining=True), Notice(ready=True)])
def test_what_it_says_meanwhile_changes_nothing(make: Any, notice: Notice) -> None:
    house = _suspended(make)
    house.keeper.hear(notice)
    house.system.advance(100.0)
    assert house.keeper.state is State.SUSPENDED


def test_its_end_is_no_crash_and_starts_nothing(make: Any) -> None:
    house = _suspended(make, [(5.0, "exit 1")])
    house.system.advance(1000.0)
    (ended,) = house.events("run.ended")
    assert (ended["end"], ended["expected"], ended["next"], ended["failures"]) == (
        "suspended", True, "stop", 0,
    )  # fmt: skip
    assert (house.keeper.state, len(house.system.launched)) == (State.SUSPENDED, 1)
    assert house.events("agent.state")[-1].get("pid") is None
    house.keeper.resume("resumed by a person")
    assert (house.keeper.state, len(house.system.launched)) == (State.STARTING, 2)


def test_a_limit_still_ends_it_and_starts_nothing(make: Any) -> None:
    house = _suspended(make, limits={"wall": 60.0, "stop_grace": 1.0})
    house.system.advance(100.0)
    assert house.events("run.ended")[0]["end"] == "wall-clock"
    assert (house.keeper.state, len(house.system.launched)) == (State.SUSPENDED, 1)


def test_it_stays_suspended_through_the_end_of_the_instance(make: Any) -> None:
    house = _suspended(make)
    house.keeper.shut_down()
    house.system.advance(1.0)
    assert house.process.signals[0] == signal.SIGTERM
    again = house.another(Journal(house.journal.path))
    again.keeper.begin(resumed=False)
    assert again.keeper.state is State.SUSPENDED
    again.keeper.resume("resumed by a person")
    assert again.keeper.state is State.STARTING


def test_it_stays_suspended_through_the_sudden_death_of_the_supervisor(make: Any) -> None:
    house = _suspended(make)
    again = house.another(Journal(house.journal.path))
    again.keeper.begin(resumed=True)
    again.system.advance(100.0)
    assert (again.keeper.state, len(house.system.launched)) == (State.SUSPENDED, 1)


def test_it_can_be_stopped_and_then_a_person_starts_it(make: Any) -> None:
    house = _suspended(make)
    house.keeper.finish(Wish.STOP, "stopped by a person")
    house.system.advance(1.0)
    assert house.keeper.state is State.STOPPED
    assert not house.keeper.suspended


def test_one_that_waits_for_its_restart_does_not_get_it(make: Any) -> None:
    house = make([(0.1, "exit 1")])
    house.keeper.begin(resumed=False)
    house.system.advance(0.2)
    assert house.keeper.state is State.BACKING_OFF
    house.keeper.suspend("held by the gateway: it goes round in circles")
    house.system.advance(100.0)
    assert (house.keeper.state, len(house.system.launched)) == (State.SUSPENDED, 1)
