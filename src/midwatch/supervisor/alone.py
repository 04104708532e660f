"""One command without a fleet: `midwatch run`, fit to be the first process of a container.

The same keeper as in a fleet looks after it. What differs is what passes through: stdin, stdout and
stderr are the command's own, signals go on to it, its exit code becomes ours. Nothing else is
needed: no hub, no fleet file, no data directory.

Invariant: whatever happens to Midwatch's own concerns (a hub out of reach, a full disk), the command
runs as it would without them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from midwatch.core.errors import SetupError
from midwatch.core.exits import End, Wish
from midwatch.core.fleet import Agent, Fleet
from midwatch.core.states import State
from midwatch.sdk.transport import Transport
from midwatch.supervisor.datadir import DataDir
from midwatch.supervisor.environment import inherits
from midwatch.supervisor.job import Job
from midwatch.supervisor.keeper import Keeper
from midwatch.supervisor.machine import cgroup, linux
from midwatch.supervisor.machine.portable import PortableProcess, PortableSystem
from midwatch.supervisor.machine.system import Exit, Launch, Process, StartError, System
from midwatch.supervisor.main import node_name
from midwatch.supervisor.output.passage import Show, Tee, after
from midwatch.supervisor.reporter import INSTANCE, Reporter, Silence
from midwatch.supervisor.supervisor import Plans, Supervisor
from midwatch.wire.items import Item, Kind
from midwatch.wire.notify import Notice

OWN_FAILURE: Final = 125
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
"""Exit codes for what is not the command's doing, as `docker run` and `env` have them."""

FLUSH_S: Final = 3.0
"""Time at the end for the last reports. There is no spool that outlives a container."""

FEED_S: Final = 0.02
"""When input that a terminal did not take is offered again."""

PASSED_ON: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
"""Signals that the command gets as they come. SIGTERM begins the end, with its grace."""

OWN_WILL: Final = frozenset(
    {End.FINISHED, End.SILENT, End.FAILED, End.SIGNAL, End.SHUTDOWN, End.CANNOT_START}
)
"""Ends that the command's own words and exit code explain; no other word is lost about them."""

PASSED_ENV: Final = ("MIDWATCH_AGENT", "MIDWATCH_RUN_ID", "NOTIFY_SOCKET", "WATCHDOG_USEC")
"""What the command finds beside our own environment, also without a hub."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to run, and how."""

    name: str
    agent: Agent
    hub: str | None = None
    token: str | None = None
    data: Path | None = None
    """Where output is kept too; None: nothing is kept."""
    tty: bool = False
    verbose: bool = False
    inherited: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    early: list[int] = field(default_factory=list[int])
    """Signals that came before there was a command to hear them; who asks for an end is in it."""

    @property
    def listens(self) -> bool:
        """Whether we read the output: for a log, or to tell the hub the last lines."""
        return self.hub is not None or self.data is not None


