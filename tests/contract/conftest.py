"""Fixtures of the suites: the ledger's, and a ground to stand on for the seam to the operating system."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from midwatch.supervisor.machine import linux
from midwatch.supervisor.machine.fake import FakeSystem
from midwatch.supervisor.machine.linux import LinuxSystem
from midwatch.supervisor.machine.portable import PortableSystem
from midwatch.supervisor.machine.system import Caps, Exit, Launch, Process, System

sys.path.insert(0, str(Path(__file__).parents[1]))
from ledgers import another, ledger, nursery, place, server
from spans import clickhouse_server

__all__ = ["another", "clickhouse_server", "ledger", "nursery", "place", "server"]

DEADLINE_S = 30.0

PROGRAM = r"""
import os, signal, subprocess, sys, time
for deed in sys.argv[1].split(";"):
    verb, _, rest = deed.strip().partition(" ")
    if verb == "print": print(rest, flush=True)
    elif verb == "ignore": signal.signal(getattr(signal, "SIG" + rest), signal.SIG_IGN)
    elif verb == "fork": subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    elif verb == "escape": subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    elif verb == "name":
        env = {**os.environ, "MIDWATCH_AGENT": rest}
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=env)
    elif verb == "close": os.close(1); os.close(2)
    elif verb == "ask": print("read " + input("name? "), flush=True)
    elif verb == "daemon":
        # what daemon(3) does, and with nothing left that would name the run
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"], {})
            os._exit(0)
        os.wait()
    elif verb == "zombie":
        if os.fork() == 0: os._exit(0)
    elif verb == "open": kept = [open("/dev/null") for _ in range(int(rest))]
    elif verb == "env": print(os.environ[rest], os.getcwd(), os.getsid(0) == os.getpid(), flush=True)
    elif verb == "exit": sys.stdout.flush(); os._exit(int(rest))
time.sleep(600)
"""


class Ground:
    """A system and what is needed to drive it, real or not."""

    def __init__(self, system: System, folder: Path) -> None:
        self.system = system
        self.folder = folder
        self.output = bytearray()
        self.exits: list[Exit] = []
        self.started: list[Process] = []

    def launch(self, deeds: str, **changes: Any) -> Process:
        run_id = f"run-{len(self.started)}-{os.getpid()}-{id(self)}"
        if isinstance(self.system, FakeSystem):
            command = [deeds]
            if deeds:
                self.system.programs[deeds] = [
                    (0.01 * n, d.strip())
                    for n, d in enumerate(deeds.split(";"))
                    if d.strip() not in ("live", "close")
                ]
        else:
            command = [sys.executable, "-c", PROGRAM, deeds]
        launch = Launch(
            command=changes.get("command", command),
            env={
                **os.environ,
                "MIDWATCH_RUN_ID": run_id,
                "MIDWATCH_SPOOL": str(self.folder / "spool" / "x"),
            },
            cwd=changes.get("cwd", str(self.folder)),
            run_id=run_id,
            on_output=self.output.extend,
            on_exit=self.exits.append,
            caps=changes.get("caps", Caps()),
            agent=changes.get("agent", ""),
            tty=changes.get("tty", False),
            walled=changes.get("walled", False),
            keep_fds=changes.get("keep_fds", ()),
        )
        process = self.system.spawn(launch)
        self.started.append(process)
        return process

    async def until(self, condition: Callable[[], bool]) -> None:
        if isinstance(self.system, FakeSystem):
            for _ in range(1000):
                if condition():
                    return
                self.system.advance(0.01)
        else:
            deadline = asyncio.get_running_loop().time() + DEADLINE_S
            while asyncio.get_running_loop().time() < deadline:
                if condition():
                    return
                await asyncio.sleep(0.01)
        pytest.fail(f"still not so: output {bytes(self.output)!r}, exits {self.exits}")


KINDS = ["fake", "portable", *(["linux"] if linux.supported() else [])]


@pytest.fixture(params=KINDS)
async def ground(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    loop = asyncio.get_running_loop()
    made: dict[str, Callable[[], System]] = {
        "fake": FakeSystem,
        "portable": lambda: PortableSystem(loop),
        "linux": lambda: LinuxSystem(loop),
    }
    ground = Ground(made[request.param](), tmp_path)
    yield ground
    for process in ground.started:
        while ground.system.kill_tree(process):
            await asyncio.sleep(0.01)
    if request.param != "fake":
        await ground.until(lambda: len(ground.exits) == len(ground.started))
    ground.system.close()
