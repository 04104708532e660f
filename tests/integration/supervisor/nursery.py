"""Forks supervisors that have imported everything already: an import takes longer than all that is tested.

Run as a program; `Nursery` in conftest speaks to it. One JSON object per line: `{"code", "args",
"console", "session"}` starts a process that executes the code, and is answered with its pid; `{"of":
PID}` is answered with how it ended (as `Popen.returncode`), or null. What is started is in a process of
its own, with signals and a standard output of its own. The end of the input ends all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import Any

import midwatch.cli.source
import midwatch.supervisor.change.reload
import midwatch.supervisor.main  # noqa: F401  imported once, here


def become(order: dict[str, Any]) -> None:
    """Be a program of its own: in a session where that is asked, its output on its console."""
    if order["session"]:
        os.setsid()
    console = os.open(order["console"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, source in ((0, nothing), (1, console), (2, console)):
        os.dup2(source, number)
    os.close(console)
    os.close(nothing)
    sys.argv = ["-c", *order["args"]]


def main() -> None:
    living: set[int] = set()
    # unbuffered, so that no child inherits what is only half read or written
    asked, answers = os.fdopen(os.dup(0), "rb", 0), os.fdopen(os.dup(1), "wb", 0)
    answers.write(b"ready\n")
    while line := asked.readline():
        order: dict[str, Any] = json.loads(line)
        if "code" not in order:
            gone, status = os.waitpid(order["of"], os.WNOHANG)
            living.discard(gone)
            answer = os.waitstatus_to_exitcode(status) if gone else None
        elif (answer := os.fork()) == 0:
            asked.close()
            answers.close()
            become(order)
            exec(order["code"], {"__name__": "__main__"})
            return
        else:
            living.add(answer)
        answers.write(json.dumps(answer).encode() + b"\n")
    for pid in living:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


main()
