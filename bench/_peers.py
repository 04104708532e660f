"""The supervisors that ours is measured beside: how each is installed, and told to keep programs running.

Every one is a context manager `(programs, folder)`: in the block, the programs run under it; at its end
the supervisor was asked to stop, as its user would. Peers are installed into a cache directory of
their own; one that cannot be installed is skipped with the reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "midwatch-bench"

OURS = """
import sys
from pathlib import Path
from midwatch.core.fleet import Fleet
from midwatch.supervisor.main import run
rules = {"restart": {"when": "always", "attempts": 1000000, "backoff": "0s"}, "limits": {"stop_grace": "10s", "memory": "1GiB"}}
agents = {f"a{n:03}": {"command": [program], **rules} for n, program in enumerate(sys.argv[2:])}
sys.exit(run(Fleet.model_validate({"agents": agents}).resolved(), Path(sys.argv[1]), hub=False))
"""


class Skipped(Exception):
    """The peer cannot run here, and why."""


@contextlib.contextmanager
def child(command: list[str], folder: Path, env: dict[str, str] | None = None) -> Iterator[int]:
    """Run a supervisor in a session of its own, yield its pid; ask it to stop, kill it if it does not."""
    with (folder / "console").open("wb") as console:
        process = subprocess.Popen(
            command, stdout=console, stderr=console, cwd=folder, env=env, start_new_session=True
        )
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def installed(name: str, *packages: str) -> Path:
    """Return the bin directory of a virtual environment with `packages`."""
    home = CACHE / name
    if not (home / "ready").exists():
        try:
            subprocess.run(
                [sys.executable, "-m", "venv", "--clear", home], check=True, capture_output=True
            )
            pip = [home / "bin" / "python", "-m", "pip", "install", "-q", *packages]
            subprocess.run(pip, check=True, capture_output=True, text=True, timeout=300)
        except (subprocess.SubprocessError, OSError) as error:
            said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            raise Skipped(f"cannot install {packages[0]}: {said[-1] if said else error}") from error
        (home / "ready").touch()
    return home / "bin"


@contextlib.contextmanager
def midwatch(programs: Sequence[Path], folder: Path) -> Iterator[int]:
    command = [sys.executable, "-c", OURS, str(folder / "data"), *map(str, programs)]
    with child(command, folder) as pid:
        yield pid


@contextlib.contextmanager
def supervisord(programs: Sequence[Path], folder: Path) -> Iterator[int]:
    tool = installed("supervisor", "supervisor", "setuptools<81") / "supervisord"
    rules = "autorestart=true\nstartsecs=0\nstartretries=1000000\n"
    (folder / "conf").write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={folder}/log\npidfile={folder}/pid\nminfds=8192\n"
        f"childlogdir={folder}\n"
        + "".join(f"[program:a{n:03}]\ncommand={p}\n{rules}" for n, p in enumerate(programs))
    )
    with child([str(tool), "-c", str(folder / "conf")], folder) as pid:
        yield pid


@contextlib.contextmanager
def circus(programs: Sequence[Path], folder: Path) -> Iterator[int]:
    tool = installed("circus", "circus") / "circusd"
    (folder / "circus.ini").write_text(
        f"[circus]\nendpoint=ipc://{folder}/endpoint\npubsub_endpoint=ipc://{folder}/pubsub\n"
        + "".join(
            f"[watcher:a{n:03}]\ncmd={p}\nmax_retry=-1\nwarmup_delay=0\n"
            for n, p in enumerate(programs)
        )
    )
    with child([str(tool), str(folder / "circus.ini")], folder) as pid:
        yield pid


@contextlib.contextmanager
def pm2(programs: Sequence[Path], folder: Path) -> Iterator[int]:
    tool = _pm2()
    env = {**os.environ, "PM2_HOME": str(folder / "pm2")}
    apps = [
        {"name": f"a{n:03}", "script": str(p), "interpreter": "none", "exec_mode": "fork"}
        for n, p in enumerate(programs)
    ]
    (folder / "apps.json").write_text(json.dumps({"apps": apps}))
    start = [str(tool), "start", str(folder / "apps.json")]
    subprocess.run(start, check=True, capture_output=True, env=env, timeout=300)
    try:
        yield int((folder / "pm2" / "pm2.pid").read_text())
    finally:
        subprocess.run([str(tool), "kill"], capture_output=True, env=env, timeout=120, check=False)


def _pm2() -> Path:
    home = CACHE / "pm2"
    tool = home / "node_modules" / ".bin" / "pm2"
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Skipped("node and npm are not installed")
    if not tool.exists():
        home.mkdir(parents=True, exist_ok=True)
        npm = [
            "npm",
            "install",
            "--silent",
            "--no-fund",
            "--no-audit",
            "--prefix",
            str(home),
            "pm2",
        ]
        try:
            subprocess.run(npm, check=True, capture_output=True, text=True, timeout=300)
        except (subprocess.SubprocessError, OSError) as error:
            raise Skipped(f"cannot install pm2: {error}") from error
    return tool


@contextlib.contextmanager
def runit(programs: Sequence[Path], folder: Path) -> Iterator[int]:
    """runsvdir with one runsv beside each program; `sv force-shutdown`, then the end of runsvdir."""
    if shutil.which("runsvdir") is None:
        raise Skipped("runit is not installed (Debian: apt-get install runit)")
    services = folder / "services"
    for n, program in enumerate(programs):
        (services / f"a{n:03}").mkdir(parents=True)
        (services / f"a{n:03}" / "run").symlink_to(program)
    with (folder / "console").open("wb") as console:
        process = subprocess.Popen(
            ["runsvdir", str(services)], stdout=console, stderr=console, start_new_session=True
        )
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGHUP)  # ends its runsv children, and those their programs
        process.wait(60)


PEERS: tuple[Callable[..., contextlib.AbstractContextManager[int]], ...] = (
    supervisord,
    circus,
    pm2,
    runit,
)


def tree(root: int) -> list[int]:
    """Return the living descendants of a process."""
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                below = [int(p) for p in (task / "children").read_text().split()]
                found += below
                queue += below
    return found


def cpu_s(pids: Sequence[int]) -> float:
    """Return the CPU seconds of these processes."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def pss_bytes(pids: Sequence[int]) -> int:
    """Return the memory of these processes, shared pages counted once."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += int(next(x for x in lines if x.startswith("Pss:")).split()[1]) * 1024
    return total


def wait(condition: Callable[[], object], timeout_s: float, what: str) -> float:
    """Poll until the condition is true; return the seconds. Raises Skipped after the timeout."""
    began = time.perf_counter()
    while not condition():
        if time.perf_counter() - began > timeout_s:
            raise Skipped(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(0.01)
    return time.perf_counter() - began
