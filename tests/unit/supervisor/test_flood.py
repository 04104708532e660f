"""The duty that watches how much a run prints, with time by hand."""

from __future__ import annotations

from typing import Any

from midwatch.core.flood import CALM_S

LIMITS = {"output": 1000}


def test_a_flood_is_told_once_within_five_seconds_and_cleared_when_it_stops(make: Any) -> None:
    house = make(limits=LIMITS)
    house.keeper.capture._clock = house.system.now
    house.keeper.begin(resumed=False)
    for _ in range(40):
        house.process.launch.on_output(b"x" * 9_999 + b"\n")
        house.system.advance(0.1)
    (told,) = house.events("run.flooding")
    assert told["bytes_s"] > 50_000
    assert told["dropped_bytes"] > 20_000
    house.system.advance(CALM_S + 2)
    assert [e["over"] for e in house.events("run.flooding")] == [False, True]


def test_a_run_that_floods_and_ends_at_once_is_told_too(make: Any) -> None:
    house = make(limits=LIMITS)
    house.keeper.begin(resumed=False)
    house.process.launch.on_output(b"x" * 60_000)
    house.system.end(house.process, code=1)
    house.system.advance(0.01)
    assert [e["over"] for e in house.events("run.flooding")] == [False, True]


def test_an_agent_that_is_only_chatty_is_left_alone(make: Any) -> None:
    house = make(limits=LIMITS)
    house.keeper.capture._clock = house.system.now
    house.keeper.begin(resumed=False)
    house.process.launch.on_output(b"y" * 12_000)
    for _ in range(300):
        house.process.launch.on_output(b"y" * 90)
        house.system.advance(0.1)
    assert house.events("run.flooding") == []


def test_without_a_limit_nothing_is_left_out(make: Any) -> None:
    house = make(limits={"output": None})
    house.keeper.begin(resumed=False)
    house.process.launch.on_output(b"x" * 3_000_000)
    assert house.keeper.capture.flooded_bytes == 0
