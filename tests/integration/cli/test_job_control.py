"""`midwatch run` in a shell with job control: Ctrl-Z, `fg`, `bg`, as with any command."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

RUN = f"{sys.executable} -m midwatch.cli run"
LIMIT_S = 30.0

COUNTING = "import time\nfor n in range(100000): print(f'n{n}', flush=True); time.sleep(0.02)"


class Shell:
    """An interactive bash on a terminal of its own."""

    def __init__(self) -> None:
        self.seen = ""
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            environment = {**os.environ, "PS1": "ready$ ", "HISTFILE": "", "INPUTRC": "/dev/null"}
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment)
        settings = termios.tcgetattr(self.terminal)
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(self.terminal, termios.TCSANOW, settings)
        self.until(r"ready\$ ")

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def until(self, pattern: str) -> re.Match[str]:
        """Read until the pattern is seen; what was read up to its end is not looked at again."""
        deadline = time.monotonic() + LIMIT_S
        while (found := re.search(pattern, self.seen)) is None:
            assert time.monotonic() < deadline, f"{pattern!r} is not in {self.seen[-2000:]!r}"
            if select.select([self.terminal], [], [], 0.1)[0]:
                self.seen += os.read(self.terminal, 65536).decode("utf-8", "replace")
        self.seen = self.seen[found.end() :]
        return found

    def close(self) -> None:
        for pid in [*descendants(self.pid), self.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def runs(pid: int, program: str) -> bool:
    """Tell whether the process has executed it: before that it looks like who forked it."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(program.encode())


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "still not so"
        time.sleep(0.01)


@pytest.fixture
def shell() -> Iterator[Shell]:
    if not Path("/proc/self/task").exists():
        pytest.skip("processes are looked up in /proc")
    one = Shell()
    yield one
    one.close()


def midwatch_and_command(shell: Shell) -> tuple[int, int]:
    ours, command = descendants(shell.pid)[:2]
    return ours, command


def test_ctrl_z_stops_the_job_and_fg_lets_it_go_on(shell: Shell) -> None:
    shell.type(f'{RUN} -- {sys.executable} -c "{COUNTING}"\n'.replace("\\n", "\n"))
    shell.until(r"n5\b")
    ours, command = midwatch_and_command(shell)
    for _ in range(2):
        shell.type("\x1a")
        shell.until(r"Stopped[\s\S]*?ready\$ ")
        until(lambda: (state(ours), state(command)) == ("T", "T"))
        shell.type("fg\n")
        shell.until(r"n\d+\r")
        until(lambda: state(ours) != "T")
    shell.type("\x03")  # the terminal is the command's again
    shell.until(r"KeyboardInterrupt[\s\S]*ready\$ ")
    shell.type("echo code $?\n")
    assert shell.until(r"code (\d+)\r")[1] == "130"


def test_bg_lets_it_go_on_until_it_reads_from_the_terminal(shell: Shell) -> None:
    shell.type(f"{RUN} -- bash -c 'echo up; sleep 0.5; read word; echo got $word'\n")
    shell.until("up")
    shell.type("\x1a")
    shell.until(r"Stopped[\s\S]*?ready\$ ")
    shell.type("bg\n")
    shell.until(r"ready\$ ")
    ours, _ = midwatch_and_command(shell)
    until(lambda: state(ours) == "T")  # it wants to read
    shell.type("fg\n")
    shell.until("read word")  # bash says what it brings to the front
    shell.type("this\n")
    shell.until("got this")
    shell.until(r"ready\$ ")


def test_fg_of_a_job_that_runs_brings_the_terminal_to_its_command(
    shell: Shell, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    waits = f"until test -e {go}; do sleep 0.05; done"
    shell.type(f"{RUN} -- bash -c 'echo up; {waits}; read word; echo got $word'\n")
    shell.until("up")
    shell.type("\x1a")
    shell.until(r"Stopped[\s\S]*?ready\$ ")
    _, command = midwatch_and_command(shell)
    shell.type("bg\n")
    shell.until(r"ready\$ ")
    until(lambda: state(command) != "T")
    shell.type("fg\n")  # the shell signals a job that is stopped, and none that runs
    shell.until("read word")
    go.touch()
    shell.type("this\n")
    shell.until("got this")
    shell.until(r"ready\$ ")


def test_a_command_without_a_part_in_the_terminal_is_stopped_too(shell: Shell) -> None:
    shell.type(f"{RUN} -- sleep 600 < /dev/null\n")
    until(lambda: len(descendants(shell.pid)) == 2)
    ours, command = midwatch_and_command(shell)
    until(lambda: runs(command, "sleep"))
    until(lambda: _listens_to(ours, signal.SIGTSTP))
    shell.type("\x1a")
    shell.until(r"Stopped[\s\S]*?ready\$ ")
    until(lambda: (state(ours), state(command)) == ("T", "T"))
    shell.type("bg\n")
    until(lambda: state(command) == "S")


def test_the_rest_of_a_pipeline_stops_with_it(shell: Shell) -> None:
    shell.type(f"{RUN} -- bash -c 'echo up >&2; sleep 600' | cat\n")
    shell.until("up")
    shell.type("\x1a")
    shell.until(r"Stopped[\s\S]*?ready\$ ")
    until(lambda: {state(pid) for pid in descendants(shell.pid)} == {"T"})


def test_without_a_shell_nothing_stays_stopped() -> None:
    pid, terminal = pty.fork()  # its group is orphaned, as that of a container's first process
    if pid == 0:
        os.execvp(sys.executable, [*RUN.split(), "--", sys.executable, "-u", "-c", COUNTING])
    seen = b""
    try:
        while b"n5\r" not in seen:
            seen += os.read(terminal, 4096)
        os.write(terminal, b"\x1a")
        while b"^Z" not in seen:
            seen += os.read(terminal, 4096)
        before = int(re.findall(rb"n(\d+)\r", seen)[-1])
        deadline = time.monotonic() + LIMIT_S
        while f"n{before + 20}\r".encode() not in seen:
            assert time.monotonic() < deadline
            assert select.select([terminal], [], [], LIMIT_S)[0], "it stays stopped"
            seen += os.read(terminal, 4096)
    finally:
        for each in [*descendants(pid), pid]:
            os.kill(each, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def test_a_sigstop_of_the_command_is_the_commands_own() -> None:
    ours = subprocess.Popen([*RUN.split(), "-v", "--", "sleep", "600"], stdin=subprocess.DEVNULL)
    try:
        until(lambda: len(descendants(ours.pid)) == 1)
        (command,) = descendants(ours.pid)
        until(lambda: runs(command, "sleep"))
        os.kill(command, signal.SIGSTOP)
        until(lambda: state(command) == "T")
        ours.send_signal(signal.SIGTERM)  # heard: we are not stopped
        assert ours.wait(LIMIT_S) == 128 + signal.SIGTERM
    finally:
        ours.kill()
        ours.wait()


def _listens_to(pid: int, number: int) -> bool:
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"SigCgt:\s*([0-9a-f]+)", text)
    return found is not None and bool(int(found[1], 16) >> number - 1 & 1)
