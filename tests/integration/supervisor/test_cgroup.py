"""Cgroups of runs: on the kernel's own where we may make some, and on a made-up tree for the limits."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from midwatch.supervisor.machine import cgroup, linux, procfs
from midwatch.supervisor.machine.cgroup import Cgroup, Cgroups
from midwatch.supervisor.machine.linux import LinuxSystem
from midwatch.supervisor.machine.system import Caps, Exit, Launch, Process
from midwatch.wire.ids import new_id

pytestmark = pytest.mark.skipif(not linux.supported(), reason="needs Linux with pidfds")

DEADLINE_S = 30.0
ALL = frozenset({"memory", "pids", "cpu"})


# -- a made-up tree ------------------------------------------------------------------------------


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory that looks delegated: nobody in it but us."""
    base = tmp_path / "cgroup"
    base.mkdir()
    (base / "cgroup.type").write_text("domain\n")
    (base / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (base / "cgroup.subtree_control").write_text("")
    (base / "cgroup.procs").write_text(f"{os.getpid()}\n")
    return base


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_limits_are_written_where_the_kernel_reads_them(base: Path) -> None:
    caps = Caps(memory_bytes=1 << 30, processes=256, cpu_weight=50)
    made = Cgroups(base, ALL).make("in/bo x.1", "0123-run", caps)
    assert made is not None
    assert made.path.name == "run.in_bo_x_1.0123-run"
    found = {path.name: path.read_text() for path in made.path.iterdir()}
    assert found == {
        "memory.max": "1073741824",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "256",
        "cpu.weight": "50",
    }


def test_what_is_not_delegated_is_not_written(base: Path) -> None:
    caps = Caps(memory_bytes=1 << 30, processes=256)
    made = Cgroups(base, frozenset({"pids"})).make("inbox", "run", caps)
    assert made is not None
    assert [path.name for path in made.path.iterdir()] == ["pids.max"]
    assert (made.has("memory"), made.has("pids")) == (False, True)


def test_a_limit_that_the_kernel_refuses_does_not_count_as_held(base: Path) -> None:
    caps = Caps(memory_bytes=1 << 30, processes=256)
    made = Cgroups(base, ALL).make("inbox", "run", caps)
    assert made is not None
    assert (made.whole, made.holds_to) == (True, ALL)
    (made.path / "memory.max").unlink()
    (made.path / "memory.max").mkdir()  # where nothing can be written
    assert not made.cap(caps)
    assert made.holds_to == {"pids", "cpu"}
    assert made.cap(Caps())  # who has no limits is refused none
    assert made.holds_to == {"cpu"}


def test_memory_is_what_cannot_be_given_back(tmp_path: Path) -> None:
    found = Cgroup(tmp_path, ALL)
    assert (found.memory_bytes(), found.oom_kills(), found.pids()) == (None, None, [])
    write(
        tmp_path,
        memory__current="1000000\n",
        memory__stat="anon 300000\nfile 650000\nshmem 50000\nkernel 50000\n",
        memory__events="low 0\nhigh 0\nmax 9\noom 2\noom_kill 3\noom_group_kill 1\n",
        cgroup__procs="12\n34\n",
    )
    assert found.memory_bytes() == 1_000_000 - 600_000
    assert found.oom_kills() == 3
    assert found.pids() == [12, 34]


def test_a_kernel_that_cannot_kill_a_cgroup_freezes_it_and_kills_each(base: Path) -> None:
    """Linux before 5.14."""
    made = Cgroups(base, ALL).make("inbox", "run", Caps())
    assert made is not None
    inside = [subprocess.Popen(["sleep", "600"], start_new_session=True) for _ in range(3)]
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        write(made.path, cgroup__procs="".join(f"{child.pid}\n" for child in inside))
        assert not made.kills
        assert made.kill() == 3
        assert [child.wait(30) for child in inside] == [-9, -9, -9]
        assert (made.path / "cgroup.freeze").read_text() == "0"
        assert stranger.poll() is None
    finally:
        for child in (*inside, stranger):
            child.kill()
            child.wait()


def test_a_number_that_left_the_cgroup_before_it_was_pinned_is_spared(base: Path) -> None:
    class Moving(Cgroup):
        """Its only process is gone at the second look, and its number is a stranger's."""

        looks = 0

        def pids(self) -> list[int]:
            self.looks += 1
            return [stranger.pid] if self.looks <= 2 else []

    stranger = subprocess.Popen(["sleep", "600"])
    try:
        moving = Moving(base, ALL)
        assert moving.kill() == 1
        assert moving.looks > 2
        assert stranger.poll() is None
    finally:
        stranger.kill()
        assert stranger.wait(30) == -9


# -- the kernel's own ----------------------------------------------------------------------------


def _free() -> Path | None:
    """Return a directory of the kernel's in which we may make cgroups."""
    for point, _ in cgroup._mounts(Path("/proc/self")):  # pyright: ignore[reportPrivateUsage]
        mine = point / f"midwatch-test-{os.getpid()}"
        try:
            mine.mkdir()
        except OSError:
            continue
        possible = (mine / "cgroup.kill").exists()
        mine.rmdir()
        if possible:
            return point
    return None


FREE = _free()
real = pytest.mark.skipif(FREE is None, reason="no cgroup v2 that we may write")

CROWD = """
import os, sys, time
for n in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve("/bin/sleep", ["sleep", "600"], {})
        os._exit(0)
    os.wait()
print("up", flush=True)
sys.stdin.close()
time.sleep(float(sys.argv[1]))
"""


@pytest.fixture
def own() -> Iterator[Path]:
    assert FREE is not None
    path = FREE / f"midwatch-test-{os.getpid()}-{new_id()[-6:]}"
    path.mkdir()
    yield path
    Cgroups(path, frozenset()).clear()
    path.rmdir()


class Ground:
    def __init__(self, system: LinuxSystem) -> None:
        self.system = system
        self.exits: list[Exit] = []
        self.output = bytearray()

    def run(self, *command: str, agent: str = "inbox") -> Process:
        run_id = new_id()
        env = {**os.environ, "MIDWATCH_RUN_ID": run_id}
        heard = (self.output.extend, self.exits.append)
        return self.system.spawn(Launch(command, env, "/", run_id, *heard, agent=agent))

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"{self.exits} {bytes(self.output)!r}"
            await asyncio.sleep(0.01)


@pytest.fixture
async def ground(own: Path) -> AsyncIterator[Ground]:
    system = LinuxSystem(asyncio.get_running_loop(), cgroups=Cgroups(own, frozenset()))
    yield Ground(system)
    system.close()


@real
async def test_all_that_a_run_starts_is_in_its_cgroup_and_dies_at_once(
    ground: Ground, own: Path
) -> None:
    process = ground.run(sys.executable, "-c", CROWD, "600")
    await ground.until(lambda: b"up" in ground.output)
    (made,) = Cgroups(own, frozenset()).left()
    assert made.path.name.startswith("run.inbox.")
    assert len(made.pids()) == 4
    assert len(ground.system.members(process)) == 3
    assert ground.system.kill_tree(process) == 4
    await ground.until(lambda: ground.exits)
    assert (ground.exits[0].signal, ground.exits[0].oom_kills) == (9, None)
    await ground.until(lambda: ground.system.kill_tree(process) == 0)
    ground.system.close()
    assert Cgroups(own, frozenset()).left() == []


@real
async def test_what_a_run_leaves_dies_with_its_cgroup(ground: Ground, own: Path) -> None:
    ground.run(sys.executable, "-c", CROWD, "0")
    await ground.until(lambda: ground.exits)
    assert ground.exits[0].code == 0
    assert len(ground.exits[0].left) == 3
    await ground.until(lambda: not any(alive(m.pid) for m in ground.exits[0].left))
    await ground.until(lambda: Cgroups(own, frozenset()).left() == [])


@real
async def test_posts_stay_where_the_supervisor_is(ground: Ground, own: Path) -> None:
    process = ground.run("sleep", "600", agent="")
    assert Cgroups(own, frozenset()).left() == []
    ground.system.kill_tree(process)
    await ground.until(lambda: ground.exits)


@real
async def test_a_program_that_cannot_be_executed_leaves_no_cgroup(
    ground: Ground, own: Path
) -> None:
    with pytest.raises(linux.StartError):
        ground.run("/no/such/program")
    assert Cgroups(own, frozenset()).left() == []


@real
async def test_a_run_without_its_cgroup_goes_on_and_is_counted(own: Path) -> None:
    gone = Cgroups(own / "gone", frozenset())
    ground = Ground(LinuxSystem(asyncio.get_running_loop(), cgroups=gone))
    ground.run("true")
    await ground.until(lambda: ground.exits)
    assert (ground.exits[0].code, ground.system.counters.cgroups_failed) == (0, 1)
    ground.system.close()


FORKS = """
import os, sys, time
sys.stdin.readline()
while True:
    if os.fork() == 0:
        os.setsid()
        time.sleep(600)
    time.sleep(0.001)
"""


@real
def test_frozen_and_killed_one_by_one_a_crowd_that_forks_dies_too(own: Path) -> None:
    class Older(Cgroup):
        @property
        def kills(self) -> bool:
            return False

    made = Older(own / "run.inbox.run", frozenset())
    made.path.mkdir()
    run = subprocess.Popen([sys.executable, "-c", FORKS], stdin=subprocess.PIPE)
    (made.path / "cgroup.procs").write_text(str(run.pid))
    try:
        # what it forked before it was inside would never be found
        assert run.stdin is not None
        with run.stdin:
            run.stdin.write(b"go\n")
        deadline = time.monotonic() + DEADLINE_S
        while len(made.pids()) < 50:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        while made.kill() or not made.remove():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert run.wait(30) == -9
    finally:
        if made.path.exists():
            (made.path / "cgroup.kill").write_text("1")
        run.kill()
        run.wait()


@real
def test_what_an_earlier_supervisor_left_is_killed_and_removed(own: Path) -> None:
    cgroups = Cgroups(own, frozenset())
    made = cgroups.make("inbox", "run", Caps())
    assert made is not None
    (made.path / "of its own" / "deeper").mkdir(parents=True)
    left = subprocess.Popen(["sleep", "600"])
    (made.path / "of its own" / "cgroup.procs").write_text(str(left.pid))
    try:
        assert not made.remove()
        assert cgroups.clear() == 1
        assert left.wait(30) == -9
    finally:
        left.kill()
        left.wait()
    assert cgroups.left() == []


def alive(pid: int) -> bool:
    entry = procfs.stat(pid)
    return entry is not None and entry.state not in "ZX"
