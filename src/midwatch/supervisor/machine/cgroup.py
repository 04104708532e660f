"""One cgroup (v2) per run, where a subtree of them is delegated to us.

The kernel then does what sampling can only follow: it holds memory and processes to their limits,
shares the processor, kills a whole run at once however fast it forks, and says which run it killed
for memory. Layout below the delegated directory: a leaf `midwatch.supervisor` for ourselves and the
hub, because a cgroup with controllers may hold no processes of its own, and `run.AGENT.RUN` per run.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from midwatch.supervisor.machine import procfs
from midwatch.supervisor.machine.system import Caps

ROOT: Final = Path("/sys/fs/cgroup")

LEAF: Final = "midwatch.supervisor"
PREFIX: Final = "run."

WANTED: Final = ("memory", "pids", "cpu")

LEAF_WEIGHT: Final = 1000
"""`cpu.weight` of supervisor, hub and gateway: ten runs' worth. They use little of it, and what they do
not use is the runs'."""

REMOVE_S: Final = 2.0
"""How long the removal of what an earlier supervisor left may take."""


class Cgroup:
    """One run's cgroup."""

    def __init__(self, path: Path, controllers: frozenset[str]) -> None:
        self.path = path
        self._controllers = controllers
        self.holds_to: frozenset[str] = frozenset()
        """Controllers that hold the run to a limit that the kernel took from us."""
        self.whole = True
        """No limit was refused."""

    def has(self, controller: str) -> bool:
        return controller in self._controllers

    def open_procs(self) -> int:
        """Return an open descriptor: who writes `0` to it is inside. Raises OSError."""
        return os.open(self.path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)

    def pids(self) -> list[int]:
        """Return the processes in it, and in what the run made below it."""
        found: list[int] = []
        for folder, _, _ in os.walk(self.path):
            text = procfs.read_all(f"{folder}/cgroup.procs")
            found.extend(int(line) for line in text.split())
        return found

    def holds(self, pid: int) -> bool:
        """Tell whether the process is in it: the end of its path, because the path that the kernel
        tells begins at our cgroup namespace."""
        lines = (procfs.read(f"/proc/{pid}/cgroup") or b"").split(b"\n")
        return any(
            line.startswith(b"0::") and line.endswith(b"/" + os.fsencode(self.path.name))
            for line in lines
        )

    def kill(self) -> int:
        """SIGKILL all processes at once, those that are being forked too; return how many there were."""
        found = len(self.pids())
        if found:
            self._write("cgroup.kill", "1")
        return found

    def memory_bytes(self) -> int | None:
        """Return the memory that cannot be given back: all but the cache of files."""
        current, stat = self._read("memory.current"), self._read("memory.stat", 1 << 14)
        if not current:
            return None
        numbers = _numbers(stat)
        cache = numbers.get(b"file", 0) - numbers.get(b"shmem", 0)
        return max(0, int(current) - max(0, cache))

    def oom_kills(self) -> int | None:
        """Return how many processes the kernel killed because of this cgroup's limit."""
        return _numbers(self._read("memory.events")).get(b"oom_kill")

    def remove(self) -> bool:
        """Remove it with what the run made below it; False while something lives in it."""
        try:
            below = [Path(found[0]) for found in os.walk(self.path, topdown=False)]
            for path in below:
                path.rmdir()
        except FileNotFoundError:
            return not self.path.exists()
        except OSError:
            return False
        return True

    def _read(self, name: str, limit: int = 4096) -> bytes:
        return procfs.read(f"{self.path}/{name}", limit) or b""

    def _write(self, name: str, text: str) -> bool:
        try:
            (self.path / name).write_text(text)
        except OSError:
            return False
        return True

    def cap(self, caps: Caps) -> bool:
        """Write the limits; tell whether the kernel took all of them. Swap is not memory: at its limit a run is to end, not to crawl. For the same
        reason there is no `memory.high`: who is slowed down by it looks like one that hangs."""
        wanted: dict[str, tuple[str, int | None]] = {
            "memory": ("memory.max", caps.memory_bytes),
            "pids": ("pids.max", caps.processes),
            "cpu": ("cpu.weight", caps.cpu_weight),
        }
        due = {c: (f, str(n)) for c, (f, n) in wanted.items() if self.has(c) and n is not None}
        self.holds_to = frozenset(c for c, (f, text) in due.items() if self._write(f, text))
        if "memory" in self.holds_to:
            self._write("memory.swap.max", "0")  # not there on a kernel without swap
        if self.has("memory"):
            self._write("memory.oom.group", "1")
        return len(self.holds_to) == len(due)


def _numbers(text: bytes) -> dict[bytes, int]:
    pairs = (line.split() for line in text.split(b"\n"))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


