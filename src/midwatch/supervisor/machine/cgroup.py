"""One cgroup (v2) per run, where a subtree of them is delegated to us.

The kernel then does what sampling can only follow: it holds memory and processes to their limits,
shares the processor, kills a whole run at once however fast it forks, and says which run it killed
for memory. Layout below the delegated directory: a leaf `midwatch.supervisor` for ourselves and the
hub, because a cgroup with controllers may hold no processes of its own, and `run.AGENT.RUN` per run.

Under systemd a directory that we may write is not yet ours: root may write all of them, a user all of
its own manager's. Whose it is, systemd writes onto the unit's cgroup (`user.delegate`).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
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

SYSTEMD: Final = Path("/run/systemd/system")
"""There while systemd is the machine's manager: sd_booted(3)."""

UNITS: Final = (".service", ".scope", ".slice")
"""What the cgroup of a unit of systemd's ends with."""

MARKS: Final = ("trusted.delegate", "user.delegate")
"""What systemd writes onto a cgroup that is delegated: the second one since 251, for those who may not
read the first."""

ATTEMPTS: Final = 5
"""How often we try to leave a cgroup in which processes are being made."""

KILL_S: Final = 0.03
"""How long the killing of one process after the other may keep the loop; the rest is for the next call."""

BATCH: Final = 256
"""Processes that are pinned at one time."""

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
        if found and self.kills:
            self._write("cgroup.kill", "1")
        elif found:
            self._kill_each()
        return found

    @property
    def kills(self) -> bool:
        """The kernel kills it as a whole: Linux 5.14."""
        return (self.path / "cgroup.kill").exists()

    def _kill_each(self) -> None:
        """Do the same on an older kernel: what is frozen forks no more, and SIGKILL reaches it there.

        Each is pinned before the list is read again, so that no number has become a stranger's."""
        until = time.monotonic() + KILL_S
        self._write("cgroup.freeze", "1")
        killed: set[int] = set()
        while fresh := [pid for pid in self.pids() if pid not in killed][:BATCH]:
            with contextlib.ExitStack() as stack:
                pinned = dict(_pin(fresh, stack))
                inside = set(self.pids())
                for pid, fd in pinned.items():
                    if pid in inside:
                        with contextlib.suppress(OSError):
                            signal.pidfd_send_signal(fd, signal.SIGKILL)
            killed.update(fresh)
            if time.monotonic() > until:
                break
        self._write("cgroup.freeze", "0")

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


def _pin(pids: Iterable[int], stack: contextlib.ExitStack) -> Iterator[tuple[int, int]]:
    for pid in pids:
        with contextlib.suppress(OSError):
            fd = os.pidfd_open(pid)
            stack.callback(os.close, fd)
            yield pid, fd


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
                cgroup.kill()
        return count

    def release(self) -> None:
        """Take the controllers back, at our end.

        Who starts the service again puts its first process into this very directory, which the kernel
        refuses (EBUSY) as long as children of it have controllers; and a run that not even SIGKILL ends
        would keep them."""
        for name in sorted(self.controllers):
            with contextlib.suppress(OSError):
                _put(self.base / "cgroup.subtree_control", f"-{name}")


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
    return inspect(base, point)


def inspect(base: Path, point: Path = ROOT, systemd: Path = SYSTEMD) -> Survey:
    """Tell whether this directory can hold cgroups of ours. `point`: where its file system begins."""
    try:
        there = frozenset((base / "cgroup.controllers").read_text().split())
    except OSError as error:
        return Survey(None, f"{base} cannot be read ({error.strerror})")
    controllers = there & set(WANTED)
    if not controllers:
        return Survey(None, "cgroup v2 has no controllers here: they belong to cgroup v1")
    if not os.access(base, os.W_OK) or not os.access(base / "cgroup.subtree_control", os.W_OK):
        return Survey(None, f"{base} is not ours to write; under systemd use Delegate=yes")
    if systemd.exists() and (unit := _kept(base, point)) is not None:
        return Survey(
            None,
            f"systemd keeps the cgroup of {unit} for itself; give it Delegate=yes, or start Midwatch "
            "as a service (midwatch install-service)",
        )
    others = _strangers(base)
    if others:
        return Survey(
            None,
            f"{base} also holds {others} processes that are not ours: start Midwatch as a service, "
            "or by `systemd-run --user --scope -p Delegate=yes`",
        )
    if not (base / "cgroup.type").exists() and systemd.exists():
        return Survey(None, "the machine's root cgroup belongs to systemd")
    return Survey(base, f"cgroup v2 at {base}", controllers)


def _kept(base: Path, point: Path) -> str | None:
    """Return the unit whose cgroup this is part of, when systemd has not delegated it."""
    up = [path for path in (base, *base.parents) if path.is_relative_to(point) and path != point]
    unit = next((path for path in up if path.name.endswith(UNITS)), None)
    if unit is None or _is_marked(unit):
        return None
    # a user may write what its own manager has for itself, and that one is marked; where nothing above
    # is, the directory was given to this user, maybe by a systemd that does not mark for users
    owns_all = os.geteuid() == 0 or any(_is_marked(path) for path in up)
    return unit.name if owns_all else None


def _is_marked(path: Path) -> bool:
    for name in MARKS:
        with contextlib.suppress(OSError):
            if os.getxattr(path, name) == b"1":
                return True
    return False


def _put(path: Path, text: str) -> None:
    path.write_text(text)


def claim(found: Survey, put: Callable[[Path, str], None] = _put) -> Cgroups | Survey:
    """Move ourselves into a leaf and hand the controllers to the runs' cgroups.

    Returns the survey with a reason when the kernel refuses. `put` writes to the kernel."""
    base = found.base
    if base is None:
        return found
    leaf = base / LEAF
    try:
        leaf.mkdir(exist_ok=True)
        control = base / "cgroup.subtree_control"
        for _ in range(ATTEMPTS):
            _move(_pids(base), leaf, put)
            _enable(control, found.controllers, put)
            # who was being made meanwhile is still in it, and then nothing can be had (EBUSY)
            if found.controllers <= set(_read_words(control)) or not _pids(base):
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


def _enable(control: Path, controllers: frozenset[str], put: Callable[[Path, str], None]) -> None:
    wanted = [f"+{name}" for name in sorted(controllers - set(_read_words(control)))]
    for words in ([" ".join(wanted)], wanted) if wanted else ():
        for word in words:  # together; when one cannot be had, one by one
            with contextlib.suppress(OSError):
                put(control, word)
        if controllers <= set(_read_words(control)):
            return


def _move(pids: Iterable[int], leaf: Path, put: Callable[[Path, str], None]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            put(leaf / "cgroup.procs", str(pid))


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
