"""A walled run under the real system: how it ends, what it leaves, and what is told where no walls stand."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import os
import re
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from midwatch.supervisor.machine.seccomp import ARCHITECTURES
from midwatch.supervisor.machine.system import Exit


@pytest.mark.parametrize(
    ("code", "exit_"),
    [
        ("raise SystemExit(0)", Exit(0, None)),
        ("raise SystemExit(7)", Exit(7, None)),
        ("import os; os.kill(os.getpid(), 9)", Exit(None, 9)),
        ("import os; os.kill(os.getpid(), 11)", Exit(None, 11)),
    ],
    ids=["0", "7", "SIGKILL", "SIGSEGV"],
)
async def test_its_exit_is_reported(walled: Any, code: str, exit_: Exit) -> None:
    found = await walled(code).end()
    assert (found.code, found.signal) == (exit_.code, exit_.signal)


async def test_beats_of_the_sdk_reach_hub_and_notify_socket(own: Any, walled: Any) -> None:
    asked: list[tuple[str, bytes]] = []

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"accepted": 1}')

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    path = own.base / "data/run/subject.sock"
    with (
        http.server.HTTPServer(("127.0.0.1", 0), Hub) as hub,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices,
    ):
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        notices.bind(str(path))
        notices.setblocking(False)
        env = {
            "MIDWATCH_AGENT": "subject",
            "MIDWATCH_URL": f"http://127.0.0.1:{hub.server_port}",
            "NOTIFY_SOCKET": str(path),
        }
        run = walled(
            "import midwatch as mw; mw.init(); mw.beat(tokens=7)", socket=str(path), env=env
        )
        assert (await run.end()).code == 0, run.said
        await run.until(
            lambda: any(b'"tokens":7' in body.replace(b" ", b"") for _, body in asked), "the beat"
        )
        hub.shutdown()
        heard = [notices.recv(4096) for _ in range(2)]
        assert any(datagram.startswith(b"WATCHDOG=1") for datagram in heard), heard


async def test_sigterm_reaches_it_and_it_ends_in_its_own_time(walled: Any) -> None:
    run = walled("""
        import os, signal, sys, time
        def bye(*_):
            os.write(1, b"cleaning up\\n")  # print may be under way
            time.sleep(0.2)
            os.write(1, b"clean\\n")
            sys.exit(5)
        signal.signal(signal.SIGTERM, bye)
        print("up", flush=True)
        time.sleep(600)
    """)
    await run.until(lambda: "up" in run.said, "its start")
    assert run.system.signal(run.process, signal.SIGTERM)
    found = await run.end()
    assert (found.code, run.said.split("\n")[1:3]) == (5, ["cleaning up", "clean"])


async def test_a_terminal_is_its_own_and_nothing_else_is_typed_into_it(walled: Any) -> None:
    run = walled(
        """
        import fcntl, os, sys
        print(os.isatty(0), os.isatty(1), os.get_terminal_size().columns, flush=True)
        tty = os.open("/dev/tty", os.O_RDWR)
        for request in (0x5412, 0x1_0000_5412 & 0xFFFFFFFF):
            try:
                fcntl.ioctl(tty, request, b"x")
                print("typed")
            except OSError as error:
                print(error.strerror)
        print("got", input())
        """,
        tty=True,
    )
    await run.until(lambda: run.said.count("not permitted") == 2, "both refusals")
    assert run.said.startswith("True True 220")
    assert run.system.write(run.process, b"hello\n")
    assert (await run.end()).code == 0
    assert "got hello" in run.said


async def test_a_daemon_in_its_own_session_ends_with_the_run(walled: Any) -> None:
    before = _called("midwatch-left-behind")
    run = walled("""
        import subprocess, sys
        subprocess.Popen(["sh", "-c", "exec -a midwatch-left-behind sleep 600 || exec sleep 600"],
                         start_new_session=True, env={}, executable="/bin/bash")
        print("left", flush=True)
        sys.stdin.read()
        import time; time.sleep(0.3)
    """)
    await run.until(lambda: len(_called("midwatch-left-behind")) > len(before), "the daemon")
    assert (await run.end()).code == 0
    await run.until(lambda: _called("midwatch-left-behind") == before, "the daemon's end")


async def test_a_fork_bomb_ends_when_it_is_killed(walled: Any) -> None:
    # bounded: seven generations, 128 processes that would live on
    run = walled("""
        import os, time
        for _ in range(7):
            os.fork()
        os.write(1, b".")
        time.sleep(600)
    """)
    await run.until(lambda: run.said.count(".") == 128, "all processes")
    inside = _namespace_of(run.process.pid)
    assert len(inside) >= 128
    os.kill(run.process.pid, signal.SIGKILL)  # bubblewrap alone: the namespace follows
    await run.end()
    await run.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in inside), "their end")


async def test_a_hog_does_not_disturb_its_neighbour(walled: Any) -> None:
    neighbour = walled(
        """
        import time
        while True:
            open("/tmp/own", "w").write("x" * 1000)
            print("ok", flush=True)
            time.sleep(0.02)
    """,
        {"tmp": "1MiB"},
    )
    await neighbour.until(lambda: "ok" in neighbour.said, "the neighbour's start")
    hog = walled("""
        import os
        count = files = 0
        try:
            with open("/tmp/large", "wb") as file:
                while True:
                    count += file.write(bytes(65536)); file.flush()
        except OSError as error:
            print(error.strerror)
        os.unlink("/tmp/large")
        for number in range(10000):
            try:
                open(f"/tmp/{number}", "w").close(); files += 1
            except OSError:
                break
        pids = []
        for _ in range(200):
            if not (pid := os.fork()):
                os.pause() if hasattr(os, "pause") else __import__("signal").pause()
            pids.append(pid)
        print("files", files, "children", len(pids), flush=True)
        __import__("signal").pause()
    """, {"tmp": "1MiB"})  # fmt: skip
    await hog.until(lambda: "children 200" in hog.said, "the hog's worst")
    assert "No space left" in hog.said
    before = neighbour.said.count("ok")
    await neighbour.until(lambda: neighbour.said.count("ok") > before + 5, "its work goes on")
    assert "Error" not in neighbour.said


def _called(name: str) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(name.encode()):
                found.append(int(entry.name))
    return sorted(found)


def _namespace_of(pid: int) -> list[int]:
    """Return the processes in the process namespace below bubblewrap."""
    ours = os.readlink("/proc/self/ns/pid")
    children = [
        int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ]
    space = os.readlink(f"/proc/{children[0]}/ns/pid")
    assert space != ours
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.readlink(entry / "ns/pid") == space:
                found.append(int(entry.name))
    return found


# -- where walls cannot be built -------------------------------------------------------------------


BROKEN = """#!/bin/sh
[ "$*" = --version ] && echo bubblewrap {version} && exit
echo 'bwrap: setting up uid map: Permission denied' >&2
exit 1
"""


def broken(house: Any, version: str = "0.8.0") -> dict[str, str]:
    """Put a bubblewrap first in PATH that cannot build anything here; return the environment."""
    folder = house.base / "bin"
    folder.mkdir()
    (folder / "bwrap").write_text(BROKEN.format(version=version))
    (folder / "bwrap").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_where_walls_cannot_be_built_it_runs_without_and_says_so_in_one_line(own: Any) -> None:
    code, out, err = own.run(["/bin/echo", "ran"], {}, outer=broken(own))
    assert (code, out) == (0, "ran\n")
    assert err.startswith(
        "subject: runs without its sandbox: bubblewrap may not make namespaces here (setting up uid map: Permission denied); "
    )
    assert err.count("\n") == 1


def test_where_walls_are_required_and_cannot_be_built_it_does_not_start(own: Any) -> None:
    code, out, err = own.run(["/bin/echo", "ran"], {"require": True}, outer=broken(own))
    assert (code, out) == (1, "")
    assert err.startswith(
        "refused: agents.subject.sandbox.require: walls cannot be built, so it is not started: bubblewrap may not"
    )


def test_an_old_bubblewrap_is_named(own: Any) -> None:
    _, _, err = own.run(["/bin/echo", "ran"], {}, outer=broken(own, "0.4.1"))
    assert "bubblewrap 0.4.1 is too old, 0.5.0 is needed; install it" in err


@pytest.mark.parametrize(
    ("sandbox", "why"),
    [
        ({"network": "proxy"}, "'proxy' comes with the guard"),
        ({"write": ["/no/such/place"]}, "'/no/such/place' does not exist"),
        ({"write": [".", "way-out"]}, "leads over the symbolic link"),
        ({"write": ["../data/logs"]}, "is Midwatch's own data"),
        ({"read": ["../data/token"]}, "is Midwatch's own data"),
        ({"write": ["/proc/sys"]}, "nothing below /proc"),
    ],
)
def test_terms_that_cannot_be_kept_are_refused(own: Any, sandbox: dict[str, Any], why: str) -> None:
    code, out, err = own.run(["/bin/echo", "ran"], sandbox)
    assert (code, out) == (1, "")
    assert why in err


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["no-such-program"], "cannot start 'no-such-program': not found on PATH"),
        (["./no-such-file"], "cannot start './no-such-file': no such file"),
        (["./midwatch.yaml"], "permission denied; make it executable"),
        (["./"], "it is a directory"),
        (["way-out/../outside/hidden"], "lies where the walls hide it"),
    ],
)
def test_a_program_that_cannot_be_started_is_told_as_without_walls(
    own: Any, command: list[str], why: str
) -> None:
    hidden = own.base / "outside" / "hidden"
    hidden.write_text("#!/bin/sh")
    hidden.chmod(0o755)
    _, _, err = own.run(command, {"hide": ["../outside/hidden"]})
    assert why in err


def test_the_agents_variables_are_on_no_command_line_and_not_bubblewraps(own: Any) -> None:
    preload = {"LD_PRELOAD": str(own.cwd / "evil.so")}
    with own.start(["sh", "-c", "echo up; exec sleep 600"], {}, env=preload) as process:
        try:
            # before it is up, bubblewrap could not take what is inside along
            assert process.stdout.readline() == "up\n"
            line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
            env = Path(f"/proc/{process.pid}/environ").read_bytes()
        finally:
            process.kill()
    assert line.split(b"\0")[-4:-1] == [b"sh", b"-c", b"echo up; exec sleep 600"]
    assert b"token-of-the-run" not in line
    assert {entry.split(b"=")[0] for entry in env.split(b"\0") if entry} == {
        b"MIDWATCH_RUN_ID",
        b"MIDWATCH_SPOOL",
    }


async def test_a_bubblewrap_that_is_killed_while_it_builds_leaves_nothing(walled: Any) -> None:
    """It dies before it has told its child to die with it: the run id finds what goes on."""
    for moment_s in (0.0, 0.001, 0.002, 0.004, 0.008):
        run = walled("import time; time.sleep(600)")
        await asyncio.sleep(moment_s)
        os.kill(run.process.pid, signal.SIGKILL)
        await run.end()
        mark = f"MIDWATCH_RUN_ID={run.process.run_id}".encode()
        await run.until(lambda run=run: run.system.kill_tree(run.process) == 0, "no more to kill")
        await run.until(lambda mark=mark: not _marked(mark), "nothing is left")


def _marked(mark: bytes) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize(
    ("machine", "header", "macro"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", r"#define __NR_(\w+) (\d+)"),
        ("aarch64", "/usr/include/asm-generic/unistd.h", r"#define __NR(?:3264)?_(\w+) (\d+)"),
    ],
)
def test_the_numbers_of_system_calls_are_the_kernels(machine: str, header: str, macro: str) -> None:
    if not Path(header).exists():
        pytest.skip("the kernel's headers are not installed")
    known = {name: int(number) for name, number in re.findall(macro, Path(header).read_text())}
    architecture = ARCHITECTURES[machine]
    ours = {**architecture.forbidden, "clone": architecture.clone, "ioctl": architecture.ioctl}
    wrong = {name: number for name, number in ours.items() if known.get(name, number) != number}
    assert wrong == {}
    assert len(ours.keys() & known.keys()) > 30
