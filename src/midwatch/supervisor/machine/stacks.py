"""Asks py-spy, where it is installed, for the stacks of a process that hangs.

It is no dependency of ours: a program on PATH is used, in a thread, with bounds in time and bytes, and
any failure (no permission, no Python) only means that there is no such stack. faulthandler, which needs
no permission, is asked after it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from typing import Final

from midwatch.core.excerpt import show_lines

DUMP_S: Final = 3.0
"""How long py-spy may take; it needs about 0.3 s."""

MAX_BYTES: Final = 64 * 1024

LINES: Final = 300

STARTING: Final = threading.Lock()
"""Held while a child is made that is not in `WAITED` yet."""

WAITED: Final[set[int]] = set()
"""Children whose end a thread here waits for: nobody else may reap them."""


class Dump:
    """One question to py-spy. `done` is set at the end; `lines` is then its answer, or empty."""

    def __init__(self, command: list[str], pid: int) -> None:
        self.lines: list[str] = []
        self.done = threading.Event()
        self._command = [*command, "dump", "--pid", str(pid)]
        threading.Thread(target=self._ask, name="midwatch-stacks", daemon=True).start()

    def _ask(self) -> None:
        try:
            self.lines = show_lines(self._read(), LINES)
        except OSError:
            self.lines = []
        finally:
            self.done.set()

    def _read(self) -> bytes:
        with STARTING:
            asked = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            )
            WAITED.add(asked.pid)
        with contextlib.ExitStack() as end:
            end.callback(WAITED.discard, asked.pid)  # after the wait
            end.enter_context(asked)
            limit = threading.Timer(DUMP_S, asked.kill)
            limit.start()
            try:
                assert asked.stdout is not None
                answer = asked.stdout.read(MAX_BYTES)
            finally:
                limit.cancel()
                asked.kill()  # what prints more than that is not listened to
        return answer if b"Thread " in answer else b""


def ask(pid: int) -> Dump | None:
    """Begin to ask about a process; None where py-spy is not installed."""
    found = shutil.which("py-spy")
    return Dump([found], pid) if found else None
