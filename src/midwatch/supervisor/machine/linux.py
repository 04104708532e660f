"""The Linux implementation of the seam: pidfds in the event loop, a parent-death signal, a subreaper.

Invariants:
- A signal never reaches a stranger: groups are signalled while their leader is unreaped, single
  processes through a pidfd whose start time was checked.
- Each child is reaped exactly once, by its pidfd's reader; children that were re-parented to us
  are looked for four times a second. SIGCHLD is not listened to: a fork bomb that dies would fill
  the pipe through which the loop hears of SIGTERM too.
- A child never outlives the supervisor: SIGKILL as parent-death signal, with a check against the
  race in which we die before it is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import select
import signal
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterable
from typing import Final

from midwatch.core.starving import Turns
from midwatch.supervisor.machine import host, launching, mark, procfs, tree
from midwatch.supervisor.machine.aside import Aside
from midwatch.supervisor.machine.cgroup import Cgroup, Cgroups, take
from midwatch.supervisor.machine.child import LinuxProcess, unwrap
from midwatch.supervisor.machine.lineage import Lineage, members_of
from midwatch.supervisor.machine.meter import Meter, proportional
from midwatch.supervisor.machine.overview import Overview
from midwatch.supervisor.machine.procfs import Stat
from midwatch.supervisor.machine.sharing import WEAKEST, Sharing, turns
from midwatch.supervisor.machine.slept import slept
from midwatch.supervisor.machine.standing import stand, waits_for_person
from midwatch.supervisor.machine.stdio import Outlet
from midwatch.supervisor.machine.system import (
    Counters,
    Exit,
    Host,
    Launch,
    Member,
    Process,
    Sample,
    Standing,
    StartError,
    Timer,
)

_PR_SET_CHILD_SUBREAPER: Final = 36

LEFT_TOLD: Final = 100
"""Processes that a run left behind, of which is told."""

HUNT_AGAIN_S: Final = 0.01
"""Between two steps of the killing of a crowd: the loop's time for everybody else."""

REAP_EVERY_S: Final = 0.25
"""How long a zombie that was re-parented to us stays one."""


