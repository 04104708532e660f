"""The seam between the supervisor and the operating system: clocks, timers and processes.

Three implementations pass one contract suite: `linux` (pidfds, /proc, parent-death signal),
`portable` (psutil and a thread per child; macOS) and `fake` (no processes at all, time by hand).
Everything calls back in the event loop's thread; nothing here blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from midwatch.core.errors import MidwatchError
from midwatch.core.family import SILENT, Claim
from midwatch.core.starving import Turns


class StartError(MidwatchError):
    """The program could not be executed. `number` is the errno."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended. Both are None when somebody else took its status."""

    code: int | None
    signal: int | None
    oom_kills: int | None = None
    """Kills by the kernel in this run's own cgroup until its end; None without one."""
    left: tuple[Member, ...] = ()
    """What outlived it outside its group, and was killed before this was told."""


@dataclass(frozen=True, slots=True)
class Caps:
    """What the operating system itself shall hold a run to. None: no bound.

    Memory, processes and weight need a delegated cgroup; without one they are for whoever samples.
    """

    open_files: int | None = None
    """Per process."""
    file_bytes: int | None = None
    """Size of any file that it writes (RLIMIT_FSIZE)."""
    memory_bytes: int | None = None
    processes: int | None = None
    """Processes and threads of the whole tree."""
    cpu_weight: int = 100


@dataclass(frozen=True, slots=True)
class Launch:
    """What to execute, and whom to tell. `run_id` must be in `env` as MIDWATCH_RUN_ID."""

    command: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    run_id: str
    on_output: Callable[[bytes], None]
    on_exit: Callable[[Exit], None]
    caps: Caps = Caps()
    agent: str = ""
    """Whose run it is: names its cgroup."""
    tty: bool = False
    """Give it a terminal of 220 columns and 50 rows instead of a pipe; `write` then reaches it."""
    walled: bool = False
    """True when `command` begins with bubblewrap: polite signals then go to what runs inside, because
    the wrapper would take everything down at once."""
    stdio: tuple[int, int, int] | None = None
    """Its stdin, stdout and stderr, instead of nothing and a pipe; they stay open here, and `on_output`
    hears nothing. Where stdin is our own terminal it runs in our session, in the foreground; its umask
    is ours."""
    keep_fds: Sequence[int] = ()
    """Descriptors that the child inherits under the same numbers; closed here, started or not."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process and everything below it use."""

    rss_bytes: int
    cpu_s: float
    children_cpu_s: float
    """CPU of everything below the agent's own process, ended children included."""
    children: int
    threads: int
    """Of the whole tree, the agent's own process included."""
    open_files: int
    """Of the process of the tree that has most: the limit is per process. A light sample repeats
    what the last full one found."""
    zombies: int = 0
    """Below the agent, ended and not waited for by their parents."""
    pss_bytes: int | None = None
    """Memory with shared pages counted once, where the system tells. It is costly, so it is counted
    in turns: with many agents it may be a minute old."""
    oom_kills: int | None = None
    """Kills by the kernel in this run's own cgroup; None without one."""
    named: frozenset[tuple[int, float, str]] = frozenset()
    """Who says in its environment that it is another agent than the run was given: pid, start time, name."""


@dataclass(frozen=True, slots=True)
class Member:
    """One process of a run's tree, or one that a run left behind."""

    pid: int
    started: float
    """As `Process.started`: names it together with the pid."""
    parent: int
    session: int
    name: str
    """Its command, at most 200 characters; hostile text."""
    state: str
    """R, S, D, Z, T, as /proc/PID/stat has it."""
    age_s: float
    rss_bytes: int
    run_id: str = ""
    """MIDWATCH_RUN_ID in its environment: the run's own, a sub-agent's, or none."""
    claim: Claim = SILENT
    """What else its environment says of it; hostile text."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a process stands, for whoever wants to know why it hangs. Empty where nothing is told."""

    state: str = ""
    """Of the main thread: S, D, R, T."""
    waits_in: str = ""
    """Kernel function of the main thread."""
    threads: tuple[str, ...] = ()
    """Per thread: name, state, kernel function, system call."""
    sockets: tuple[str, ...] = ()
    """Per open socket: `tcp 10.0.0.2:51234 → 1.2.3.4:443 ESTABLISHED`, at most 50."""


@dataclass(frozen=True, slots=True)
class Host:
    """The machine. None: not told."""

    memory_free_bytes: int | None = None
    memory_bytes: int | None = None
    load_1m: float | None = None
    processes: int | None = None
    processes_max: int | None = None
    open_files: int | None = None
    open_files_max: int | None = None
    disk_free_bytes: int | None = None
    """Of the file system that was asked for."""
    disk_bytes: int | None = None


class Process(Protocol):
    """A handle on one child. It stays valid after the end: signals then reach nobody."""

    @property
    def pid(self) -> int: ...
    @property
    def started(self) -> float:
        """Start time as the system records it; with the pid it names the process for ever."""
        ...

    @property
    def run_id(self) -> str: ...


class Timer(Protocol):
    def cancel(self) -> None: ...


