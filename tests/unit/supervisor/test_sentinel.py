"""The sentinel looks when the machine's memory or files leap, and at nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.core.exits import Wish
from midwatch.supervisor.machine.system import Host
from midwatch.supervisor.sentinel import FILES, MEMORY, Sentinel, leap

GIB = 1024**3


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        (Host(memory_free_bytes=GIB), Host(memory_free_bytes=GIB - MEMORY), "memory"),
        (Host(memory_free_bytes=GIB), Host(memory_free_bytes=GIB - MEMORY + 1), None),
        (Host(memory_free_bytes=0), Host(memory_free_bytes=GIB), None),
        (Host(open_files=10), Host(open_files=10 + FILES), "files"),
        (Host(open_files=5000), Host(open_files=10), None),
        (Host(), Host(open_files=10_000, memory_free_bytes=0), None),
    ],
)
def test_a_leap_is_a_sudden_growth_of_what_is_told(
    before: Host, after: Host, what: str | None
) -> None:
    assert leap(before, after) == what


def test_an_endless_allocation_is_ended_before_the_next_sample(make: Any) -> None:
    house = make(limits={"memory": GIB})
    house.keeper.begin(resumed=False)
    house.system.advance(5.0)
    house.system.machine = Host(memory_free_bytes=8 * GIB)
    sentinel = Sentinel(house.system, {"inbox": house.keeper})
    sentinel.beat()
    assert house.keeper.run.wish is None
    house.process.rss_bytes = 2 * GIB
    house.system.machine = Host(memory_free_bytes=6 * GIB)
    sentinel.beat()
    assert house.keeper.run.wish is Wish.MEMORY
    house.system.advance(0.1)
    (ended,) = house.events("run.ended")
    assert (ended["end"], ended["rss_bytes"]) == ("out-of-memory", 2 * GIB)


def test_files_that_leap_are_counted_at_once_and_then_once_a_second(make: Any) -> None:
    house = make(limits={"open_files": 1000})
    house.keeper.begin(resumed=False)
    sentinel = Sentinel(house.system, {"inbox": house.keeper})
    house.system.passes.clear()
    for beat in range(8):
        house.system.machine = Host(open_files=1000 * beat)
        sentinel.beat()
        house.system.advance(0.25)
    assert house.system.passes == ["full", "full"]


def test_a_quiet_machine_costs_no_sample(make: Any) -> None:
    house = make()
    house.keeper.begin(resumed=False)
    house.system.machine = Host(open_files=500, memory_free_bytes=GIB)
    sentinel = Sentinel(house.system, {"inbox": house.keeper})
    house.system.passes.clear()
    for _ in range(1000):
        sentinel.beat()
    assert house.system.passes == []
