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


@dataclass(frozen=True, slots=True)
class Launch:
    """What to execute, and whom to tell. `run_id` must be in `env` as MIDWATCH_RUN_ID."""

    command: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    run_id: str
    on_output: Callable[[bytes], None]
    on_exit: Callable[[Exit], None]
    open_files: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process and everything below it use."""

    rss_bytes: int
    cpu_s: float
    children_cpu_s: float
    """CPU of everything below the agent's own process, ended children included."""
    children: int
    threads: int
    open_files: int


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
    by_errno: dict[int, int] = field(default_factory=dict[int, int])


class System(Protocol):
    counters: Counters

    def now(self) -> float:
        """Return monotonic seconds: for durations."""
        ...

    def wall(self) -> float:
        """Return Unix seconds: for records and schedules."""
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

    def sample(self, processes: Collection[Process]) -> dict[int, Sample]:
        """Return what each living one uses, by pid."""
        ...

    def footprint(self, process: Process) -> int | None:
        """Return the tree's memory with shared pages counted once, or None when it cannot be told.

        Costs milliseconds: asked only when the sum of resident sizes is over a limit."""
        ...

    def blocked_in(self, process: Process) -> str | None:
        """Return the kernel function that the process waits in, where the system tells."""
        ...

    def sweep(self, run_ids: Collection[str], spool: str) -> int:
        """SIGKILL what an earlier supervisor's runs left: processes whose MIDWATCH_RUN_ID is in
        `run_ids`, or whose MIDWATCH_SPOOL lies under `spool`. Returns how many were found alive."""
        ...

    def oom_kills(self, max_age_s: float = 0.0) -> int:
        """Return the host's count of kills by the kernel's memory killer, at most so old; 0 where unknown."""
        ...

    def close(self) -> None:
        """Give back file descriptors and stop watching; kills nothing."""
        ...
