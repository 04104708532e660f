"""Job control for a single command: Ctrl-Z stops all of it, `fg` and `bg` let it go on.

The command is in a process group of its own (in the foreground of our terminal), or in a session of its
own; the shell knows only our group. So whoever is stopped stops the other:

1. The command stops for its terminal (SIGTSTP, SIGTTIN, SIGTTOU): our group stops too, and the shell
   sees its job stopped. A SIGSTOP is for the command alone: also we freeze what we are about to kill.
   Where it only lacks the terminal, and we have it, it gets it: `fg` of a job that runs tells nobody.
2. We are asked to stop: the command is stopped first.
3. We go on (SIGCONT): the command does too, and where we are in the foreground the terminal is its again.

Invariant: the command is never left stopped by us where nobody can let it go on. Without a shell behind
us (as process 1, in an orphaned group) the kernel does not stop us; then all goes on after a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from typing import Final

from midwatch.supervisor.machine.system import Process, System

FOR_THE_TERMINAL: Final = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)

HEARD: Final = (signal.SIGTSTP, signal.SIGCONT, signal.SIGCHLD)

ALONE_S: Final = 0.5
"""Who was stopped hears SIGCONT. We that run on for so long without it were not: nobody is behind us."""


class Job:
    """We and the command, as the shell's one job. As a context manager, inside the loop."""

    def __init__(self, system: System, command: Callable[[], Process | None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._system = system
        self._command = command
        self._alone: asyncio.TimerHandle | None = None

    def __enter__(self) -> Job:
        if signal.getsignal(signal.SIGTSTP) is not signal.SIG_IGN:
            self._loop.add_signal_handler(signal.SIGTSTP, self._asked_to_stop)
        self._loop.add_signal_handler(signal.SIGCONT, self._go_on)
        self._loop.add_signal_handler(signal.SIGCHLD, self._look)
        return self

    def __exit__(self, *_: object) -> None:
        if self._alone is not None:
            self._alone.cancel()
        for number in HEARD:
            self._loop.remove_signal_handler(number)

    def _look(self) -> None:
        """A child ended, stopped or went on: has the command stopped for its terminal?"""
        process = self._command()
        if process is None:
            return
        try:
            told = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOHANG)
        except ChildProcessError:
            return  # it has ended, and that is heard elsewhere
        if told is None or told.si_status not in FOR_THE_TERMINAL:
            return
        if told.si_status != signal.SIGTSTP and _give_terminal(process):
            self._system.signal(process, signal.SIGCONT)
        else:
            self._stop()

    def _asked_to_stop(self) -> None:
        process = self._command()
        if process is not None:
            # and not SIGTSTP: the kernel takes none for an orphaned group, as that of another session is
            self._system.signal(process, signal.SIGSTOP)
        self._stop()

    def _stop(self) -> None:
        """Stop our group, as the terminal would. Returns when we go on, or were not stopped at all."""
        if signal.getsignal(signal.SIGTSTP) is not signal.SIG_IGN:
            self._loop.remove_signal_handler(signal.SIGTSTP)
            os.kill(0, signal.SIGTSTP)
            self._loop.add_signal_handler(signal.SIGTSTP, self._asked_to_stop)
        self._alone = self._loop.call_later(ALONE_S, self._go_on)

    def _go_on(self) -> None:
        if self._alone is not None:
            self._alone.cancel()
        process = self._command()
        if process is None:
            return
        _give_terminal(process)
        self._system.signal(process, signal.SIGCONT)


def _give_terminal(process: Process) -> bool:
    """Put the command in the foreground of our terminal; tell whether that place was ours to give."""
    with contextlib.suppress(OSError):
        if os.getsid(process.pid) == os.getsid(0) and os.tcgetpgrp(0) == os.getpgrp():
            os.tcsetpgrp(0, process.pid)
            return True
    return False
