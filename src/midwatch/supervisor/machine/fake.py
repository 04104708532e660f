"""A `System` without processes: time passes when told, programs are scripts. For tests of rules.

A program is looked up by the first word of the command. Its script is a list of steps
`(after_s, deed)`: `exit 0`, `signal 9`, `print text`, `ignore TERM`, `fork`, or a function. A
program without an end lives until it is signalled.
"""

from __future__ import annotations

import errno
import heapq
import signal
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from midwatch.core.starving import Turns
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

Deed = str | Callable[["FakeProcess"], None]
Script = Iterable[tuple[float, Deed]]


@dataclass(eq=False, slots=True)
class FakeTimer:
    when: float
    act: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass(eq=False, slots=True)
class FakeProcess:
    pid: int
    started: float
    run_id: str
    launch: Launch
    ignores: set[int] = field(default_factory=set[int])
    signals: list[int] = field(default_factory=list[int])
    children: int = 0
    rss_bytes: int = 10_000_000
    children_cpu_s: float = 0.0
    own_cpu_s: float = 0.0
    threads: int = 1
    """Of its own process."""
    open_files: int = 3
    zombies: int = 0
    pss_bytes: int | None = None
    oom_kills: int | None = None
    """Kills in its own cgroup, told in samples and with its end."""
    marks: set[str] = field(default_factory=set[str])
    """What the processes of its sub-agents carry."""
    members: list[Member] = field(default_factory=list[Member])
    """What lives of the run beside its own process, also after the end of that; see `add_member`."""
    turns: Turns | None = None
    standing: Standing = field(default_factory=Standing)
    """What `FakeSystem.standing` tells of it."""
    reads_terminal: bool = False
    footprint_bytes: int | None = None
    """Its memory with shared pages counted once; None: that cannot be told."""
    typed: bytearray = field(default_factory=bytearray)
    """What was written to its terminal."""
    held: dict[str, str] = field(default_factory=dict[str, str])
    """What holds it to its limits, where that is not what `FakeSystem.held` says."""
    ended: bool = False


