"""What 200 agents cost their supervisor: CPU, memory, and how late it notices an exit.

Half of the agents beat once a second over the notify socket, all sleep otherwise. Exits are made by
SIGKILL from here; the supervisor reports them with the time at which it knew.

    python bench/supervisor_load.py [--agents N] [--seconds S]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _table import row

CPU_TARGET = 3.0
RSS_TARGET_MB = 100.0
NOTICE_TARGET_MS = 100.0

BEATER = r"""
use Socket; use IO::Socket::UNIX;
socket(my $s, PF_UNIX, SOCK_DGRAM, 0); connect($s, sockaddr_un($ENV{NOTIFY_SOCKET}));
while (1) { send($s, "WATCHDOG=1", 0); sleep 1 }
"""

OURS = """
import sys, time
from pathlib import Path
from midwatch.core.fleet import Fleet
from midwatch.supervisor.main import run
count, data, beater, beating = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4] == "1"
beats = {"command": ["perl", "-e", beater], "heartbeat": {"every": 60.0}}
rules = {"restart": {"when": "always", "attempts": 1000000, "backoff": "1s..1s"}, "limits": {"memory": "1GiB"}}
agents = {f"a{n:03d}": {**({"command": ["sleep", "1000"]} if n % 2 or not beating else beats), **rules} for n in range(count)}
def say(text):
    print(f"{time.monotonic():.6f} {text}", flush=True)
sys.exit(run(Fleet.model_validate({"agents": agents}).resolved(), data, hub=False, say=say))
"""


def lines(console: Path) -> list[str]:
    return console.read_text().splitlines()


def wait(console: Path, words: str, count: int, timeout_s: float) -> None:
    """Wait until `count` lines hold `words`."""
    deadline = time.monotonic() + timeout_s
    while sum(words in line for line in lines(console)) < count:
        if time.monotonic() > deadline:
            sys.exit(
                f"only {sum(words in x for x in lines(console))} lines with {words!r}:\n"
                + "\n".join(lines(console)[-5:])
            )
        time.sleep(0.05)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(agents: int, seconds: float) -> dict[str, float]:
    """Return the measurements of one fleet."""
    with tempfile.TemporaryDirectory(prefix="midwatch-bench-", ignore_cleanup_errors=True) as name:
        console = Path(name) / "console"
        perl = subprocess.run(
            ["perl", "-MIO::Socket::UNIX", "-e", "1"], capture_output=True, check=False
        )
        command = [
            sys.executable,
            "-c",
            OURS,
            str(agents),
            f"{name}/data",
            BEATER,
            "1" if perl.returncode == 0 else "0",
        ]
        with console.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            began = time.monotonic()
            wait(console, ": started, pid", agents, 120)
            up = time.monotonic() - began
            time.sleep(3)
            before, at = cpu_s(process.pid), time.monotonic()
            time.sleep(seconds)
            share = (cpu_s(process.pid) - before) / (time.monotonic() - at) * 100
            rss = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf(
                "SC_PAGE_SIZE"
            )
            delays = notice(console)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    return {
        "agents": agents,
        "all_started_s": round(up, 2),
        "cpu_percent": round(share, 2),
        "rss_mb": round(rss / 1e6, 1),
        "notice_median_ms": round(statistics.median(delays) * 1000, 2),
        "notice_max_ms": round(max(delays) * 1000, 2),
    }


def notice(console: Path) -> list[float]:
    """Kill 30 agents; return how long after each the supervisor knew."""
    pids = {
        line.split()[1].rstrip(":"): int(line.split("pid ")[1].split()[0])
        for line in lines(console)
        if "started, pid" in line
    }
    delays: list[float] = []
    for agent in random.Random(7).sample(sorted(pids), 30):
        began = time.monotonic()
        os.kill(pids[agent], signal.SIGKILL)
        wait(console, f" {agent}: ended by SIGKILL", 1, 10)
        knew = next(
            float(x.split()[0]) for x in lines(console) if f" {agent}: ended by SIGKILL" in x
        )
        delays.append(knew - began)
    return delays


def main() -> int:
    """Measure and print; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    found = measure(options.agents, options.seconds)
    for name, value in found.items():
        print(f"supervisor_load: {name:18} {value}")
    fleet = f"{options.agents} agents"
    rows = [
        row(f"CPU of the supervisor, {fleet}", found["cpu_percent"], "% of a core", CPU_TARGET),
        row(f"memory of the supervisor, {fleet}", found["rss_mb"], "MB", RSS_TARGET_MB),
        row(
            f"exit to its notice, {fleet}, slowest of 30",
            found["notice_max_ms"],
            "ms",
            NOTICE_TARGET_MS,
        ),
    ]
    machine = f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}"
    print(json.dumps({"bench": "supervisor_load", "machine": machine, "rows": rows}))
    return 0 if all(each["ok"] for each in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
