"""A planned restart is made between two cycles, and cuts nothing short that says that it takes long. Time by hand."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.core.states import State
from midwatch.wire.notify import Notice

GIB = 1024**3
USED = int(0.92 * GIB)
HOUR = 3600.0


def stay(house: Any, seconds: float) -> None:
    """Let it live over its soft limit, sampled as ever; asked for after ten minutes."""
    for _ in range(int(seconds / 10)):
        house.system.advance(10.0)
        if house.keeper.run is not None:
            process = house.keeper.run.process
            process.rss_bytes = USED
            house.keeper.sampled(house.system.sample([process]).get(process.pid))


def test_a_cycle_that_takes_long_is_not_cut_short(make: Any) -> None:
    house = make(limits={"memory": GIB}, heartbeat={"every": 60, "missed": 2}, liveness="process")
    house.keeper.begin(resumed=False)
    house.process.rss_bytes = USED
    stay(house, 420)
    house.keeper.hear(Notice(beat=True))
    stay(house, 410)  # asked for at 600 s, in the middle of the next one
    assert house.keeper.state is State.DRAINING
    assert len(house.system.launched) == 1
    assert house.process.signals == []
    house.keeper.hear(Notice(beat=True))
    house.system.advance(1.0)
    assert len(house.system.launched) == 2


def middle_of_a_cycle(make: Any) -> Any:
    """An agent that is to be restarted after its cycle."""
    house = make(limits={"memory": GIB}, heartbeat={"every": 60, "missed": 2}, liveness="process")
    house.keeper.begin(resumed=False)
    house.process.rss_bytes = USED
    house.keeper.hear(Notice(beat=True))
    stay(house, 620)
    assert house.keeper.state is State.DRAINING
    return house


def test_who_is_suspended_before_the_end_of_its_cycle_stays_until_it_is_resumed(make: Any) -> None:
    house = middle_of_a_cycle(make)
    house.keeper.suspend("suspended by a person")
    house.system.advance(HOUR)
    assert (house.keeper.state, house.process.signals) == (State.SUSPENDED, [])
    house.keeper.resume("resumed by a person")
    house.keeper.hear(Notice(beat=True))
    house.system.advance(1.0)
    assert len(house.system.launched) == 2


def test_a_cycle_is_not_cut_short_because_the_host_slept(make: Any) -> None:
    house = middle_of_a_cycle(make)
    house.system.stand_still(8 * HOUR)
    house.system.advance(60.0)
    assert len(house.system.launched) == 1
    house.keeper.hear(Notice(beat=True))
    house.system.advance(1.0)
    assert len(house.system.launched) == 2


def test_a_declared_step_is_waited_for(make: Any) -> None:
    house = make(limits={"memory": GIB}, heartbeat={"every": 60, "missed": 2})
    house.keeper.begin(resumed=False)
    house.keeper.hear(Notice(beat=True))
    house.keeper.hear(Notice(extend_s=2400.0))
    stay(house, 2300)
    assert house.keeper.state is State.DRAINING
    assert house.process.signals == []
    stay(house, 400)
    assert len(house.system.launched) == 2
    assert house.events("run.ended")[0]["end"] == "planned-restart"


@pytest.mark.parametrize(
    ("opens", "ends"),
    [
        (Notice(call="open"), Notice(call="done")),
        (Notice(extend_s=1300.0), None),
    ],
    ids=["call", "step"],
)
def test_who_never_beats_is_not_cut_short_in_a_call_or_a_step(
    make: Any, opens: Notice, ends: Notice | None
) -> None:
    house = make(limits={"memory": GIB}, liveness="process")
    house.keeper.begin(resumed=False)
    house.process.rss_bytes = USED
    house.keeper.hear(opens)
    stay(house, 1200)
    assert house.keeper.state is State.DRAINING
    assert house.process.signals == []
    if ends is not None:
        house.keeper.hear(ends)
    house.system.advance(110.0)
    assert len(house.system.launched) == 2
    assert house.events("run.ended")[0]["end"] == "planned-restart"


def test_a_call_that_never_ends_holds_no_restart_for_ever(make: Any) -> None:
    house = make(limits={"memory": GIB}, liveness="process")
    house.keeper.begin(resumed=False)
    house.process.rss_bytes = USED
    house.keeper.hear(Notice(call="open"))
    stay(house, 1.1 * HOUR)
    assert len(house.system.launched) == 2
