"""`midwatch run` as an entry point: streams, signals, exit codes, and the duties of process 1."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

RUN = [sys.executable, "-m", "midwatch.cli", "run"]
LIMIT_S = 30


def run(
    *words: str, given: bytes = b"", env: dict[str, str] | None = None
) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        [*RUN, *words], input=given, capture_output=True, timeout=LIMIT_S, check=False,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@contextlib.contextmanager
def started(*words: str, prefix: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """Run in the background; the command prints `up` once it listens to signals."""
    process = subprocess.Popen(
        [*prefix, *RUN, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"up\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_streams_pass_through_unchanged_and_apart() -> None:
    code, out, err = run("--", "sh", "-c", "cat; echo err >&2; exit 7", given=b"in\x00\xff\n")
    assert (code, out, err) == (7, b"in\x00\xff\n", b"err\n")


def test_with_a_data_directory_they_pass_through_too_and_are_kept_without_secrets(
    tmp_path: Path,
) -> None:
    script = "cat; echo sk-proj-" + "a1" * 30 + " >&2; exit 3"
    code, out, err = run(
        "--name", "job", "--data", str(tmp_path), "--", "sh", "-c", script, given=b"in\n"
    )
    assert (code, out) == (3, b"in\n")
    assert err == b"sk-proj-" + b"a1" * 30 + b"\n"
    kept = (tmp_path / "logs/job/output.log").read_text()
    assert "in\n" in kept
    assert "sk-proj[redacted]" in kept


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 42"], 42),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["no-such-program"], 127),
        (["/no/such/program"], 127),
        (["/etc/passwd"], 126),
        (["/tmp"], 126),
    ],
)
def test_the_exit_code_is_the_commands_or_dockers(command: list[str], code: int) -> None:
    assert run("--", *command)[0] == code


def test_what_is_midwatchs_own_fault_is_125(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = run("--data", str(tmp_path / "file"), "--", "true")
    assert code == 125
    assert err.startswith(b"midwatch: data directory")


def test_streams_that_are_closed_are_empty_ones_for_the_command() -> None:
    command = [*RUN, "--", "sh", "-c", "readlink /proc/self/fd/0 /proc/self/fd/2; exit 4"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- 2>&-', "sh", *command],
        stdout=subprocess.PIPE, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (4, b"/dev/null\n/dev/null\n")


def test_options_behind_the_program_are_the_programs() -> None:
    assert run("sh", "-c", "echo $0 $1", "--help", "-v")[1] == b"--help -v\n"


def test_a_job_that_ends_well_and_one_that_fails_are_left_to_their_own_words() -> None:
    assert run("--", "sh", "-c", "exit 0")[2] == b""
    assert run("--", "sh", "-c", "exit 1")[2] == b""


def test_a_failure_is_tried_again_as_often_as_was_asked() -> None:
    code, out, err = run(
        "--restart", "failure", "--attempts", "1", "--", "sh", "-c", "echo x; exit 5"
    )
    assert (code, out.count(b"x")) == (5, 2)
    assert b"starting it again" in err


def test_success_ends_it_unless_always_was_asked() -> None:
    assert run("--restart", "failure", "--", "sh", "-c", "echo x")[1] == b"x\n"


def test_the_wall_clock_and_the_grace_end_it() -> None:
    code, _, err = run(
        "--wall",
        "300ms",
        "--stop-grace",
        "200ms",
        "--",
        "sh",
        "-c",
        "trap '' TERM; while :; do sleep 0.1; done",
    )
    assert code == 137
    assert b"ran past its limit of 300 ms" in err


def test_memory_above_the_limit_ends_it() -> None:
    hog = "x = bytearray(200 << 20); import time; time.sleep(60)"
    code, _, err = run("--memory", "60MiB", "--", sys.executable, "-c", hog)
    assert code == 137
    assert b"memory" in err


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "USR1", "USR2"])
def test_signals_are_passed_on(name: str) -> None:
    script = f"trap 'echo got {name}; exit 9' {name}; echo up; while :; do sleep 0.05; done"
    with started("--", "bash", "-c", script) as process:
        process.send_signal(signal.Signals[f"SIG{name}"])
        out, _ = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out) == (9, f"got {name}\n".encode())


def test_sigterm_asks_and_the_grace_is_kept() -> None:
    polite = "trap 'sleep 0.3; echo bye; exit 4' TERM; echo up; while :; do sleep 0.05; done"
    with started("--", "sh", "-c", polite) as process:
        process.terminate()
        out, _ = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out) == (4, b"bye\n")
    with started("--stop-grace", "200ms", "--", "sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done") as process:  # fmt: skip
        process.terminate()
        process.communicate(timeout=LIMIT_S)
    assert process.returncode == 137


def test_an_interrupted_command_is_not_started_again() -> None:
    with started("--restart", "always", "--", "sh", "-c", "echo up; exec sleep 60") as process:
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out) == (130, b"")


def test_without_a_hub_the_command_finds_no_address_of_one_and_its_own_settings() -> None:
    mine = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "MINE": "1"}
    out = run("--name", "job", "--", "env", env=mine)[1].decode()
    found = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
    assert found["MINE"] == "1"
    assert found["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
    assert found["MIDWATCH_AGENT"] == "job"
    assert found["NOTIFY_SOCKET"]
    assert not {"MIDWATCH_URL", "MIDWATCH_TOKEN", "OPENAI_BASE_URL"} & found.keys()


def test_a_terminal_is_given_where_there_is_none() -> None:
    code, out, _ = run(
        "--tty", "--", "sh", "-c", "test -t 0 && test -t 1 && read x && echo got $x", given=b"hi\n"
    )
    assert code == 0
    assert b"got hi" in out


@pytest.mark.parametrize(
    ("trap", "grace_s", "code"),
    # asked, it does not take the grace; killed after it, its last output has two seconds, which are wasted here
    [("", 10 * LIMIT_S, 143), ("trap '' TERM; ", 1, 137)],
    ids=["ends when asked", "ends when killed"],
)
def test_a_reader_that_takes_nothing_holds_up_the_terminal_and_not_the_end(
    trap: str, grace_s: int, code: int
) -> None:
    with started(
        "--tty", "--stop-grace", f"{grace_s}s", "--", "sh", "-c",
        f"{trap}stty -opost; echo up; while :; do echo and so on; done",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        _until_full(process.stdout.fileno())
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == code


def test_a_slow_reader_of_a_terminal_loses_nothing() -> None:
    count = 60_000  # 340 KiB: more than all that waits between the two
    with started(
        "--tty", "--", "sh", "-c", f"stty -opost; echo up; seq {count}; exit 9"
    ) as process:
        assert process.stdout is not None
        _until_full(process.stdout.fileno())
        seen = process.stdout.read()
        assert process.wait(LIMIT_S) == 9
    assert seen == b"".join(b"%d\n" % number for number in range(1, count + 1))


def test_a_reader_of_a_terminal_that_goes_away_does_not_end_the_command() -> None:
    with started(
        "--tty", "--", "sh", "-c", "stty -opost; echo up; seq 200000; exit 9"
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(LIMIT_S) == 9
        process.stdout = None


def _until_full(pipe: int) -> None:
    """Wait until what waits in the pipe grows no more."""
    before, since, deadline = -1, time.monotonic(), time.monotonic() + LIMIT_S
    while time.monotonic() - since < 0.5:
        assert time.monotonic() < deadline
        held = int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4), sys.byteorder)
        if held != before or held < 30_000:
            before, since = held, time.monotonic()
        time.sleep(0.01)


def test_our_own_terminal_is_the_commands_and_ctrl_c_reaches_it() -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [*RUN, "--", "bash", "-c",
                 "trap 'echo interrupted; exit 6' INT; test -t 0 && echo up; while :; do sleep 0.05; done"])  # fmt: skip
    seen = b""
    deadline = time.monotonic() + LIMIT_S
    sent = False
    with contextlib.suppress(OSError):  # EIO: its end
        while time.monotonic() < deadline:
            seen += os.read(terminal, 4096)
            if b"up" in seen and not sent:
                sent = True
                os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 6
    assert b"interrupted" in seen


def test_it_reports_to_a_hub_and_a_hub_that_is_away_changes_nothing() -> None:
    heard: list[tuple[str, Any]] = []

    class Hub(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            heard.append((self.headers["authorization"], json.loads(body)))
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        code, out, _ = run("--name", "job", "--hub", url, "--", "sh", "-c", "echo last words; exit 3",
                           env={"MIDWATCH_TOKEN": "mwt_x"})  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert (code, out) == (3, b"last words\n")
    items = [item for _, body in heard for item in (body if isinstance(body, list) else [body])]
    ends = [item["data"] for item in items if item.get("kind") == "run.ended"]
    assert [(end["exit_code"], end["tail"]) for end in ends] == [(3, ["last words"])]
    assert {item["agent"] for item in items} == {"job"}
    assert {token for token, _ in heard} == {"Bearer mwt_x"}
    assert run("--hub", url, "--", "sh", "-c", "exit 3", env={"MIDWATCH_TOKEN": "mwt_x"})[0] == 3


UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
BWRAP = ("bwrap", "--unshare-user", "--unshare-pid", "--as-pid-1", "--die-with-parent",
         "--dev-bind", "/", "/", "--proc", "/proc", "--")  # fmt: skip


def _works(prefix: tuple[str, ...]) -> bool:
    if shutil.which(prefix[0]) is None:
        return False
    return subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("prefix", [UNSHARE, BWRAP], ids=["root", "rootless"])
def test_as_process_one_it_reaps_and_returns_the_exit_code(prefix: tuple[str, ...]) -> None:
    if not _works(prefix):
        pytest.skip(f"{prefix[0]} makes no process namespace here")
    # twenty grandchildren lose their parents and end: process 1 gets them all
    script = """
        tr '\\0' ' ' < /proc/1/cmdline | grep -q 'midwatch.cli run' || exit 50
        for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do (setsid sleep 0.1 &) ; done
        i=0
        while grep -sq '^State:.Z' /proc/[0-9]*/status || pgrep -x sleep >/dev/null; do
            i=$((i+1)); test $i -gt 200 && exit 51
            read -t 0.05 < /dev/tty 2>/dev/null || :
        done
        echo reaped; exit 11
    """
    done = subprocess.run(
        [*prefix, *RUN, "--", "bash", "-c", script], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (11, b"reaped\n"), done.stderr


def test_as_process_one_it_ends_on_sigterm_like_any_other() -> None:
    if not _works(UNSHARE):
        pytest.skip("unshare makes no process namespace here")
    script = "trap 'exit 8' TERM; echo up; while :; do sleep 0.05; done"
    with started("--", "sh", "-c", script, prefix=UNSHARE[:-2] + UNSHARE[-1:]) as process:
        (inner,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(inner), signal.SIGTERM)
        process.communicate(timeout=LIMIT_S)
    assert process.returncode == 8


EARLY = """
import asyncio, importlib.abc, os, signal, sys

