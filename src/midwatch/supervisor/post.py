"""Keeps the instance's own servers: hub, gateway, rehearsal. Never parked, never judged by agents' rules.

A post that ends is started again at once, then with a small capped pause. One that no longer
answers `/healthz` is killed first. Agents notice nothing: their telemetry waits on disk.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from midwatch.core import units
from midwatch.core.errors import LinkError
from midwatch.core.excerpt import show_lines
from midwatch.core.exits import last_words, signal_name
from midwatch.supervisor import http
from midwatch.supervisor.journal import Journal
from midwatch.supervisor.machine.system import Exit, Launch, Process, StartError, System
from midwatch.supervisor.output.capture import Capture
from midwatch.supervisor.precedence import Precedence
from midwatch.wire import sealed
from midwatch.wire.ids import new_id

CHECK_EVERY_S: Final = 1.0
FIRST_CHECKS_S: Final = 0.05
"""Distance of health checks, in general and until the first answer."""

CHECK_TIMEOUT_S: Final = 1.0

PATIENCE_S: Final = 3.0
"""Without an answer for this long a post counts as hung; with the last time-out that is under 5 s."""

STARVED_PATIENCE_S: Final = 60.0
"""How long one may be silent that still gets the processor: the machine is too busy for it, and to start
it anew would only cost more."""

WORK_S: Final = 0.01
"""Processor time in one pause that tells who works slowly from who hangs."""

START_PATIENCE_S: Final = 60.0
"""A post that has not answered yet may need this long: a big database is opened, a disk is slow."""

PAUSES_S: Final = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
"""Pause before each start in a row."""

STEADY_S: Final = 30.0
"""After this long a new row begins."""

STOP_GRACE_S: Final = 10.0

CONFIGURATION: Final = 2
"""Exit code by which a post says that a restart cannot help (CONTRACT)."""


ECHO_LINES_S: Final = 20
"""Lines a second of a post's output that reach the console."""

ECHO_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Plan:
    """What a post is: its name, command, address and environment."""

    name: str
    command: tuple[str, ...]
    url: str
    env: Mapping[str, str]
    cwd: str
    echo: bool = False
    """Whether its output is shown on the console: the hub tells of incidents there."""
    secrets: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """Variables that are handed to it when it asks (`wire.sealed`), instead of standing in its environment."""


