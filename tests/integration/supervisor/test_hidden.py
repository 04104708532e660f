"""Processes that /proc does not show: what a run started dies with it all the same.

Where /proc is mounted with hidepid, a child that is not dumpable has no folder there for anybody but
root. Here it is hidden by hand, so that everybody can run the test: the kills are real.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable

import pytest

from midwatch.supervisor.machine import linux, mark, procfs
from midwatch.supervisor.machine.lineage import Lineage
from midwatch.supervisor.machine.linux import LinuxSystem
from midwatch.supervisor.machine.system import Exit, Launch, Process
from midwatch.wire.ids import new_id

pytestmark = [
    pytest.mark.skipif(not linux.supported(), reason="needs Linux with pidfds"),
    pytest.mark.skipif(not mark.ceiling(), reason="needs a limit of message queues"),
]

DEADLINE_S = 30.0

FAMILY = """
import os, sys, time
def told(name): os.write(1, f"{name}={os.getpid()} ".encode())
if os.fork() == 0:
    told("group"); time.sleep(600)
if os.fork() == 0:
    os.setsid()
    told("session")
    if os.fork() == 0:
        os.setsid()
        told("grandchild"); time.sleep(600)
    time.sleep(600)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        told("daemon"); time.sleep(600)
    os._exit(0)
os.wait()
told("main")
time.sleep(float(sys.argv[1]))
"""

EVERYBODY = frozenset({"main", "group", "session", "grandchild", "daemon"})


def hide(monkeypatch: pytest.MonkeyPatch, hidden: set[int]) -> None:
    """Let /proc show nothing of these processes; the list of our own children names them still."""
    stat, pids, read = procfs.stat, procfs.pids, procfs.read
    children_of = procfs.children_of

    def stat_(pid: int) -> procfs.Stat | None:
        return None if pid in hidden else stat(pid)

    def children_of_(pid: int) -> list[int]:
        return [] if pid in hidden else children_of(pid)

    def read_(path: str, limit: int = 4096) -> bytes | None:
        part = path.split("/")[2]
        return None if part.isdigit() and int(part) in hidden else read(path, limit)

    monkeypatch.setattr(procfs, "hides", lambda: True)
    monkeypatch.setattr(procfs, "stat", stat_)
    monkeypatch.setattr(procfs, "pids", lambda: [pid for pid in pids() if pid not in hidden])
    monkeypatch.setattr(procfs, "children_of", children_of_)
    monkeypatch.setattr(procfs, "read", read_)


class Ground:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hidden: set[int] = set()
        self.exits: list[Exit] = []
        self.output = bytearray()
        hide(monkeypatch, self.hidden)
        self.system = LinuxSystem(asyncio.get_running_loop())

    async def run(self, lives_s: float, who: frozenset[str]) -> tuple[Process, dict[str, int]]:
        run_id = new_id()
        launch = Launch(
            (sys.executable, "-c", FAMILY, str(lives_s)),
            {**os.environ, "MIDWATCH_RUN_ID": run_id},
            "/",
            run_id,
            self.output.extend,
            self.exits.append,
        )
        process = self.system.spawn(launch)
        await self.until(lambda: self.output.count(b"=") == len(EVERYBODY))
        found = {k: int(v) for k, v in (w.split("=") for w in self.output.decode().split())}
        self.hidden.update(found[name] for name in who)
        return process, found

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"{self.exits} {bytes(self.output)!r}"
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
async def ground(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ground]:
    made = Ground(monkeypatch)
    yield made
    made.hidden.clear()
    made.system.close()


HIDING = pytest.mark.parametrize(
    "who",
    [frozenset({"group", "session", "grandchild", "daemon"}), EVERYBODY, frozenset({"session"})],
    ids=["all-below", "the-agent-too", "one-in-the-middle"],
)


@HIDING
async def test_who_is_hidden_is_killed_with_the_tree(ground: Ground, who: frozenset[str]) -> None:
    process, family = await ground.run(600, who)
    await ground.until(lambda: ground.system.kill_tree(process) == 0 and ground.exits)
    assert ground.exits[0].signal == 9
    await ground.until(lambda: not any(alive(pid) for pid in family.values()))


@HIDING
async def test_who_is_hidden_does_not_outlive_the_run(ground: Ground, who: frozenset[str]) -> None:
    _, family = await ground.run(0.3, who)
    await ground.until(lambda: ground.exits)
    assert ground.exits[0].code == 0
    await ground.until(lambda: not any(alive(pid) for pid in family.values()))


def test_who_is_hidden_and_belongs_to_nobody_ends_with_the_instance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was our child before, we did not start: a shell's, that became us by exec."""
    hidden: set[int] = set()
    hide(monkeypatch, hidden)

    def child() -> int:
        pid = os.posix_spawn("/bin/sleep", ["sleep", "600"], {})
        hidden.add(pid)
        return pid

    before, after = child(), 0
    try:
        lineage = Lineage({}, b"salt", adopt=True)
        after = child()
        assert lineage.kill_strays() == 1
        assert os.waitstatus_to_exitcode(os.waitpid(after, 0)[1]) == -9
        assert alive(before)
    finally:
        os.kill(before, 9)
        os.waitpid(before, 0)


@pytest.mark.parametrize(
    ("options", "status", "groups", "hides"),
    [
        ("rw", "", [], False),
        ("rw,hidepid=0", "", [], False),
        ("rw,hidepid=off", "", [], False),
        ("rw,hidepid=2", "", [1000], True),
        ("rw,hidepid=invisible", "CapEff:\t0000000000000000\n", [1000], True),
        ("rw,hidepid=noaccess", "", [], True),
        ("rw,gid=4,hidepid=2", "", [4, 1000], False),
        ("rw,gid=4,hidepid=2", "", [1000], True),
        ("rw,gid=4,hidepid=ptraceable", "", [4], True),
        ("rw,hidepid=2", "CapEff:\t000001ffffffffff\n", [0], False),
        ("rw,hidepid=2", "CapEff:\t00000000a80425fb\n", [1000], True),
    ],
)
def test_whether_proc_hides_processes_is_read_from_how_it_is_mounted(
    options: str, status: str, groups: list[int], hides: bool
) -> None:
    mounts = (
        "20 1 0:5 / /dev rw - devtmpfs dev rw,hidepid=2\n"
        f"21 1 0:20 / /proc rw,nosuid shared:5 - proc proc {options}\n"
        "22 21 0:30 / /proc/sys/fs/binfmt_misc rw - autofs x rw\n"
    )
    assert procfs.is_hiding(mounts.encode(), status.encode(), groups) is hides
