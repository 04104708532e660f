"""Cgroups of runs: on the kernel's own where we may make some, and on a made-up tree for the limits."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from midwatch.supervisor.machine import cgroup, linux, procfs
from midwatch.supervisor.machine.cgroup import LEAF, Cgroup, Cgroups, Survey, claim, inspect, survey
from midwatch.supervisor.machine.linux import LinuxSystem
from midwatch.supervisor.machine.system import Caps, Exit, Launch, Process
from midwatch.wire.ids import new_id

pytestmark = pytest.mark.skipif(not linux.supported(), reason="needs Linux with pidfds")

DEADLINE_S = 15.0
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


def test_a_directory_with_only_us_in_it_is_claimed(base: Path) -> None:
    found = inspect(base)
    assert (found.base, found.controllers) == (base, ALL)
    claimed = claim(found)
    assert isinstance(claimed, Cgroups)
    assert (claimed.base, claimed.controllers) == (base, ALL)
    assert (base / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (base / LEAF / "cgroup.procs").read_text() == str(os.getpid())
    assert (base / LEAF / "cpu.weight").read_text() == "1000"  # one run has 100


def test_why_there_is_no_cgroup_is_said(base: Path) -> None:
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        write(base, cgroup__procs=f"{os.getpid()}\n1\n")
        if os.getppid() != 1 and 1 not in procfs.ourselves():
            assert "1 processes that are not ours" in inspect(base).why
        write(base, cgroup__procs=f"{os.getpid()}\n{stranger.pid}\n")
        assert inspect(base).base == base  # it came from us
    finally:
        stranger.kill()
        stranger.wait()
    write(base, cgroup__controllers="\n")
    assert "has no controllers here" in inspect(base).why
    (base / "cgroup.controllers").unlink()
    assert "cannot be read" in inspect(base).why


def test_a_supervisor_in_the_leaf_keeps_the_others_out(base: Path) -> None:
    (base / LEAF).mkdir()
    write(base, cgroup__procs="")
    write(base / LEAF, cgroup__procs=f"{os.getpid()}\n{4_000_000}\n")
    assert "processes that are not ours" in inspect(base).why


@pytest.mark.parametrize(
    ("mount", "ours", "where"),
    [
        ("/", "/user.slice/midwatch.service", "user.slice/midwatch.service"),
        ("/", "/", "."),
        ("/docker/12", "/docker/12", "."),
        ("/docker/12", "/docker/12/inner", "inner"),
        ("/", f"/a/{LEAF}", "a"),
    ],
    ids=["service", "container", "no namespace", "below", "again"],
)
def test_our_cgroup_is_found_in_what_is_mounted(
    tmp_path: Path, mount: str, ours: str, where: str
) -> None:
    proc, point = tmp_path / "proc", tmp_path / "mount"
    proc.mkdir()
    write(
        proc,
        cgroup=f"4:memory:/x\n0::{ours}\n",
        mountinfo=f"30 1 0:26 {mount} {point} rw shared:9 - cgroup2 cgroup2 rw\n",
    )
    base = point / where
    base.mkdir(parents=True)
    write(base, cgroup__controllers="memory pids\n", cgroup__subtree_control="", cgroup__type="x")
    write(base, cgroup__procs="")
    found = survey(proc)
    assert (found.base, found.controllers) == (base, frozenset({"memory", "pids"}))


def test_without_a_mount_there_is_none(tmp_path: Path) -> None:
    write(tmp_path, cgroup="0::/\n", mountinfo="30 1 0:26 / /proc rw - proc proc rw\n")
    assert survey(tmp_path) == Survey(None, "no cgroup v2 is mounted")


def mark(folder: Path) -> None:
    try:
        os.setxattr(folder, "user.delegate", b"1")
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error}")


@pytest.fixture
def unit(tmp_path: Path, base: Path) -> Path:
    """The directory as that of a service in a user's manager, which is delegated to the user."""
    manager = tmp_path / "user@1000.service"
    manager.mkdir()
    mark(manager)
    return base.rename(manager / "midwatch.service")


def look(tmp_path: Path, base: Path, *, systemd: bool = True) -> Survey:
    return inspect(base, tmp_path, tmp_path if systemd else tmp_path / "no such thing")