class Passage:
    """What passes between us and the command."""

    def __init__(self, order: Order) -> None:
        self.exit = Exit(None, None)
        self.ended = False
        self.problem: StartError | None = None
        self.say_done: Callable[[], None] = lambda: None
        """Tells the keeper that the work is done: a job that ends well has done it."""
        self.process: Process | None = None
        self.order = order
        self._tees: list[Tee] = []
        self._show = Show(1) if order.tty else None

    def start(self, launch: Launch, spawn: Callable[[Launch], Process]) -> Process:
        """Start the command with our own stdin, stdout and stderr. Raises StartError."""
        self.problem, self.ended = None, False
        stdio: tuple[int, int, int] | None = (0, 1, 2)
        show = self._show
        if show is not None:
            stdio = None
        elif self.order.listens:
            self._tees = [Tee(fd, launch.on_output) for fd in (1, 2)]
            stdio = (0, self._tees[0].writing, self._tees[1].writing)

        def shown(data: bytes) -> None:
            if show is not None:
                show.give(data)
            launch.on_output(data)

        def over(exit_: Exit) -> None:
            self._over(exit_, launch.on_exit)

        changed = replace(
            launch,
            env=self._environment(launch.env),
            stdio=stdio,
            tty=self.order.tty,
            on_output=shown,
            on_exit=over,
        )
        try:
            self.process = spawn(changed)
        except StartError as error:
            self.problem = error
            self._close_tees()
            raise
        for tee in self._tees:
            tee.begin()
        if show is not None and isinstance(self.process, linux.LinuxProcess | PortableProcess):
            show.begin(self.process.outlet)
        return self.process

    def _environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return our own environment and what lets the command speak to us; of the hub only where
        there is one."""
        order = self.order
        own = {k: v for k, v in order.inherited.items() if inherits(k) or k.startswith("OTEL_")}
        own.update({name: env[name] for name in PASSED_ENV if name in env})
        if order.hub is not None:
            own["MIDWATCH_URL"] = order.hub
            if order.token is not None:
                own["MIDWATCH_TOKEN"] = order.token
        return own

    def _over(self, exit_: Exit, on_exit: Callable[[Exit], None]) -> None:
        """Take the end of the process; its last output is passed on before anybody hears of it."""
        _take_terminal_back()
        for tee in self._tees:
            tee.finish()

        def tell() -> None:
            self.exit, self.ended, self.process = exit_, True, None
            if exit_.code == 0:
                self.say_done()
            on_exit(exit_)

        if self._show is not None:
            self._show.finish()
            after([self._show], tell)
        elif self._tees:
            after(self._tees, tell)
            self._tees = []
        else:
            tell()

    def _close_tees(self) -> None:
        for tee in self._tees:
            tee.cancel()
        self._tees = []

    def code(self) -> int:
        """Return our exit code: the command's, 128 + n for a signal, docker's where it never ran."""
        if self.problem is not None:
            missing = self.problem.number in (errno.ENOENT, errno.ENOTDIR)
            refused = (errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.EISDIR, errno.ELOOP)
            if self.problem.number in refused:
                return NOT_EXECUTABLE
            return NOT_FOUND if missing else OWN_FAILURE
        if self.exit.signal is not None:
            return 128 + self.exit.signal
        return OWN_FAILURE if self.exit.code is None else self.exit.code


class _Linux(linux.LinuxSystem):
    def __init__(self, loop: asyncio.AbstractEventLoop, passage: Passage) -> None:
        cgroups, why = cgroup.take()
        super().__init__(loop, cgroups=cgroups, without=why)
        self._passage = passage

    def spawn(self, launch: Launch) -> Process:
        return self._passage.start(launch, super().spawn)


class _Portable(PortableSystem):
    def __init__(self, loop: asyncio.AbstractEventLoop, passage: Passage) -> None:
        super().__init__(loop)
        self._passage = passage

    def spawn(self, launch: Launch) -> Process:
        return self._passage.start(launch, super().spawn)


class Voice:
    """Reports to the hub what concerns the command, and says on stderr what its own words do not."""

    def __init__(self, order: Order, reporter: Reporter) -> None:
        self._order = order
        self._reporter = reporter

    def submit(self, kind: Kind, item: Item) -> bool:
        if item.get("agent") == INSTANCE:
            return True  # the fleet of that hub is not ours to speak of
        if kind is Kind.EVENT and item.get("kind") == "run.ended":
            self._say_end(item["data"])
        return self._reporter.submit(kind, item)

    def hasten(self) -> None:
        self._reporter.hasten()

    def say(self, text: str) -> None:
        """Take the supervisor's sentences: only for those who want them."""
        if self._order.verbose:
            _complain(text)

    def _say_end(self, data: Mapping[str, Any]) -> None:
        again = data.get("next") == "restart"
        if self._order.verbose or (data.get("end") in OWN_WILL and not again):
            return
        wait = data.get("next_in_s") or 0
        follows = f"; starting it again in {wait:.1f} s" if again else ""
        _complain(f"{self._order.name}: {data.get('reason')}{follows}")


def run(order: Order) -> int:
    """Run the command until it has ended for good; return the exit code. Raises SetupError."""
    with _directory(order.data) as data:
        return asyncio.run(_run(order, data))


async def _run(order: Order, folder: Path) -> int:
    loop = asyncio.get_running_loop()
    passage = Passage(order)
    system: System = _Linux(loop, passage) if linux.supported() else _Portable(loop, passage)
    transport = (
        Transport(order.hub, order.token or "", folder / "spool" / "supervisor")
        if order.hub is not None
        else None
    )
    voice = Voice(order, transport or Silence())
    fleet = Fleet(fleet=order.name, agents={order.name: order.agent}, root=str(Path.cwd()))
    data = DataDir(folder)
    try:
        supervisor = Supervisor(fleet, data, Plans(node_name()), system, voice, voice.say)
        passage.say_done = lambda: supervisor.keepers[order.name].hear(Notice(done=True))
        job = Job(system, lambda: passage.process)
        with Signals(supervisor, passage, order) as signals, job:
            if order.early:  # it ends as it would without us: before it has begun
                passage.exit = Exit(None, order.early[0])
            else:
                await supervisor.start()
                signals.begin()
                await _until_it_rests(supervisor.keepers[order.name])
        if passage.problem is not None:
            _complain(str(passage.problem))
        if transport is not None:
            await loop.run_in_executor(None, transport.flush, FLUSH_S)
        await supervisor.close(lambda _timeout_s: None)
    finally:
        if transport is not None:
            transport.close(0.0)
        data.close()
    return passage.code()


