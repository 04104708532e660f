"""Memory that a tree shares, measured beside the loop on the kernel's own page tables."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest

from midwatch.supervisor.machine import linux, procfs
from midwatch.supervisor.machine.linux import LinuxSystem
from midwatch.supervisor.machine.meter import proportional
from midwatch.supervisor.machine.system import Exit, Launch, Process
from midwatch.wire.ids import new_id

pytestmark = pytest.mark.skipif(not linux.supported(), reason="needs Linux with pidfds")

MIB = 1 << 20
DEADLINE_S = 30.0

FAMILY = """
import os, time
model = bytearray(os.urandom(64 << 20))
for _ in range(3):
    if os.fork() == 0:
        print(".", end="", flush=True)
        time.sleep(600)
print(".", end="", flush=True)
time.sleep(600)
"""


class Ground:
    def __init__(self) -> None:
        self.system = LinuxSystem(asyncio.get_running_loop())
        self.output = bytearray()
        self.exits: list[Exit] = []

    def run(self, program: str) -> Process:
        run_id = new_id()
        env = {**os.environ, "MIDWATCH_RUN_ID": run_id}
        command = (sys.executable, "-c", program)
        return self.system.spawn(
            Launch(command, env, "/", run_id, self.output.extend, self.exits.append)
        )

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"{self.exits} {bytes(self.output)!r}"
            await asyncio.sleep(0.01)


@pytest.fixture
async def ground() -> AsyncIterator[Ground]:
    made = Ground()
    yield made
    made.system.close()


async def test_what_is_shared_counts_once_and_is_told_later_in_the_loop(ground: Ground) -> None:
    process = ground.run(FAMILY)
    await ground.until(lambda: len(ground.output) == 4)
    told: list[tuple[int | None, int]] = []
    ground.system.footprint(process, lambda found: told.append((found, threading.get_ident())))
    assert told == []
    await ground.until(lambda: told)
    found, thread = told[0]
    assert thread == threading.get_ident()
    assert found is not None
    assert 64 * MIB < found < 128 * MIB
    assert ground.system.sample([process])[process.pid].rss_bytes > 256 * MIB
    await ground.until(lambda: ground.system.sample([process])[process.pid].pss_bytes)
    ground.system.kill_tree(process)
    await ground.until(lambda: ground.exits)
    ground.system.footprint(process, lambda found: told.append((found, 0)))
    await ground.until(lambda: len(told) == 2)
    assert told[1] == (None, 0)


async def test_a_daemon_of_the_run_is_measured_with_it(ground: Ground) -> None:
    """What the sum counts is what is measured: less would let a limit be passed by a double fork."""
    daemon = (
        "import os, time\nif os.fork(): time.sleep(600)\nos.setsid()\nif os.fork(): os._exit(0)\n"
    )
    process = ground.run(daemon + "kept = os.urandom(64 << 20)\nprint('.')\n" + "time.sleep(600)")
    await ground.until(lambda: ground.output)
    told: list[int | None] = []
    ground.system.footprint(process, told.append)
    await ground.until(lambda: told)
    assert (told[0] or 0) > 64 * MIB
    ground.system.kill_tree(process)
    await ground.until(lambda: ground.exits and ground.system.kill_tree(process) == 0)


async def test_who_ended_while_it_was_measured_uses_nothing_and_spoils_nothing(
    ground: Ground,
) -> None:
    process = ground.run(FAMILY)
    await ground.until(lambda: len(ground.output) == 4)
    entries = list(procfs.stats([process.pid, *procfs.below(process.pid)]).values())
    gone = entries[0]._replace(pid=2**22 + 1)
    another = entries[0]._replace(started=entries[0].started + 1)
    steps = proportional([gone, *entries, another])
    found: int | None = None
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found = end.value
            break
    assert found is not None
    assert 64 * MIB < found < 128 * MIB
    ground.system.kill_tree(process)
    await ground.until(lambda: ground.exits)