class LinuxSystem:
    """`System` over a running asyncio loop. Must be used from the main thread: the parent-death
    signal follows the thread that forked."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        adopt: bool = True,
        cgroups: Cgroups | None = None,
        without: str = "no cgroup was asked for",
        salt: bytes = b"",
    ) -> None:
        """`adopt`: become the subreaper, and reap children that nobody here started. Off in tests
        that share their process with others who start children. `cgroups`: where runs get theirs,
        from `cgroup.claim`; `without`: why there are none. `salt`: known to the next
        supervisor of the instance, so that it finds what carries our runs' marks."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "start processes from the main thread: the parent-death signal follows the thread"
            )
        self.counters = Counters()
        self._loop = loop
        self._adopt = adopt
        self._cgroups = cgroups
        self._without = without
        self._emptying = cgroups.left() if cgroups is not None else []
        self._oom_read = float("-inf")
        self._oom_count = 0
        self._processes: dict[int, LinuxProcess] = {}
        self._lineage = Lineage(self._processes, salt or os.urandom(8), adopt=adopt)
        self._overview = Overview(self._lineage, self._processes)
        self._aside = Aside(loop, "midwatch-meter", self.counters)
        self._meter = Meter(self._aside)
        self._sharing = Sharing(loop)
        self._hunts = self._lineage.hunts
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            # inherited from whoever started us, and the kernel would reap our children itself
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._reaping: asyncio.TimerHandle | None = None
        if adopt:
            assert launching.prctl is not None
            launching.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            self._reaping = loop.call_later(REAP_EVERY_S, self._reap)
        # since 3.12 Python warns of fork in a process with threads; what runs in our child between
        # fork and exec is a few system calls through functions that were looked up before
        warnings.filterwarnings(
            "ignore", message=".*multi-threaded.*fork", category=DeprecationWarning
        )

    def now(self) -> float:
        return self._loop.time()

    def wall(self) -> float:
        return time.time()

    def asleep(self) -> float:
        return slept()

    def call_at(self, when: float, act: Callable[[], None]) -> Timer:
        return self._loop.call_at(when, act)

    # -- start -------------------------------------------------------------------------------

    def spawn(self, launch: Launch) -> Process:
        cgroup = self._own_cgroup(launch)
        procs_fd = -1
        try:
            if cgroup is not None:
                with contextlib.suppress(OSError):
                    procs_fd = cgroup.open_procs()
            weigh = cgroup is None or "cpu" not in cgroup.holds_to
            nice = launching.nice_of(launch.caps.cpu_weight) if weigh else 0
            behind = self._sharing.behind if weigh and launch.agent else 0
            marked = self._lineage.kin.enrol(launch.run_id)
            place = launching.Place(procs_fd, marked, min(WEAKEST, nice + behind))
            popen, ends = launching.execute(launch, self.counters, place)
        except StartError:
            self._discard(cgroup)
            raise
        finally:
            if procs_fd >= 0:
                os.close(procs_fd)
        try:
            pidfd = os.pidfd_open(popen.pid)
        except OSError as error:
            popen.kill()
            popen.wait()
            os.close(ends.ours)
            self._discard(cgroup)
            raise StartError(error.errno or 0, launching.explain(error, launch)) from error
        if cgroup is not None and not cgroup.holds(popen.pid):
            self.counters.cgroups_failed += cgroup.whole  # else it was counted
            self._discard(cgroup)
            cgroup = None
        outlet = Outlet(self._loop, ends, launch.on_output)
        process = LinuxProcess(launch, popen, pidfd, outlet, cgroup)
        self._processes[process.pid] = process
        if weigh and launch.agent:
            self._sharing.enrol(process.pid, nice)
        self._loop.add_reader(pidfd, self._ended, process)
        return process

    def _own_cgroup(self, launch: Launch) -> Cgroup | None:
        """Posts stay with us; agents get their own."""
        if self._cgroups is None or not launch.agent:
            return None
        made = self._cgroups.make(launch.agent, launch.run_id, launch.caps)
        if made is None or not made.whole:
            self.counters.cgroups_failed += 1
        return made

    def _discard(self, cgroup: Cgroup | None) -> None:
        """Remove it, now or when its last process is gone."""
        self._emptying = [c for c in self._emptying if not c.remove()]
        if cgroup is not None and not cgroup.remove():
            self._emptying.append(cgroup)

    # -- signals -----------------------------------------------------------------------------

    def signal(self, process: Process, number: int) -> bool:
        mine = self._living(process)
        if mine is None:
            return False
        if mine.launch.walled and (within := self._lineage.within(mine)) is not None:
            own, others = within
            targets = [own, *(e for e in others if e.group == own.group)]
            heard = [_pass_on(entry, number) for entry in targets]
            return any(heard)
        # the leader is our child and unreaped, so its pid cannot have become a stranger's group
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def signal_one(self, process: Process, number: int) -> bool:
        mine = self._living(process)
        if mine is None:
            return False
        if mine.launch.walled and (within := self._lineage.within(mine)) is not None:
            return _pass_on(within[0], number)
        try:
            signal.pidfd_send_signal(mine.pidfd, number)
        except OSError:
            return False
        return True

    def _living(self, process: Process) -> LinuxProcess | None:
        mine = self._processes.get(process.pid)
        return mine if mine is not None and mine is process and not mine.ended else None

    # -- the tree of a run -------------------------------------------------------------------

    def members(self, process: Process, *, certain: bool = True) -> list[Member]:
        mine = self._processes.get(process.pid)
        parted = None
        if mine is not None and mine is process:
            if not certain and (found := self._overview.members(mine.run_id)) is not None:
                return found
            parted = self._lineage.parted(mine)
        left = self._lineage.all_of(process).values() if parted is None else parted[1]
        found = members_of(left)
        self._overview.learn(found)
        return found

    def belongs(self, process: Process, mark: str, *, outlive: bool) -> bool:
        return self._lineage.belongs(process, mark, outlive=outlive)

    def parts(self, process: Process, mark: str) -> None:
        self._lineage.parts(process, mark)

    def kill_member(self, member: Member) -> bool:
        return tree.kill(member.pid, int(member.started))

    def kill_tree(self, process: Process) -> int:
        with tree.ahead():
            return self._kill_tree(process)

    def _kill_tree(self, process: Process) -> int:
        mine = self._processes.get(process.pid)
        spared = self._lineage.outliving(process.run_id)
        in_cgroup = 0
        if mine is not None and mine is process:
            hidden = procfs.hides() and procfs.stat(process.pid) is None
            if hidden:  # it is not found again to be killed later
                self.signal_one(process, signal.SIGKILL)
            if not spared:
                if mine.cgroup is not None:
                    in_cgroup = mine.cgroup.kill()
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    # all of the group in one call
                    os.killpg(process.pid, signal.SIGKILL if hidden else signal.SIGSTOP)
        hunt = self._hunts.get(process.run_id)
        if hunt is None:
            hunt = self._hunts[process.run_id] = tree.Hunt(
                self._lineage.kin, process.run_id, spared
            )
        roots = () if hunt.begun else self._lineage.roots(process).values()
        return max(self._step(process, hunt, roots), in_cgroup)

    def _step(self, process: Process, hunt: tree.Hunt, roots: Iterable[Stat | None]) -> int:
        found, over = hunt.step(roots)
        if over:
            del self._hunts[process.run_id]
            self.counters.leftovers_killed += found if hunt.leftovers else 0
        elif not hunt.goes_on:  # whoever asked will ask again, but a crowd is not to wait for that
            hunt.goes_on = True
            self._loop.call_later(HUNT_AGAIN_S, self._hunt_on, process)
        return found

    def _kill_left(self, process: Process) -> None:
        """End what escaped from the run's group: a few at once, a crowd in steps."""
        escaped = self._lineage.escaped(process)
        first = list(itertools.islice(escaped, 1))
        if not first or process.run_id in self._hunts:
            return  # or it goes on, step by step, whoever asks for it
        spared = self._lineage.outliving(process.run_id)
        hunt = self._hunts[process.run_id] = tree.Hunt(self._lineage.kin, process.run_id, spared)
        hunt.leftovers = True
        with tree.ahead():
            self._step(process, hunt, itertools.chain(first, escaped))

    def _hunt_on(self, process: Process) -> None:
        hunt = self._hunts.get(process.run_id)
        if hunt is not None:
            hunt.goes_on = False
            self.kill_tree(process)

    def sweep(self, run_ids: Collection[str], spool: str) -> set[tuple[int, float]]:
        ours = procfs.ourselves()
        found: set[tuple[int, float]] = set()
        for entry in procfs.left_by(run_ids, spool):
            if entry.pid not in self._processes and tree.kill(entry.pid, entry.started):
                found.add((entry.pid, float(entry.started)))
        marks = {self._lineage.kin.mark_for(run_id) for run_id in run_ids} - {None}
        for pid in procfs.pids() if marks else ():
            if pid in self._processes or pid in ours or mark.read(pid) not in marks:
                continue
            entry = procfs.stat(pid)
            if tree.send(pid, signal.SIGKILL, lambda other: mark.read(other) in marks) and entry:
                found.add((pid, float(entry.started)))
        return found

    # -- looking -----------------------------------------------------------------------------

    def sample(self, processes: Collection[Process], *, light: bool = False) -> dict[int, Sample]:
        mine = [m for p in processes if (m := self._processes.get(p.pid)) is p and m is not None]
        table = self._lineage.table(mine, light=light)
        others = self._lineage.sort(mine, table)
        wanted = [(p, table[p.pid], others[p.pid]) for p in mine if p.pid in others]
        if not light:
            for process, _, below in wanted:
                self._sharing.see(process.pid, below)
        return self._meter.measure(wanted, light=light)

    def turns(self, process: Process | None = None) -> Turns | None:
        if process is None:
            return turns(os.getpid())
        return turns(process.pid) if self._living(process) is not None else None

    def give_way(self, seconds: float) -> bool:
        return self._sharing.give_way(seconds)

    def standing(self, process: Process) -> Standing:
        mine = self._living(process)
        parted = self._lineage.parted(mine) if mine is not None else None
        if mine is None or parted is None:
            return Standing()
        return stand(parted[0])

    def reads_terminal(self, process: Process) -> bool:
        mine = self._living(process)
        device = mine.outlet.device if mine is not None else 0
        if mine is None or not device:
            return False
        return any(waits_for_person(e, device) for e in self._tree(mine) if e.state == "S")

    def write(self, process: Process, data: bytes) -> bool:
        mine = self._living(process)
        return mine is not None and mine.outlet.write(data)

    def host(self, disk: str | None = None) -> Host:
        return host.read(disk)

    def processes(self) -> int | None:
        return host.tasks()

    def delegation(self) -> str:
        if self._cgroups is None:
            return self._without
        return f"cgroup v2 at {self._cgroups.base} ({', '.join(sorted(self._cgroups.controllers))})"

    def enforcement(self, process: Process | None = None) -> dict[str, str]:
        held: frozenset[str] = self._cgroups.controllers if self._cgroups else frozenset()
        if process is not None:
            mine = self._processes.get(process.pid)
            own = mine.cgroup if mine is process and mine is not None else None
            held = own.holds_to if own is not None else frozenset()
        return {
            "memory": "cgroup" if "memory" in held else "sampling",
            "processes": "cgroup" if "pids" in held else "sampling",
            "cpu_weight": "cgroup" if "cpu" in held else "nice",
            "open_files": "rlimit",
            "disk": "rlimit",
        }

    def footprint(self, process: Process, done: Callable[[int | None], None]) -> None:
        mine = self._living(process)
        if mine is None:
            self._loop.call_soon(done, None)
        elif mine.cgroup is not None and mine.cgroup.has("memory"):
            # where the kernel charges pages to a cgroup each counts once anyway
            self._loop.call_soon(done, mine.cgroup.memory_bytes())
        else:
            self._aside.do(proportional(self._tree(mine)), done)

    def _tree(self, process: LinuxProcess) -> list[Stat]:
        """Return the processes of a run as a sample counts them."""
        table = self._lineage.table([process], light=True)
        others = self._lineage.sort([process], table).get(process.pid)
        return [] if others is None else [table[process.pid], *others]

    def blocked_in(self, process: Process) -> str | None:
        mine = self._living(process)
        if (
            mine is not None
            and mine.launch.walled
            and (within := self._lineage.within(mine)) is not None
        ):
            return procfs.waits_in(within[0].pid)
        return procfs.waits_in(process.pid)

    def oom_kills(self, max_age_s: float = 0.0) -> int:
        now = self._loop.time()
        if now - self._oom_read >= max_age_s:
            self._oom_read, self._oom_count = now, procfs.oom_kills()
        return self._oom_count

    # -- end ---------------------------------------------------------------------------------

    def close(self) -> None:
        self._aside.close()
        self._sharing.close()
        if self._reaping is not None:
            self._reaping.cancel()
            self.counters.leftovers_killed += self._lineage.kill_strays()
            self._lineage.reap()
            assert launching.prctl is not None
            launching.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)  # nobody reaps them from now on
        self._hunts.clear()
        for process in list(self._processes.values()):
            self._forget(process)
        self._discard(None)
        if self._cgroups is not None:
            self._cgroups.release()

    def _ended(self, process: LinuxProcess) -> None:
        """The pidfd is readable: the process is a zombie, or somebody else reaped it."""
        if process.ended:
            return
        # the group dies while the zombie still holds its number: afterwards it could be a stranger's
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        code, number = None, None
        try:
            info = os.waitid(os.P_PIDFD, process.pidfd, os.WEXITED | os.WNOHANG)
            if info is None:
                return
            if info.si_code == os.CLD_EXITED:
                code, number = unwrap(info.si_status, walled=process.launch.walled)
            else:
                number = info.si_status
        except ChildProcessError:
            self.counters.status_lost += 1
        process.ended = True
        process.popen.returncode = 0  # reaped here: Popen must never wait for this pid again
        with tree.ahead():
            left = tuple(members_of(self._lineage.left_by(process, LEFT_TOLD)))
        kills = None
        if process.cgroup is not None:
            kills = process.cgroup.oom_kills()
            if not self._lineage.outliving(process.run_id):
                self.counters.leftovers_killed += process.cgroup.kill()
        process.outlet.drain()
        self._forget(process)
        self._kill_left(process)
        self._discard(process.cgroup)
        process.launch.on_exit(Exit(code, number, kills, left))

    def _forget(self, process: LinuxProcess) -> None:
        process.outlet.close()
        if process.pidfd >= 0:
            self._loop.remove_reader(process.pidfd)
            os.close(process.pidfd)
            process.pidfd = -1
        if self._processes.get(process.pid) is process:
            del self._processes[process.pid]
        self._meter.forget(process.pid)
        self._sharing.forget(process.pid)

    def _reap(self) -> None:
        self.counters.adopted_reaped += self._lineage.reap()
        if self._emptying:
            self._discard(None)
        self._reaping = self._loop.call_later(REAP_EVERY_S, self._reap)


def _pass_on(entry: Stat, number: int) -> bool:
    return tree.send(entry.pid, number, tree.is_started(entry.started))


def own(loop: asyncio.AbstractEventLoop, salt: bytes) -> LinuxSystem:
    """Return the system of an instance: with the cgroups that are delegated to it."""
    cgroups, why = take()
    return LinuxSystem(loop, cgroups=cgroups, without=why, salt=salt)


def supported() -> bool:
    """Tell whether this system has what this implementation needs: Linux 5.4 with pidfds."""
    if not hasattr(os, "pidfd_open") or not hasattr(select, "epoll"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True
