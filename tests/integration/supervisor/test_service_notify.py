"""The line to the service manager, over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from midwatch.supervisor.service_notify import ServiceManager


class Fleet:
    """What is watched, by hand."""

    def __init__(self) -> None:
        self.problem: str | None = None

    def states(self) -> Mapping[str, str]:
        return {"a": "running"}

    def trouble(self) -> str | None:
        return self.problem


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def heard(sock: socket.socket) -> list[str]:
    found: list[str] = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(sock.recv(4096).decode())
    return found


def manager(tmp_path: Path, **more: str) -> ServiceManager:
    return ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify"), **more})


async def keep(
    kept: ServiceManager, fleet: Fleet, over: Callable[[], bool], said: list[str]
) -> None:
    """Keep until it is over."""
    task = asyncio.create_task(kept.keep(fleet, said.append))
    async with asyncio.timeout(30):
        while not over():
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_without_a_manager_nothing_is_sent() -> None:
    kept = ServiceManager({})
    kept.ready()
    kept.stopping()
    assert (kept.listens, kept.sent, kept.failed) == (False, 0, 0)


def test_ready_and_stopping_are_told(tmp_path: Path, systemd: socket.socket) -> None:
    kept = manager(tmp_path)
    kept.ready()
    kept.stopping()
    assert heard(systemd) == [
        f"READY=1\nMAINPID={os.getpid()}",
        "STOPPING=1\nSTATUS=agents are asked to end",
    ]


async def test_signs_of_life_come_at_half_the_watchdogs_time(
    tmp_path: Path, systemd: socket.socket
) -> None:
    kept = manager(tmp_path, WATCHDOG_USEC="200000")
    began = time.monotonic()
    await keep(kept, Fleet(), lambda: kept.sent >= 5, [])
    assert time.monotonic() - began > 0.25, "one at once, and the next three after 0.1 s each"
    assert heard(systemd)[:5] == ["WATCHDOG=1", "STATUS=1 agent: 1 running", *["WATCHDOG=1"] * 3]


async def test_a_supervisor_in_trouble_gives_no_sign_of_life(
    tmp_path: Path, systemd: socket.socket
) -> None:
    fleet, said = Fleet(), list[str]()
    fleet.problem = "the supervisor's task 'tick' has died"
    kept = manager(tmp_path, WATCHDOG_USEC="100000")
    await keep(kept, fleet, lambda: kept.withheld >= 3, said)
    assert heard(systemd) == [f"STATUS={fleet.problem}"]
    assert said == [f"midwatch: {fleet.problem}; the service manager will start Midwatch again"]


async def test_a_blocked_loop_gives_none_either(tmp_path: Path, systemd: socket.socket) -> None:
    kept = manager(tmp_path, WATCHDOG_USEC="100000")
    task = asyncio.create_task(kept.keep(Fleet(), print))
    await asyncio.sleep(0)  # its first turn
    before = len(heard(systemd))
    until = asyncio.get_running_loop().time() + 0.3
    while asyncio.get_running_loop().time() < until:
        pass  # the loop does not turn
    assert (before, heard(systemd)) == (2, [])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_a_watchdog_that_is_meant_for_another_process_is_not_fed(tmp_path: Path) -> None:
    assert manager(tmp_path, WATCHDOG_USEC="100000", WATCHDOG_PID="1").watchdog_s is None
    mine = manager(tmp_path, WATCHDOG_USEC="100000", WATCHDOG_PID=str(os.getpid()))
    assert mine.watchdog_s == 0.1
    assert manager(tmp_path, WATCHDOG_USEC="x").watchdog_s is None


async def test_a_reload_is_announced_and_ends_ready_also_when_it_fails(
    tmp_path: Path, systemd: socket.socket
) -> None:
    async def reload() -> None:
        raise ValueError("the file is wrong")

    with pytest.raises(ValueError, match="the file is wrong"):
        await manager(tmp_path).telling(reload)()
    first, second = heard(systemd)
    assert first.startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert second.startswith("READY=1")


def test_a_manager_that_is_gone_is_counted_not_raised(tmp_path: Path) -> None:
    kept = manager(tmp_path)
    kept.ready()
    assert (kept.sent, kept.failed) == (0, 1)


def test_an_abstract_address_is_spoken_to() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        name = f"midwatch-test-{os.getpid()}"
        sock.bind(f"\0{name}")
        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert sock.recv(100).startswith(b"READY=1")