@dataclass(frozen=True, slots=True)
class Cgroups:
    """A delegated directory, ready for runs. `controllers` is what it gives to them."""

    base: Path
    controllers: frozenset[str]

    def make(self, agent: str, run_id: str, caps: Caps) -> Cgroup | None:
        """Return a new cgroup with its limits, or None when the kernel refuses one. What it holds the
        run to is in `holds_to`."""
        name = f"{PREFIX}{re.sub(r'[^A-Za-z0-9_-]', '_', agent)[:80]}.{run_id[-40:]}"
        made = Cgroup(self.base / name.replace("/", "_"), self.controllers)
        try:
            made.path.mkdir()
        except OSError:
            return None
        made.whole = made.cap(caps)
        return made

    def left(self) -> list[Cgroup]:
        """Return the cgroups of runs that exist."""
        try:
            found = sorted(self.base.glob(f"{PREFIX}*"))
        except OSError:
            return []
        return [Cgroup(path, self.controllers) for path in found]

    def clear(self) -> int:
        """Kill and remove what an earlier supervisor left; return how many processes lived in it.
        To be called before anything is started."""
        count = 0
        until = time.monotonic() + REMOVE_S
        for cgroup in self.left():
            count += cgroup.kill()
            while not cgroup.remove() and time.monotonic() < until:
                time.sleep(0.005)
        return count


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is: a base directory, or the reason why there is none."""

    base: Path | None
    why: str
    controllers: frozenset[str] = frozenset()


def survey(proc: Path = Path("/proc/self")) -> Survey:
    """Look whether a cgroup v2 subtree is delegated to us; changes nothing."""
    mounts = _mounts(proc)
    if not mounts:
        return Survey(None, "no cgroup v2 is mounted")
    try:
        lines = (proc / "cgroup").read_text().splitlines()
    except OSError as error:
        return Survey(None, f"/proc/self/cgroup cannot be read ({error.strerror})")
    ours = next((line[3:] for line in lines if line.startswith("0::")), None)
    if ours is None or "/.." in ours:
        return Survey(None, "our cgroup is not visible from here")
    point, root = mounts[0]
    base = point / os.path.relpath(ours, root) if ours != root else point
    if base.name == LEAF:
        base = base.parent
    return inspect(base)


def inspect(base: Path) -> Survey:
    """Tell whether this directory can hold cgroups of ours."""
    try:
        there = frozenset((base / "cgroup.controllers").read_text().split())
    except OSError as error:
        return Survey(None, f"{base} cannot be read ({error.strerror})")
    controllers = there & set(WANTED)
    if not controllers:
        return Survey(None, "cgroup v2 has no controllers here: they belong to cgroup v1")
    if not os.access(base, os.W_OK) or not os.access(base / "cgroup.subtree_control", os.W_OK):
        return Survey(None, f"{base} is not ours to write; under systemd use Delegate=yes")
    others = _strangers(base)
    if others:
        return Survey(
            None,
            f"{base} also holds {others} processes that are not ours: start Midwatch as a service, "
            "or by `systemd-run --user --scope -p Delegate=yes`",
        )
    if not (base / "cgroup.type").exists() and Path("/run/systemd/system").exists():
        return Survey(None, "the machine's root cgroup belongs to systemd")
    return Survey(base, f"cgroup v2 at {base}", controllers)


def claim(found: Survey) -> Cgroups | Survey:
    """Move ourselves into a leaf and hand the controllers to the runs' cgroups.

    Returns the survey with a reason when the kernel refuses."""
    base = found.base
    if base is None:
        return found
    leaf = base / LEAF
    try:
        leaf.mkdir(exist_ok=True)
        _move(_pids(base), leaf)
        control = base / "cgroup.subtree_control"
        given = set(_read_words(control))
        wanted = [f"+{name}" for name in sorted(found.controllers - given)]
        for words in ([" ".join(wanted)], wanted) if wanted else ():
            for word in words:  # together; when one cannot be had, one by one
                with contextlib.suppress(OSError):
                    control.write_text(word)
            if found.controllers <= set(_read_words(control)):
                break
        given = _read_words(control)
    except OSError as error:
        return Survey(None, f"{base} cannot be divided ({error.strerror})")
    held = frozenset(given) & found.controllers
    if not held:
        return Survey(None, f"{base} gives no controllers to its children")
    if "cpu" in held:
        with contextlib.suppress(OSError):  # without it they are one among the runs
            (leaf / "cpu.weight").write_text(str(LEAF_WEIGHT))
    return Cgroups(base, held)


def take() -> tuple[Cgroups | None, str]:
    """Take what is delegated to us, empty it of what an earlier supervisor left, and say what it is."""
    found = claim(survey())
    if isinstance(found, Survey):
        return None, found.why
    found.clear()
    return found, f"cgroup v2 at {found.base}"


def _read_words(path: Path) -> list[str]:
    return path.read_text().replace("+", " ").split()


def _move(pids: Iterable[int], leaf: Path) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            (leaf / "cgroup.procs").write_text(str(pid))


def _pids(path: Path) -> list[int]:
    return [int(line) for line in (path / "cgroup.procs").read_text().split()]


def _strangers(base: Path) -> int:
    """Return how many processes in it are neither our ancestors nor came from us."""
    ours = procfs.ourselves() | set(procfs.below(os.getpid()))
    found = {pid for pid in _pids(base) if pid not in ours}
    with contextlib.suppress(OSError):  # another supervisor of ours: it has the leaf for itself
        found |= {pid for pid in _pids(base / LEAF) if pid not in ours}
    return len(found)


def _mounts(proc: Path) -> list[tuple[Path, str]]:
    """Return mount points of cgroup v2, with the cgroup that is seen there."""
    try:
        lines = (proc / "mountinfo").read_text().splitlines()
    except OSError:
        return []
    found: list[tuple[Path, str]] = []
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        if after.startswith("cgroup2 ") and len(fields) > 4:
            found.append((Path(fields[4]), fields[3]))
    return found