@dataclass(slots=True)
class Counters:
    """What the OS layer did that nobody asked for, or lost."""

    adopted_reaped: int = 0
    leftovers_killed: int = 0
    status_lost: int = 0
    cgroups_failed: int = 0
    """Runs without a cgroup of their own although there is a place for them, or with one that took not
    all of their limits."""
    asides_failed: int = 0
    """Long work that was done aside and died of a fault of ours: nobody heard what came of it."""
    by_errno: dict[int, int] = field(default_factory=dict[int, int])


class System(Protocol):
    counters: Counters

    def now(self) -> float:
        """Return monotonic seconds: for durations."""
        ...

    def wall(self) -> float:
        """Return Unix seconds: for records and schedules."""
        ...

    def asleep(self) -> float:
        """Return for how many seconds the host has slept since it started; 0 where that cannot be told.
        The monotonic clock stands still meanwhile."""
        ...

    def call_at(self, when: float, act: Callable[[], None]) -> Timer:
        """Call `act` at monotonic `when`, or as soon as possible when that is past."""
        ...

    def spawn(self, launch: Launch) -> Process:
        """Start a process in a session of its own. Raises StartError.

        `on_exit` is called once, later, never from inside `spawn`; all output that was there at
        the end has been passed to `on_output` before, and the rest of the process group is dead.
        """
        ...

    def signal(self, process: Process, number: int) -> bool:
        """Signal the process group; tell whether there was one."""
        ...

    def signal_one(self, process: Process, number: int) -> bool:
        """Signal the process alone."""
        ...

    def kill_tree(self, process: Process) -> int:
        """SIGKILL the process and everything that came from it; return how many were found alive.

        A tree that forks while it is killed needs another call: repeat until it returns 0.
        """
        ...

    def sample(self, processes: Collection[Process], *, light: bool = False) -> dict[int, Sample]:
        """Return what each living one uses, by pid. `light`: memory, processor, processes and threads
        alone, in one cheap pass for all; the rest is what the last full sample found."""
        ...

    def turns(self, process: Process | None = None) -> Turns | None:
        """Return what the process has had of the processor, without one, what we have; None where that
        is not told."""
        ...

    def give_way(self, seconds: float) -> bool:
        """Put the agents behind the posts for so long from now, where no cgroup shares the processor:
        those that run and those that will start. It takes nothing from who has the processor for
        itself. Tells whether that changes anything."""
        ...

    def members(self, process: Process, *, certain: bool = True) -> list[Member]:
        """Return what lives of the run beside its own process, zombies included: below it, and what
        carries its run id or was once seen below it and went elsewhere. Where it need not be `certain`,
        as it was a moment ago and perhaps without some of those: cheap for who looks at many runs."""
        ...

    def belongs(self, process: Process, mark: str, *, outlive: bool) -> bool:
        """The run has a sub-agent whose processes carry `mark`, a run id of their own or as MIDWATCH_AGENT a
        name: they are members of the run. `outlive`: neither `kill_tree` nor the end of the run ends them,
        only the instance's end. False, and nothing is changed, when it is the run id of a run, or of another
        run's sub-agent."""
        ...

    def parts(self, process: Process, mark: str) -> None:
        """Nothing carries that any more: what `belongs` said of it is forgotten."""
        ...

    def kill_member(self, member: Member) -> bool:
        """SIGKILL exactly that process; False when it is gone or its number is another's."""
        ...

    def standing(self, process: Process) -> Standing:
        """Return where the process stands. Costs milliseconds."""
        ...

    def reads_terminal(self, process: Process) -> bool:
        """Tell whether a thread of the tree waits for input on the run's terminal. Cheap enough for each
        second."""
        ...

    def write(self, process: Process, data: bytes) -> bool:
        """Send `data` to its terminal; False when it has none or does not take it."""
        ...

    def host(self, disk: str | None = None) -> Host:
        """Return how the machine does, and the file system that holds the path `disk`."""
        ...

    def processes(self) -> int | None:
        """Return how many processes and threads the machine has: cheap enough for many times a second."""
        ...

    def delegation(self) -> str:
        """Return in a sentence whether cgroups are used here, or why not."""
        ...

    def enforcement(self, process: Process | None = None) -> dict[str, str]:
        """Return by limit (memory, processes, cpu_weight, open_files, disk) what holds a run to it:
        `cgroup`, `rlimit`, `nice`, `sampling`, or `nothing` with the reason after a colon.

        With `process`, what holds that one: its cgroup may have failed."""
        ...

    def footprint(self, process: Process, done: Callable[[int | None], None]) -> None:
        """Measure the tree's memory with shared pages counted once, aside: from 15 ms for each GiB to a
        second on a machine that is busy.

        `done` is called once, later, with what it was meanwhile; with None when it cannot be told."""
        ...

    def blocked_in(self, process: Process) -> str | None:
        """Return the kernel function that the process waits in, where the system tells."""
        ...

    def sweep(self, run_ids: Collection[str], spool: str) -> set[tuple[int, float]]:
        """SIGKILL what an earlier supervisor's runs left: processes whose MIDWATCH_RUN_ID is in
        `run_ids`, or whose MIDWATCH_SPOOL lies under `spool`. Returns who was found alive, by pid and
        start time: one that takes a moment to die is found again, and is still one process."""
        ...

    def oom_kills(self, max_age_s: float = 0.0) -> int:
        """Return the host's count of kills by the kernel's memory killer, at most so old; 0 where unknown."""
        ...

    def close(self) -> None:
        """Give back file descriptors and stop watching; kills nothing."""
        ...