async def _until_it_rests(keeper: Keeper) -> None:
    """Return when the command has ended and nobody will start it again."""
    while keeper.run is not None or keeper.state in (State.BACKING_OFF, State.STARTING):
        ended = asyncio.Event()
        if keeper.run is not None:
            keeper.ended.append(ended.set)
            await ended.wait()
        else:  # between two lives: a signal may end the waiting, or time will
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), 0.05)


class Signals:
    """Passes signals on while the command runs. As a context manager, inside the loop.

    Those that come before the command has been started are remembered, and acted on then."""

    def __init__(self, supervisor: Supervisor, passage: Passage, order: Order) -> None:
        self._loop = asyncio.get_running_loop()
        self._supervisor = supervisor
        self._passage = passage
        self._order = order
        self._begun = False

    def __enter__(self) -> Signals:
        for number in (signal.SIGTERM, *PASSED_ON):
            # nohup stays what it is
            if number is signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
                self._loop.add_signal_handler(number, self._take, number)
        if self._order.tty:
            _feed(self._supervisor.system, self._passage)
        return self

    def begin(self) -> None:
        """The command has been started: pass on what came meanwhile, and all that comes."""
        self._begun = True
        for number in self._order.early:
            self._take(signal.Signals(number))

    def __exit__(self, *_: object) -> None:
        """A late signal must not end us with another code than the command's."""
        for number in (signal.SIGTERM, *PASSED_ON):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._loop.add_signal_handler(number, lambda: None)

    @property
    def _keeper(self) -> Keeper | None:
        return self._supervisor.keepers.get(self._order.name)

    def _take(self, number: signal.Signals) -> None:
        if not self._begun:
            self._order.early.append(number)
        elif number is signal.SIGTERM:
            self._terminate()
        else:
            self._pass_on(number)

    def _terminate(self) -> None:
        keeper = self._keeper
        if keeper is None:
            return
        if keeper.run is not None and keeper.run.wish is Wish.SHUTDOWN:
            self._supervisor.system.signal(keeper.run.process, signal.SIGTERM)  # as it came, again
        else:
            keeper.shut_down()

    def _pass_on(self, number: signal.Signals) -> None:
        keeper = self._keeper
        if keeper is None:
            return
        ends = number in (signal.SIGINT, signal.SIGQUIT)
        run, system = keeper.run, self._supervisor.system
        if run is None:
            if ends:
                keeper.shut_down()
        elif ends:
            if self._order.agent.restart.when != "never" and run.wish is None:
                # whoever interrupts it wants it to end, not to be started again
                run.wish, run.wish_reason = Wish.STOP, f"interrupted by {number.name}"
            system.signal(run.process, number)
        else:
            system.signal_one(run.process, number)


def _feed(system: System, passage: Passage) -> None:
    """Send what comes on stdin to the command's terminal."""
    loop = asyncio.get_running_loop()

    def give(data: bytes) -> None:
        if passage.process is None or not system.write(passage.process, data):
            loop.call_later(FEED_S, give, data)  # it is not there yet, or does not read yet
        else:
            free.release()

    def read() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the command has ended
            while data := _read_stdin():
                free.acquire()
                loop.call_soon_threadsafe(give, data)
            free.acquire()
            loop.call_soon_threadsafe(give, b"\x04")

    free = threading.Semaphore()  # one piece at a time keeps them in order

    threading.Thread(target=read, name="midwatch-stdin", daemon=True).start()


def _read_stdin() -> bytes:
    try:
        return os.read(0, 1024)
    except OSError:
        return b""


def _take_terminal_back() -> None:
    """The command was in the foreground of our terminal; it is gone, and somebody must be there."""
    try:
        if os.isatty(0) and os.tcgetpgrp(0) != os.getpgrp():
            before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.tcsetpgrp(0, os.getpgrp())
            signal.signal(signal.SIGTTOU, before)
    except (OSError, ValueError):
        return


@contextlib.contextmanager
def _directory(chosen: Path | None) -> Generator[Path]:
    """Give the data directory, or a temporary one. Raises SetupError."""
    if chosen is not None:
        yield chosen
        return
    for place in (None, "/dev/shm", "/run"):  # noqa: S108 - a container may have a read-only /tmp
        try:
            temporary = tempfile.TemporaryDirectory(
                prefix="midwatch-", dir=place, ignore_cleanup_errors=True
            )
        except OSError:
            continue
        with temporary as name:
            yield Path(name)
        return
    raise SetupError(
        "no directory can be written: mount a tmpfs at /tmp, set TMPDIR, or name one with --data"
    )


def _complain(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"midwatch: {text.removeprefix('midwatch: ')}\n")
        sys.stderr.flush()