class WhileLoading(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {loading!r}:
            os.kill(os.getpid(), signal.{name})

def while_starting():
    from midwatch.supervisor.supervisor import Supervisor
    start = Supervisor.start
    async def asked_meanwhile(self):
        os.kill(os.getpid(), signal.{name})
        await asyncio.sleep(0.1)  # the loop hears of it
        await start(self)
    Supervisor.start = asked_meanwhile

if {loading!r}:
    sys.meta_path.insert(0, WhileLoading())
else:
    while_starting()
from midwatch.cli.__main__ import main
main()
"""


@pytest.mark.parametrize("first", [False, True], ids=["as any process", "as process 1"])
@pytest.mark.parametrize(
    "loading",
    ["typer", "midwatch.supervisor.alone", ""],
    ids=["at the first import", "while loading", "while starting"],
)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGQUIT"])
def test_who_asks_for_the_end_before_the_command_runs_is_heard(
    name: str, loading: str, first: bool
) -> None:
    if first and not _works(UNSHARE):
        pytest.skip("unshare makes no process namespace here")
    done = subprocess.run(
        [*(UNSHARE if first else ()), sys.executable, "-c",
         EARLY.format(name=name, loading=loading), "run", "--", "sleep", "60"],
        capture_output=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (128 + signal.Signals[name], b"")
