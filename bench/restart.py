"""How long an agent is gone: from its death to its replacement's first action, beside three peers.

The same shell program under each supervisor appends its pid to a file and sleeps. The bench kills
it with SIGKILL and waits for the next pid. Peers are installed into a cache directory of their own;
one that cannot be installed is skipped with the reason.

    python bench/restart.py [--rounds N]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "midwatch-bench"
PROGRAM = '#!/bin/sh\necho $$ >> "{pids}"\nexec sleep 1000\n'
START_S = 60.0
REPLACE_S = 30.0
TARGET_MS = 20.0

OURS = """
import sys
from pathlib import Path
from midwatch.core.fleet import Fleet
from midwatch.supervisor.main import run
fleet = Fleet.model_validate({"agents": {"bench": {"command": [sys.argv[1]],
    "restart": {"when": "always", "attempts": 1000000, "backoff": "0s"}}}})
sys.exit(run(fleet.resolved(), Path(sys.argv[2]), hub=False))
"""


class Skipped(Exception):
    """The peer cannot run here, and why."""


@contextlib.contextmanager
def child(command: list[str], folder: Path, env: dict[str, str] | None = None) -> Iterator[None]:
    """Run a supervisor in a session of its own; end it and all that is left of it."""
    with (folder / "console").open("wb") as console:
        process = subprocess.Popen(
            command, stdout=console, stderr=console, cwd=folder, env=env, start_new_session=True
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
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
def midwatch(program: Path, folder: Path) -> Iterator[None]:
    with child([sys.executable, "-c", OURS, str(program), str(folder / "data")], folder):
        yield


@contextlib.contextmanager
def supervisord(program: Path, folder: Path) -> Iterator[None]:
    tool = installed("supervisor", "supervisor", "setuptools<81") / "supervisord"
    (folder / "conf").write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={folder}/log\npidfile={folder}/pid\nuser=\n"
        f"[program:bench]\ncommand={program}\nautorestart=true\nstartsecs=0\nstartretries=1000000\n".replace(
            "user=\n", ""
        )
    )
    with child([str(tool), "-c", str(folder / "conf")], folder):
        yield


@contextlib.contextmanager
def circus(program: Path, folder: Path) -> Iterator[None]:
    tool = installed("circus", "circus") / "circusd"
    (folder / "circus.ini").write_text(
        f"[circus]\nendpoint=ipc://{folder}/endpoint\npubsub_endpoint=ipc://{folder}/pubsub\n"
        f"[watcher:bench]\ncmd={program}\nmax_retry=-1\nwarmup_delay=0\n"
    )
    with child([str(tool), str(folder / "circus.ini")], folder):
        yield


@contextlib.contextmanager
def pm2(program: Path, folder: Path) -> Iterator[None]:
    home = CACHE / "pm2"
    tool = home / "node_modules" / ".bin" / "pm2"
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Skipped("node and npm are not installed")
    if not tool.exists():
        home.mkdir(parents=True, exist_ok=True)
        install = [
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
            subprocess.run(install, check=True, capture_output=True, text=True, timeout=300)
        except (subprocess.SubprocessError, OSError) as error:
            raise Skipped(f"cannot install pm2: {error}") from error
    env = {**os.environ, "PM2_HOME": str(folder / "pm2")}
    start = [str(tool), "start", str(program), "--interpreter", "none", "--name", "bench"]
    subprocess.run(start, check=True, capture_output=True, env=env, timeout=60)
    try:
        yield
    finally:
        subprocess.run([str(tool), "kill"], capture_output=True, env=env, timeout=60, check=False)


def next_pid(pids: Path, known: int, timeout_s: float) -> int:
    """Return the pid in line `known`, as soon as it is there."""
    deadline = time.perf_counter() + timeout_s
    while time.perf_counter() < deadline:
        with contextlib.suppress(FileNotFoundError):
            lines = pids.read_text().splitlines()
            if len(lines) > known and lines[known]:
                return int(lines[known])
        time.sleep(0.0002)
    raise Skipped(f"no replacement within {timeout_s:.0f} s")


def measure(
    under: Callable[[Path, Path], contextlib.AbstractContextManager[None]], rounds: int
) -> list[float]:
    """Return the seconds from kill to replacement, sorted."""
    with tempfile.TemporaryDirectory(prefix="midwatch-bench-") as name:
        folder = Path(name)
        pids, program = folder / "pids", folder / "program"
        program.write_text(PROGRAM.format(pids=pids))
        program.chmod(0o755)
        took: list[float] = []
        with under(program, folder):
            pid = next_pid(pids, 0, START_S)
            for known in range(1, rounds + 1):
                time.sleep(0.2)
                began = time.perf_counter()
                os.kill(pid, signal.SIGKILL)
                pid = next_pid(pids, known, REPLACE_S)
                took.append(time.perf_counter() - began)
        return sorted(took)


def main() -> int:
    """Measure ours and the peers, print them side by side; 1 when ours misses its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    for under in (midwatch, supervisord, circus, pm2):
        row: dict[str, object] = {"who": under.__name__}
        try:
            took = measure(under, options.rounds if under is midwatch else min(options.rounds, 15))
            row |= {
                "median_ms": round(statistics.median(took) * 1000, 1),
                "max_ms": round(took[-1] * 1000, 1),
                "rounds": len(took),
            }
        except (Skipped, subprocess.SubprocessError) as error:
            row["skipped"] = str(error)
        rows.append(row)
        shown = (
            f"{row['median_ms']:>9} ms median {row['max_ms']:>9} ms max"
            if "median_ms" in row
            else f"skipped: {row['skipped']}"
        )
        print(f"restart: {under.__name__:12} {shown}", flush=True)
    ours = rows[0].get("median_ms")
    good = isinstance(ours, float) and ours <= TARGET_MS
    document = {
        "bench": "restart",
        "machine": f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}",
        "rows": [
            {
                "what": "death of an agent to its replacement's first action, median",
                "ours": ours,
                "peer": peer.get("median_ms"),
                "peer_name": peer["who"],
                "unit": "ms",
                "target": TARGET_MS,
                "ok": good,
                **({"skipped": peer["skipped"]} if "skipped" in peer else {}),
            }
            for peer in rows[1:]
        ],
    }
    print(json.dumps(document))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