def test_what_systemd_keeps_for_itself_is_left_to_it_though_we_may_write(
    tmp_path: Path, unit: Path
) -> None:
    found = look(tmp_path, unit)
    assert found.base is None
    assert "systemd keeps the cgroup of midwatch.service for itself" in found.why
    assert "Delegate=yes" in found.why
    assert look(tmp_path, unit, systemd=False).base == unit
    mark(unit)
    assert look(tmp_path, unit).base == unit


def test_a_directory_below_a_unit_is_the_units(tmp_path: Path, unit: Path) -> None:
    inner = unit / "supervisor"
    unit.rename(tmp_path / "inner")
    unit.mkdir()
    (tmp_path / "inner").rename(inner)
    assert "midwatch.service" in look(tmp_path, inner).why
    mark(unit)
    assert look(tmp_path, inner).base == inner


@pytest.mark.parametrize(("uid", "ours"), [(0, False), (1000, True)], ids=["root", "a user"])
def test_without_any_mark_root_keeps_away_and_a_user_was_given_it(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, uid: int, ours: bool
) -> None:
    """A systemd before 251 marks for root only; but what it keeps a user may not write."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    unit = base.rename(tmp_path / "midwatch.service")
    assert (look(tmp_path, unit).base == unit) is ours


class Kernel:
    """Writes to a made-up tree what the kernel would: a process is in one cgroup, and one that holds
    processes gives no controllers to others."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.newborn = [4_000_000]
        """Who is forked in the base as soon as we leave it."""
        self.refused = 0

    def put(self, path: Path, text: str) -> None:
        procs = self.base / "cgroup.procs"
        inside = procs.read_text().split()
        if path.name == "cgroup.procs":
            inside.remove(text)
            inside += [str(self.newborn.pop())] if self.newborn else []
            procs.write_text("".join(f"{pid}\n" for pid in inside))
            with path.open("a") as file:
                file.write(f"{text}\n")
        elif inside:
            self.refused += 1
            raise OSError(errno.EBUSY, "Device or resource busy")
        else:
            given = set(path.read_text().split())
            for word in text.split():
                (given.add if word[0] == "+" else given.discard)(word[1:])
            path.write_text(" ".join(sorted(given)))


def test_who_is_forked_while_we_leave_is_taken_along(base: Path) -> None:
    kernel = Kernel(base)
    claimed = claim(inspect(base), kernel.put)
    assert isinstance(claimed, Cgroups)
    assert (claimed.controllers, kernel.refused > 0) == (ALL, True)
    moved = (base / LEAF / "cgroup.procs").read_text().split()
    assert moved == [str(os.getpid()), "4000000"]


def test_who_forks_without_end_leaves_us_without_cgroups_and_with_a_reason(base: Path) -> None:
    kernel = Kernel(base)
    kernel.newborn = list(range(4_000_000, 4_001_000))
    claimed = claim(inspect(base), kernel.put)
    assert isinstance(claimed, Survey)
    assert "gives no controllers" in claimed.why


def test_at_the_end_the_directory_may_hold_processes_again(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(base)
    monkeypatch.setattr(cgroup, "_put", kernel.put)
    claimed = claim(inspect(base), kernel.put)
    assert isinstance(claimed, Cgroups)
    (base / "cgroup.subtree_control").write_text("cpu io memory pids")
    assert claimed.make("stuck", "run", Caps()) is not None  # nothing ends it
    claimed.release()
    assert (base / "cgroup.subtree_control").read_text() == "io"


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
        assert [child.wait(5) for child in inside] == [-9, -9, -9]
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
        assert stranger.wait(5) == -9


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
import os, time
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
    run = subprocess.Popen([sys.executable, "-c", FORKS])
    (made.path / "cgroup.procs").write_text(str(run.pid))
    try:
        deadline = time.monotonic() + DEADLINE_S
        while len(made.pids()) < 50:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        while made.kill() or not made.remove():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert run.wait(5) == -9
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
        assert left.wait(5) == -9
    finally:
        left.kill()
        left.wait()
    assert cgroups.left() == []


def alive(pid: int) -> bool:
    entry = procfs.stat(pid)
    return entry is not None and entry.state not in "ZX"