class Echo:
    """Passes what a post prints on to the console, line by line, printable and bounded."""

    def __init__(self, say: Callable[[str], None], now: Callable[[], float]) -> None:
        self.held_back = 0
        self._say = say
        self._now = now
        self._rest = b""
        self._second = 0
        self._lines = 0

    def feed(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-ECHO_BYTES:]
        for line in lines:
            second = int(self._now())
            self._lines = self._lines + 1 if second == self._second else 1
            self._second = second
            if self._lines > ECHO_LINES_S:
                self.held_back += 1  # all of it is in the log
                continue
            for shown in show_lines(line[:ECHO_BYTES], 1):
                self._say(shown)


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without the post. Unix seconds."""

    began: float
    ended: float
    reason: str


class Post:
    """One of the instance's own servers."""

    def __init__(
        self,
        plan: Plan,
        system: System,
        capture: Capture,
        journal: Journal,
        say: Callable[[str], None],
        back: Callable[[Gap], None],
        up: Callable[[], None],
    ) -> None:
        self.plan = plan
        self.starts = 0
        self.hangs = 0
        self.ready = asyncio.Event()
        """Set while the post answers."""
        self.refused = asyncio.Event()
        """Set when it said at its first start that it cannot work like this; `problem` says why."""
        self.problem = ""
        self.may_refuse = True
        """Off once agents run: who refuses then is told, and started again like any other."""
        self.process: Process | None = None
        self._system = system
        self._capture = capture
        self._journal = journal
        self._say = say
        self._back = back
        self._up = up
        self._echo = Echo(say, system.now)
        self._exited = asyncio.Event()
        self._exit = Exit(None, None)
        self._down: tuple[float, str] | None = None
        self._ever_ready = False
        self._cpu_s = 0.0
        """Of the process, when it was last asked whether it works."""
        self._precedence = Precedence(plan.name, system, say)
        self._line: socket.socket | None = None
        """On which it asks for its secrets."""
        self._stopping = False

    async def keep(self) -> None:
        """Start the post, watch it, start it again; until it is cancelled or stopped."""
        row = 0
        while not self._stopping:
            await asyncio.sleep(PAUSES_S[min(row, len(PAUSES_S) - 1)])
            if self._stopping:
                return
            began = self._system.now()
            if self._start():
                await self._hand_over()
                await self._watch()
                await self._exited.wait()
                self._after(self._exit)
            if self.refused.is_set():
                return
            row = 0 if self._system.now() - began >= STEADY_S else row + 1

    async def stop(self) -> None:
        """End the post politely, then by force."""
        self._stopping = True
        process = self.process
        if process is None:
            return
        self._system.signal(process, signal.SIGTERM)
        try:
            await asyncio.wait_for(self._exited.wait(), STOP_GRACE_S)
        except TimeoutError:
            await self._kill(process)

    def kill(self) -> None:
        """Kill at once, without waiting."""
        self._stopping = True
        if self.process is not None:
            self._system.kill_tree(self.process)

    def _start(self) -> bool:
        run_id = new_id()
        self._exited.clear()
        self._precedence.begin()
        self._capture.begin()
        env = {**self.plan.env, "MIDWATCH_RUN_ID": run_id}
        command, keep = self._with_line()
        launch = Launch(
            command, env, self.plan.cwd, run_id, self._printed, self._ended, keep_fds=keep
        )
        try:
            self.process = self._system.spawn(launch)
        except StartError as error:
            self._close_line()
            self._say(f"{self.plan.name}: {error}")
            self._mark_down(str(error))
            return False
        self.starts += 1
        process = self.process
        self._journal.started(
            f"/{self.plan.name}", run_id, process.pid, process.started, self._system.wall()
        )
        return True

    def _with_line(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Return the command, and what it inherits: the end of a line when there are secrets to tell."""
        if not self.plan.secrets:
            return self.plan.command, ()
        self._line, theirs = socket.socketpair()
        fd = theirs.detach()
        return (*self.plan.command, "--secrets-fd", str(fd)), (fd,)

    async def _hand_over(self) -> None:
        """Tell the post its secrets when it asks. One that does not is found to be hung, or ended, like any other."""
        line, self._line = self._line, None
        if line is not None:
            await sealed.tell(line, self.plan.secrets, START_PATIENCE_S)

    def _close_line(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def _printed(self, data: bytes) -> None:
        self._capture.feed(data)
        if self.plan.echo and self._ever_ready:  # until then its end says what there is to say
            self._echo.feed(data)

    def _ended(self, exit_: Exit) -> None:
        self.process = None
        self._exit = exit_
        self._exited.set()
        self._journal.ended(f"/{self.plan.name}", 0)
        if not self._stopping:
            # at once, not when `keep` gets its turn: the gap begins now
            self._mark_down(self._how(exit_))
        self.ready.clear()

    def _after(self, exit_: Exit) -> None:
        if self._stopping:
            return
        words = last_words(self._capture.tail())
        if exit_.code == CONFIGURATION and self.may_refuse and not self._ever_ready:
            said = [line for line in self._capture.tail() if line.strip()]
            self.problem = (
                said[-1] if said else f"cannot work like this (exit code {CONFIGURATION})"
            )
            self.refused.set()
            return
        told = f" ({words})" if words and exit_.signal is None else ""
        self._say(f"{self.plan.name}: {self._how(exit_)}{told}; starting it again, agents go on")

    def _how(self, exit_: Exit) -> str:
        if exit_.signal is not None:
            return f"ended by {signal_name(exit_.signal)}"
        return f"ended with code {exit_.code}"

    async def _watch(self) -> None:
        """Check until the process ends; kill it when it no longer answers."""
        since = self._system.now()
        answered = False
        while not self._exited.is_set():
            asked = self._system.now()
            if await self._answers():
                since, answered = asked, True
                self._mark_up()
            # time in which we did not get to ask is no silence of the post's
            patience = PATIENCE_S if answered else START_PATIENCE_S
            process = self.process
            if process is not None:
                self._precedence.look(process)
            if answered and process is not None and self._works(process):
                patience = STARVED_PATIENCE_S
            if self._system.now() - since > patience and process is not None and not self._stopping:
                self.hangs += 1
                silent_s = self._system.now() - since
                silent = units.show_duration(silent_s)
                self._mark_down(f"did not answer for {silent}", silent_s)
                self._say(
                    f"{self.plan.name}: does not answer for {silent}; killing it and starting it again"
                )
                await self._kill(process)
                return
            pause = CHECK_EVERY_S if answered else FIRST_CHECKS_S
            before = self._system.now()
            try:
                await asyncio.wait_for(self._exited.wait(), pause)
            except TimeoutError:
                since += max(0.0, self._system.now() - before - 2 * pause)

    def _works(self, process: Process) -> bool:
        """Tell whether it used the processor since the last time that this was asked, or waits for it."""
        sample = self._system.sample([process], light=True).get(process.pid)
        before, self._cpu_s = self._cpu_s, sample.cpu_s if sample is not None else 0.0
        return self._cpu_s - before >= WORK_S or self._system.standing(process).state == "R"

    async def _answers(self) -> bool:
        try:
            answer = await http.request(
                "GET", f"{self.plan.url}/healthz", timeout_s=CHECK_TIMEOUT_S
            )
        except LinkError:
            return False
        return answer.status == 200 and self.process is not None

    async def _kill(self, process: Process) -> None:
        while not self._exited.is_set():
            self._system.kill_tree(process)
            try:
                await asyncio.wait_for(self._exited.wait(), 0.1)
            except TimeoutError:
                continue

    def _mark_down(self, reason: str, ago_s: float = 0.0) -> None:
        if self._down is None and self._ever_ready:
            self._down = (self._system.wall() - ago_s, reason)

    def _mark_up(self) -> None:
        self._ever_ready = True
        if not self.ready.is_set():
            self.ready.set()
            self._up()
        if self._down is not None:
            began, reason = self._down
            self._down = None
            gap = Gap(began, self._system.wall(), reason)
            self._say(
                f"{self.plan.name}: back after {units.show_duration(gap.ended - gap.began)}; agents went on"
            )
            self._back(gap)
