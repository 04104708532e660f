"""One agent prints a gigabyte at full speed: what that costs the supervisor, its neighbours, the disk.

An instance without a hub runs two agents: a neighbour that is killed again and again, whose time to
its replacement's first action is measured before and during the flood, and one that floods. The
same gigabyte is written into `cat > /dev/null` for comparison: an agent that nobody holds up.

    python bench/flood.py [--gigabytes N] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _peers import child, cpu_s
from _table import row

WAIT_S = 120.0
MEMORY_MIB = 20.0
LATENCY_MS = 30.0
DISK_MIB = 64.0

INSTANCE = """
import sys
from pathlib import Path
from midwatch.core.fleet import Fleet
from midwatch.supervisor.main import run
folder = Path(sys.argv[1])
restart = {"when": "always", "attempts": 1000000, "backoff": "0s"}
fleet = Fleet.model_validate({"agents": {
    "neighbour": {"command": [str(folder / "neighbour")], "restart": restart},
    "flooder": {"command": [sys.executable, str(folder / "flood.py")], "restart": restart},
}})
sys.exit(run(fleet.resolved(), folder / "data", hub=False))
"""

NEIGHBOUR = '#!/bin/sh\necho $$ >> "{pids}"\nexec sleep 1000\n'

FLOOD = """
import os, sys, time
go, done, total = {go!r}, {done!r}, {total}
while go is not None and not os.path.exists(go):
    time.sleep(0.01)
chunk = b"x" * 65536
began = time.monotonic()
for _ in range(total // len(chunk)):
    os.write(1, chunk)
with open(done + ".new", "w") as note:
    note.write(str(time.monotonic() - began))
os.rename(done + ".new", done)
if go is not None:
    time.sleep(1000)
"""


def until(path: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise SystemExit(f"flood: {path.name} did not come")
        time.sleep(0.005)


def pid_in_line(pids: Path, known: int) -> int:
    deadline = time.perf_counter() + WAIT_S
    while time.perf_counter() < deadline:
        lines = pids.read_text().splitlines() if pids.exists() else []
        if len(lines) > known and lines[known]:
            return int(lines[known])
        time.sleep(0.0002)
    raise SystemExit("flood: the neighbour did not come back")


def restarts(pids: Path, rounds: int, stop: Path | None) -> list[float]:
    """Kill the neighbour `rounds` times, or until `stop` exists; return the seconds of each gap."""
    took: list[float] = []
    while len(took) < rounds and not (stop is not None and stop.exists() and took):
        known = len(pids.read_text().splitlines())
        pid = int(pids.read_text().splitlines()[-1])
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        pid_in_line(pids, known)
        took.append(time.perf_counter() - began)
        time.sleep(0.02)
    return took


def memory(pid: int, field: str) -> float:
    """Return VmRSS or VmHWM in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"flood: no {field}")


def unwatched(folder: Path, total: int) -> float:
    """Return the seconds that the flood takes into a pipe that is emptied at full speed."""
    done = folder / "unwatched"
    program = folder / "unwatched.py"
    program.write_text(FLOOD.format(go=None, done=str(done), total=total))
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as cat:
        subprocess.run([sys.executable, str(program)], stdout=cat.stdin, check=True)
    return float(done.read_text())


def measure(folder: Path, total: int, rounds: int) -> dict[str, float]:
    go, done, pids = folder / "go", folder / "done", folder / "pids"
    (folder / "flood.py").write_text(FLOOD.format(go=str(go), done=str(done), total=total))
    (folder / "neighbour").write_text(NEIGHBOUR.format(pids=pids))
    (folder / "neighbour").chmod(0o755)
    found = {"alone_s": unwatched(folder, total)}
    with child([sys.executable, "-c", INSTANCE, str(folder)], folder) as pid:
        pid_in_line(pids, 0)
        time.sleep(2)
        found["calm_ms"] = statistics.median(restarts(pids, rounds, None)) * 1000
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
        before, spent = memory(pid, "VmRSS"), cpu_s([pid])
        go.touch()
        took = restarts(pids, 10_000, done)
        until(done)
        found |= {
            "rounds": float(len(took)),
            "flooded_ms": statistics.median(took) * 1000,
            "flooded_max_ms": max(took) * 1000,
            "memory_mib": memory(pid, "VmHWM") - before,
            "cpu_s": cpu_s([pid]) - spent,
            "flooded_s": float(done.read_text()),
        }
        time.sleep(1)
        logs = folder / "data" / "logs" / "flooder"
        found["disk_mib"] = sum(f.stat().st_size for f in logs.iterdir()) / 1024**2
    return found


def rows(found: dict[str, float]) -> list[dict[str, object]]:
    shown = {name: round(value, 1) for name, value in found.items()}
    return [
        row("flood: growth of the supervisor's memory at its peak", shown["memory_mib"], "MiB", MEMORY_MIB),
        row("flood: a neighbour's restart meanwhile, median", shown["flooded_ms"], "ms", LATENCY_MS,
            shown["calm_ms"], "without a flood"),
        row("flood: a neighbour's restart meanwhile, longest", shown["flooded_max_ms"], "ms"),
        row("flood: disk", shown["disk_mib"], "MiB", DISK_MIB),
        row("flood: the agent's time to print it all", shown["flooded_s"], "s", None,
            round(found["alone_s"], 2), "into cat"),
        row("flood: processor time of the supervisor", shown["cpu_s"], "s"),
    ]  # fmt: skip


def main() -> int:
    """Measure, print, and return 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="midwatch-bench-", ignore_cleanup_errors=True) as name:
        found = measure(Path(name), int(options.gigabytes * 2**30), options.rounds)
    document = {"bench": "flood", "rows": rows(found)}
    for each in document["rows"]:
        print(f"{each['what']:60} {each['ours']:>8} {each['unit']}")
    print(json.dumps(document))
    return 0 if all(each["ok"] for each in document["rows"]) else 1


if __name__ == "__main__":
    sys.exit(main())