class FakeSystem:
    """`System` by hand: `advance` lets time pass, `end` ends a process, `programs` says what runs."""

    def __init__(self, now: float = 1000.0, wall: float = 1_750_000_000.0) -> None:
        self.counters = Counters()
        self.programs: dict[str, Script] = {}
        self.launched: list[FakeProcess] = []
        self.passes: list[str] = []
        """Samples that were asked for: `light` or `full`."""
        self.swept: list[tuple[set[str], str]] = []
        self.left_behind = 0
        self.kernel_kills = 0
        self.measuring_s: float | None = 0.0
        """How long a footprint takes; None: for ever."""
        self.measured: list[float] = []
        """When footprints were asked for."""
        self.machine = Host()
        self.held: dict[str, str] = {
            "memory": "sampling",
            "processes": "sampling",
            "cpu_weight": "nice",
            "open_files": "rlimit",
            "disk": "rlimit",
        }
        """What `enforcement` tells."""
        self.own_turns: Turns | None = None
        self.behind_until = float("-inf")
        """Until when agents give way to posts."""
        self.killed_members: list[Member] = []
        self.belonging: set[str] = set()
        """Run ids of sub-agents that are remembered."""
        self.outliving: dict[str, set[str]] = {}
        """Run ids of sub-agents that outlive their run, by run."""
        self._now = now
        self._wall = wall
        self._asleep = 0.0
        self._timers: list[tuple[float, int, FakeTimer]] = []
        self._count = 0
        self._next_pid = 1000
        self._living: dict[int, FakeProcess] = {}

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._wall

    def asleep(self) -> float:
        return self._asleep

    def call_at(self, when: float, act: Callable[[], None]) -> Timer:
        timer = FakeTimer(when, act)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        end = self._now + seconds
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            self._wall += max(0.0, when - self._now)
            self._now = max(self._now, when)
            if not timer.cancelled:
                timer.act()
        self._wall += end - self._now
        self._now = end

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock, as an administrator or NTP does; monotonic time does not notice."""
        self._wall += seconds

    def stand_still(self, seconds: float) -> None:
        """Let time pass without anybody of us running: a sleeping host, a stopped supervisor. Timers
        that became due meanwhile ring late, when time goes on."""
        self._now += seconds
        self._wall += seconds

    def sleep(self, seconds: float) -> None:
        """Let the host sleep: no timer rings, and the monotonic clock stands still."""
        self._wall += seconds
        self._asleep += seconds

    def spawn(self, launch: Launch) -> Process:
        program = launch.command[0]
        script = self.programs.get(program)
        if script is None:
            number = errno.ENOENT
            self.counters.by_errno[number] = self.counters.by_errno.get(number, 0) + 1
            raise StartError(number, f"cannot start {program!r}: not found on PATH; install it")
        process = FakeProcess(self._next_pid, self._now, launch.run_id, launch)
        self._next_pid += 1
        self._living[process.pid] = process
        self.launched.append(process)
        for after, deed in script:
            self.call_at(self._now + after, lambda deed=deed: self._do(process, deed))
        return process

    def end(self, process: Process, *, code: int | None = None, by: int | None = None) -> None:
        """End a process; its supervisor hears of it as soon as time passes."""
        mine = self._living.pop(process.pid, None)
        if mine is None:
            return
        mine.ended = True
        # its group has died with it; what had a session of its own is found, told and killed
        spared = self.outliving.get(mine.run_id, set())
        dying = [m for m in mine.members if m.run_id not in spared]
        left = tuple(m for m in dying if m.session != mine.pid and m.state != "Z")
        mine.members[:] = [m for m in mine.members if m not in dying]
        self.killed_members += left
        exit_ = Exit(code, by, mine.oom_kills, left)
        self.call_at(self._now, lambda: mine.launch.on_exit(exit_))

    def signal(self, process: Process, number: int) -> bool:
        return self.signal_one(process, number)

    def signal_one(self, process: Process, number: int) -> bool:
        mine = self._living.get(process.pid)
        if mine is None:
            return False
        mine.signals.append(number)
        harmless = mine.ignores | {signal.SIGCONT, signal.SIGCHLD}
        if number == signal.SIGKILL or number not in harmless:
            self.end(mine, by=number)
        return True

    def kill_tree(self, process: Process) -> int:
        mine = self._known(process)
        spared = self.outliving.get(mine.run_id, set())
        dying = [m for m in mine.members if m.run_id not in spared]
        count = sum(m.state != "Z" for m in dying)
        if mine.pid in self._living:
            count = 1 + max(count, mine.children)
            self.signal_one(mine, signal.SIGKILL)
        self.killed_members += dying
        mine.members[:] = [m for m in mine.members if m.run_id in spared]
        mine.children = len(mine.members)
        return count

    def sample(self, processes: Collection[Process], *, light: bool = False) -> dict[int, Sample]:
        self.passes.append("light" if light else "full")
        return {
            p.pid: Sample(
                rss_bytes=p.rss_bytes,
                cpu_s=p.own_cpu_s + p.children_cpu_s,
                children_cpu_s=p.children_cpu_s,
                children=p.children,
                threads=p.threads + p.children,
                open_files=p.open_files,
                zombies=p.zombies,
                pss_bytes=p.pss_bytes,
                oom_kills=p.oom_kills,
                named=frozenset(
                    (m.pid, m.started, m.claim.agent) for m in p.members if m.claim.agent
                ),
            )
            for process in processes
            if (p := self._living.get(process.pid)) is not None
        }

    def turns(self, process: Process | None = None) -> Turns | None:
        if process is None:
            return self.own_turns
        mine = self._living.get(process.pid)
        return mine.turns if mine is not None else None

    def give_way(self, seconds: float) -> bool:
        began = self._now >= self.behind_until
        self.behind_until = max(self.behind_until, self._now + seconds)
        return began and any(p.launch.agent for p in self._living.values())

    def members(self, process: Process, *, certain: bool = True) -> list[Member]:  # noqa: ARG002
        return list(self._known(process).members)

    def add_member(self, process: Process, name: str = "child", **changes: Any) -> Member:
        """Let the run have one more process; it stays when its own process ends."""
        mine = self._known(process)
        pid, self._next_pid = self._next_pid, self._next_pid + 1
        member = Member(pid, self._now, mine.pid, mine.pid, name, "S", 0.0, 1_000_000)
        mine.members.append(replace(member, **changes))
        mine.children += 1
        return mine.members[-1]

    def belongs(self, process: Process, mark: str, *, outlive: bool) -> bool:
        others = (of for of in self.launched if of.run_id != process.run_id)
        if mark in {of.run_id for of in self.launched} or any(mark in o.marks for o in others):
            return False
        self._known(process).marks.add(mark)
        self.belonging.add(mark)
        if outlive:
            self.outliving.setdefault(process.run_id, set()).add(mark)
        return True

    def parts(self, process: Process, mark: str) -> None:
        self._known(process).marks.discard(mark)
        self.belonging.discard(mark)
        self.outliving.get(process.run_id, set()).discard(mark)

    def kill_member(self, member: Member) -> bool:
        for process in self.launched:
            for found in process.members:
                if (found.pid, found.started) == (member.pid, member.started):
                    process.members.remove(found)
                    process.children = max(0, process.children - 1)
                    self.killed_members.append(found)
                    return True
        return False

    def standing(self, process: Process) -> Standing:
        mine = self._living.get(process.pid)
        return mine.standing if mine is not None else Standing()

    def reads_terminal(self, process: Process) -> bool:
        mine = self._living.get(process.pid)
        return mine is not None and mine.reads_terminal

    def write(self, process: Process, data: bytes) -> bool:
        mine = self._living.get(process.pid)
        if mine is None or not mine.launch.tty:
            return False
        mine.typed += data
        return True

    def host(self, disk: str | None = None) -> Host:  # noqa: ARG002
        return self.machine

    def processes(self) -> int | None:
        return self.machine.processes

    def delegation(self) -> str:
        return "a machine that does not exist"

    def enforcement(self, process: Process | None = None) -> dict[str, str]:
        return self.held | (self._known(process).held if process is not None else {})

    def _known(self, process: Process) -> FakeProcess:
        return next(p for p in self.launched if p is process)

    def footprint(self, process: Process, done: Callable[[int | None], None]) -> None:
        self.measured.append(self._now)
        if self.measuring_s is not None:
            found = self._known(process).footprint_bytes  # of when it began
            self.call_at(self._now + self.measuring_s, lambda: done(found))

    def blocked_in(self, process: Process) -> str | None:  # noqa: ARG002
        return None

    def sweep(self, run_ids: Collection[str], spool: str) -> set[tuple[int, float]]:
        self.swept.append((set(run_ids), spool))
        found, self.left_behind = self.left_behind, 0
        return {(pid, 0.0) for pid in range(found)}

    def oom_kills(self, max_age_s: float = 0.0) -> int:  # noqa: ARG002
        return self.kernel_kills

    def close(self) -> None:
        self._living.clear()

    def _do(self, process: FakeProcess, deed: Deed) -> None:
        if process.ended:
            return
        if callable(deed):
            deed(process)
            return
        verb, _, rest = deed.partition(" ")
        match verb:
            case "exit":
                self.end(process, code=int(rest))
            case "signal":
                self.end(process, by=int(rest))
            case "print":
                process.launch.on_output(rest.encode() + b"\n")
            case "ignore":
                process.ignores.add(signal.Signals[f"SIG{rest}"])
            case "fork":
                self.add_member(process)
            case _:
                raise ValueError(f"unknown deed {deed!r}: exit, signal, print, ignore or fork")
