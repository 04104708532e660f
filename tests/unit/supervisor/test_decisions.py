"""What a person decided stays decided, whatever ends in between."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.core.exits import Wish
from midwatch.core.states import State
from midwatch.supervisor.journal import Journal

STUBBORN = [(0.0, "ignore TERM")]
SLOW = {"stop_grace": 5.0}


@pytest.mark.parametrize(
    ("wish", "state"), [(Wish.STOP, State.STOPPED), (Wish.SUSPEND, State.SUSPENDED)]
)
def test_a_stop_of_the_instance_does_not_take_back_what_a_person_decided(
    make: Any, wish: Wish, state: State
) -> None:
    house = make(STUBBORN, limits=SLOW)
    house.keeper.begin(resumed=False)
    house.system.advance(2.0)
    house.keeper.finish(wish, "asked by a person")
    house.system.advance(1.0)
    house.keeper.shut_down()
    house.system.advance(10.0)
    later = house.another(Journal(house.journal.path))
    later.keeper.begin(resumed=False)
    assert (later.keeper.state, later.keeper.reason) == (state, "asked by a person")


@pytest.mark.parametrize(
    ("wish", "state"), [(Wish.STOP, State.STOPPED), (Wish.SUSPEND, State.SUSPENDED)]
)
def test_a_supervisor_killed_while_an_agent_drains_does_not_start_it_again(
    make: Any, wish: Wish, state: State
) -> None:
    house = make(STUBBORN, limits=SLOW)
    house.keeper.begin(resumed=False)
    house.system.advance(2.0)
    house.keeper.finish(wish, "asked by a person")
    house.system.advance(1.0)
    later = house.another(Journal(house.journal.path))
    later.keeper.begin(resumed=True)
    assert later.keeper.state is state


def test_a_restart_that_follows_a_stop_releases_it(make: Any) -> None:
    house = make(STUBBORN, limits=SLOW)
    house.keeper.begin(resumed=False)
    house.system.advance(2.0)
    house.keeper.finish(Wish.STOP, "stopped by a person")
    house.keeper.finish(Wish.RESTART, "restarted by a person")
    house.system.advance(5.5)
    assert (house.keeper.state, len(house.system.launched)) == (State.STARTING, 2)
    assert house.journal.of("inbox").held is None


def test_a_restart_asked_for_during_a_shutdown_starts_nothing(make: Any) -> None:
    house = make(STUBBORN, limits=SLOW)
    house.keeper.begin(resumed=False)
    house.system.advance(2.0)
    house.keeper.shut_down()
    house.keeper.finish(Wish.RESTART, "restarted by a person")
    house.system.advance(10.0)
    assert (house.keeper.state, len(house.system.launched)) == (State.STOPPED, 1)


def test_an_agent_judged_by_its_output_is_running_again_when_it_prints(make: Any) -> None:
    talks = [(20.0, "print here I am"), (24.0, "print still here"), (28.0, "print and here")]
    rules = {"when": "never", "attempts": 0, "backoff": (1.0, 8.0), "cooldown": 1.0}
    house = make(talks, liveness="output", heartbeat={"every": 5.0, "missed": 2}, restart=rules)
    house.keeper.begin(resumed=False)
    house.system.advance(11.0)
    assert house.keeper.state is State.UNHEALTHY
    house.system.advance(18.0)
    assert house.keeper.state is State.RUNNING
