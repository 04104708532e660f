"""Without a cgroup, weights count between the sessions of agents, and a post can be let through."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from midwatch.core.starving import Turns
from midwatch.supervisor.machine import procfs
from midwatch.supervisor.machine.linux import LinuxSystem, supported
from midwatch.supervisor.machine.sharing import BEHIND, Sharing
from midwatch.supervisor.machine.system import Caps, Exit, Launch, Process
from midwatch.wire.ids import new_id

DEADLINE_S = 40.0

pytestmark = pytest.mark.skipif(
    not supported() or not Path("/proc/self/autogroup").exists(),
    reason="no autogroups in this kernel",
)

SLEEPER = "import time; time.sleep(600)"

WITH_SESSION = f"""
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", {SLEEPER!r}], start_new_session=True).pid, flush=True)
time.sleep(600)
"""


class Ground:
    def __init__(self) -> None:
        self.system = LinuxSystem(asyncio.get_running_loop(), adopt=False)
        self.output = bytearray()
        self.exits: list[Exit] = []
        self.started: list[Process] = []

    def start(self, agent: str = "one", weight: int = 100, code: str = SLEEPER) -> Process:
        run_id = new_id()
        command = (sys.executable, "-c", code)
        env = {**os.environ, "MIDWATCH_RUN_ID": run_id}
        process = self.system.spawn(
            Launch(
                command, env, "/", run_id, self.output.extend, self.exits.append,
                caps=Caps(cpu_weight=weight), agent=agent,
            )
        )  # fmt: skip
        self.started.append(process)
        return process

    async def close(self) -> None:
        for process in self.started:
            self.system.kill_tree(process)
        await until(lambda: len(self.exits) == len(self.started))
        self.system.close()


async def until(condition: Callable[[], object]) -> None:
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "still not so"
        await asyncio.sleep(0.01)


@pytest.fixture
async def ground() -> AsyncIterator[Ground]:
    one = Ground()
    yield one
    await one.close()


def weight_of(pid: int) -> int:
    """The nice value of the session that the process is in."""
    found = re.search(r"nice (-?\d+)", Path(f"/proc/{pid}/autogroup").read_text())
    assert found is not None
    return int(found[1])


async def test_a_weight_counts_between_the_sessions_of_agents(ground: Ground) -> None:
    light, usual = ground.start(weight=10), ground.start()
    await until(lambda: weight_of(light.pid) == 10)
    assert (weight_of(usual.pid), os.getpriority(os.PRIO_PROCESS, light.pid)) == (0, 10)


async def test_agents_come_after_the_posts_for_a_while_and_no_longer(ground: Ground) -> None:
    before, post = ground.start(), ground.start(agent="")
    ours = Path("/proc/self/autogroup").read_text()  # empty where nobody began a session
    assert ground.system.give_way(0.5)
    assert not ground.system.give_way(0.5)  # they do already
    meanwhile = ground.start("two", weight=50)
    await until(lambda: (weight_of(before.pid), weight_of(meanwhile.pid)) == (BEHIND, BEHIND + 3))
    assert os.getpriority(os.PRIO_PROCESS, before.pid) == BEHIND  # where sessions do not count
    assert (weight_of(post.pid), os.getpriority(os.PRIO_PROCESS, post.pid)) == (0, 0)
    assert Path("/proc/self/autogroup").read_text() == ours
    await until(lambda: (weight_of(before.pid), weight_of(meanwhile.pid)) == (0, 3))


async def test_a_session_that_an_agent_makes_comes_after_the_posts_too(ground: Ground) -> None:
    agent = ground.start(code=WITH_SESSION)
    await until(lambda: ground.output.endswith(b"\n"))
    child = int(ground.output)
    assert ground.system.give_way(600)
    ground.system.sample([agent])
    await until(lambda: weight_of(child) == BEHIND)
    assert os.getpriority(os.PRIO_PROCESS, child) == BEHIND


async def test_nobody_gives_way_where_no_agent_runs(ground: Ground) -> None:
    ground.start(agent="")
    assert not ground.system.give_way(600)


async def test_a_process_with_the_number_of_one_that_ended_is_left_alone(ground: Ground) -> None:
    stranger, agent, last = (ground.start(agent="") for _ in range(3))
    sharing = Sharing(asyncio.get_running_loop())
    sharing.enrol(agent.pid, 5)
    entry = procfs.stat(stranger.pid)
    assert entry is not None
    sharing.see(agent.pid, [entry._replace(started=entry.started - 1)])
    sharing.enrol(last.pid, 5)  # paid after the others
    await until(lambda: weight_of(last.pid) == 5)
    assert (weight_of(agent.pid), weight_of(stranger.pid)) == (5, 0)
    sharing.close()


async def test_a_command_in_our_own_session_is_left_alone(ground: Ground) -> None:
    sharing = Sharing(asyncio.get_running_loop())
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", SLEEPER)
    sharing.enrol(child.pid, 5)
    assert not sharing.give_way(600)
    child.kill()
    await child.wait()
    sharing.close()


async def test_what_a_thread_waited_is_told_and_grows(ground: Ground) -> None:
    burner = ground.start(code="while True: pass")
    first = ground.system.turns(burner)
    if first is None and not procfs.read(f"/proc/{os.getpid()}/schedstat"):
        pytest.skip("this kernel does not count turns")

    def ran() -> float:
        turns = ground.system.turns(burner)
        return turns.ran_s if turns is not None else 0.0

    await until(lambda: ran() > 0.05)
    assert isinstance(ground.system.turns(burner), Turns)
    os.kill(burner.pid, signal.SIGKILL)
    await until(lambda: ground.exits)
    assert ground.system.turns(burner) is None
