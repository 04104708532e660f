"""Long work beside the loop: fair, bounded, told once, and not held up by who is stuck."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import pytest

from midwatch.supervisor.machine import aside
from midwatch.supervisor.machine.aside import Aside
from midwatch.supervisor.machine.system import Counters

DEADLINE_S = 30.0


class Bench:
    def __init__(self) -> None:
        self.counters = Counters()
        self.aside = Aside(asyncio.get_running_loop(), "test", self.counters)
        self.told: list[Any] = []
        self.threads: set[int] = set()

    def do(self, work: Generator[None, None, Any]) -> None:
        def done(result: object) -> None:
            self.threads.add(threading.get_ident())
            self.told.append(result)

        self.aside.do(work, done)

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, self.told
            await asyncio.sleep(0.005)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.aside.close()


def steps(count: int, result: object, step_s: float = 0.0) -> Generator[None, None, object]:
    for _ in range(count):
        time.sleep(step_s)
        yield
    return result


async def test_what_came_of_it_is_told_in_the_loops_thread(bench: Bench) -> None:
    for number in range(20):
        bench.do(steps(number, number))
    await bench.until(lambda: len(bench.told) == 20)
    assert sorted(bench.told) == list(range(20))
    assert bench.threads == {threading.get_ident()}


async def test_the_small_does_not_wait_for_the_large(bench: Bench) -> None:
    bench.do(steps(1_000_000, "large", 0.004))
    bench.do(steps(3, "small", 0.004))
    await bench.until(lambda: bench.told)
    assert bench.told == ["small"]


async def test_a_fault_is_counted_told_as_nothing_and_hurts_nobody_else(bench: Bench) -> None:
    def faulty() -> Generator[None]:
        yield
        raise ValueError("a bug")

    bench.do(faulty())
    bench.do(steps(1, "well"))
    await bench.until(lambda: len(bench.told) == 2)
    assert set(bench.told) == {None, "well"}
    assert bench.counters.asides_failed == 1


async def test_who_is_stuck_in_the_kernel_is_left_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "STUCK_S", 0.05)
    loose = threading.Event()

    def stuck() -> Generator[None, None, str]:
        loose.wait()
        yield
        return "late"

    for _ in range(aside.MAX_THREADS - 1):
        bench.do(stuck())
    bench.do(steps(3, "well"))
    await bench.until(lambda: bench.told == ["well"])
    loose.set()
    await bench.until(lambda: len(bench.told) == aside.MAX_THREADS)


async def test_after_the_end_nobody_is_told_and_the_work_stops(bench: Bench) -> None:
    begun, done = threading.Event(), threading.Event()

    def endless() -> Generator[None]:
        try:
            while True:
                begun.set()
                yield
        finally:
            done.set()

    bench.do(endless())
    await bench.until(begun.is_set)
    bench.aside.close()
    await bench.until(done.is_set)
    bench.do(steps(0, "too late"))
    assert bench.told == []


async def test_who_rests_takes_a_bounded_part_of_a_core() -> None:
    resting = Aside(asyncio.get_running_loop(), "test", Counters(), rest=3.0)
    spent: list[float] = []

    began, told = time.monotonic(), asyncio.Event()

    def counted() -> Generator[None]:
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            yield
        spent.append(time.thread_time())

    resting.do(counted(), lambda _: told.set())
    await asyncio.wait_for(told.wait(), DEADLINE_S)
    resting.close()
    assert spent[0] < 0.5 * (time.monotonic() - began)
