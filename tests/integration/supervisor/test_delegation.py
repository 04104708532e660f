"""Whether a cgroup is ours to divide, and how it is taken and given back: on made-up trees."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from midwatch.supervisor.machine import cgroup, linux, procfs
from midwatch.supervisor.machine.cgroup import LEAF, Cgroups, Survey, claim, inspect, survey
from midwatch.supervisor.machine.system import Caps

pytestmark = pytest.mark.skipif(not linux.supported(), reason="needs Linux with pidfds")

ALL = frozenset({"memory", "pids", "cpu"})


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
