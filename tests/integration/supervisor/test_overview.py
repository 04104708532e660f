"""One look at the processes of all runs, which serves each of them until it is old."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from midwatch.supervisor.machine import linux, overview
from midwatch.supervisor.machine.linux import LinuxSystem
from midwatch.supervisor.machine.system import Launch, Process
from midwatch.wire.ids import new_id

pytestmark = pytest.mark.skipif(not linux.supported(), reason="needs Linux with pidfds")

DEADLINE_S = 60.0


class Crowd:
    def __init__(self, folder: Path) -> None:
        self.system = LinuxSystem(asyncio.get_running_loop())
        self.folder = folder
        self.runs: list[Process] = []
        self.ended = 0

    async def launch(self) -> Process:
        """Start an agent with one child."""
        process = self.system.spawn(
            Launch(
                command=("sh", "-c", "sleep 600 & exec sleep 500"),
                env=dict(os.environ),
                cwd=str(self.folder),
                run_id=new_id(),
                on_output=lambda _: None,
                on_exit=self._count,
                agent="tested",
            )
        )
        self.runs.append(process)
        await self.until(lambda: [m.name for m in self.system.members(process)] == ["sleep 600"])
        return process

    def _count(self, _: object) -> None:
        self.ended += 1

    def seen(self, process: Process) -> list[int]:
        """Return what a look that need not be certain shows alive."""
        found = self.system.members(process, certain=False)
        return [m.pid for m in found if m.state != "Z"]

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, "still not so"
            await asyncio.sleep(0.01)


@pytest.fixture
async def crowd(tmp_path: Path) -> AsyncIterator[Crowd]:
    one = Crowd(tmp_path)
    yield one
    for process in one.runs:
        await one.until(lambda p=process: one.system.kill_tree(p) == 0)
    await one.until(lambda: one.ended == len(one.runs))
    one.system.close()


async def test_one_look_at_all_runs_serves_each_until_it_is_old(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [await crowd.launch() for _ in range(6)]
    monkeypatch.setattr(overview, "FRESH_S", 3600.0)
    for process in runs:
        (member,) = crowd.system.members(process)
        (seen,) = crowd.system.members(process, certain=False)
        assert (seen.pid, seen.started, seen.parent) == (member.pid, member.started, process.pid)
        assert (seen.session, seen.name, seen.claim) == (member.session, "sleep 600", member.claim)
    later = await crowd.launch()  # it is not in that look
    assert len(crowd.seen(later)) == 1
    (gone,) = crowd.system.members(runs[0])
    assert crowd.system.kill_member(gone)
    await crowd.until(lambda: crowd.system.members(runs[0])[0].state == "Z")
    assert crowd.seen(runs[0]) == [gone.pid]
    monkeypatch.setattr(overview, "FRESH_S", 0.0)
    assert crowd.seen(runs[0]) == []
