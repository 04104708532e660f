"""What many idle agents cost: 500 under ours, 200 beside the peers.

Start of all, stop of all, CPU over half a minute, and memory of the supervisor with what it runs
beside each agent (runit has a `runsv` per agent), shared pages counted once.

    python bench/crowd.py [--agents N] [--beside N] [--seconds S]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _peers import PEERS, Skipped, cpu_s, midwatch, pss_bytes, tree, wait
from _table import row

PROGRAM = "#!/bin/sh\nexec sleep 98765\n"
START_TARGET_S, STOP_TARGET_S, CPU_TARGET, MEMORY_TARGET_MB = 15.0, 5.0, 5.0, 150.0
SETTLE_S = 12.0
"""Longer than the first regular sample takes to come."""


def sleepers(pids: list[int]) -> list[int]:
    found: list[int] = []
    for pid in pids:
        try:
            if b"98765" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def measure(under: Any, count: int, seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="midwatch-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        program = folder / "program"
        program.write_text(PROGRAM)
        program.chmod(0o755)
        began = time.perf_counter()
        with under([program] * count, folder) as pid:
            wait(lambda: len(sleepers(tree(pid))) == count, 120, "start of all")
            started_s = time.perf_counter() - began
            time.sleep(SETTLE_S)
            agents = set(sleepers(tree(pid)))
            own = [pid, *(p for p in tree(pid) if p not in agents)]
            before, at = cpu_s(own), time.perf_counter()
            time.sleep(seconds)
            share = (cpu_s(own) - before) / (time.perf_counter() - at) * 100
            memory_mb = pss_bytes(own) / 1e6
            ending = time.perf_counter()
        stopped_s = time.perf_counter() - ending
        left = [p for p in agents if Path(f"/proc/{p}").exists()]
        for p in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(p, 9)
    return {
        "started_s": round(started_s, 2),
        "stopped_s": round(stopped_s, 2),
        "cpu": round(share, 2),
        "memory_mb": round(memory_mb, 1),
        "left": len(left),
    }


def main() -> int:
    """Measure and print; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=500)
    parser.add_argument("--beside", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    many = measure(midwatch, options.agents, options.seconds)
    print(f"crowd: midwatch, {options.agents}: {many}", flush=True)
    found: dict[str, dict[str, float] | str] = {}
    for under in (midwatch, *PEERS):
        try:
            found[under.__name__] = measure(under, options.beside, options.seconds)
        except (Skipped, subprocess.SubprocessError) as error:
            found[under.__name__] = str(error)
        print(f"crowd: {under.__name__}, {options.beside}: {found[under.__name__]}", flush=True)
    every = f"{options.agents} idle agents"
    rows = [
        row(f"start of {every}", many["started_s"], "s", START_TARGET_S),
        row(f"stop of {every}", many["stopped_s"], "s", STOP_TARGET_S),
        row(f"CPU with {every}", many["cpu"], "% of a core", CPU_TARGET),
        row(f"memory with {every}", many["memory_mb"], "MB", MEMORY_TARGET_MB),
    ]
    ours = found.pop("midwatch")
    assert isinstance(ours, dict), ours
    for what, key, unit in (
        (f"CPU with {options.beside} idle agents", "cpu", "% of a core"),
        (f"memory with {options.beside} idle agents", "memory_mb", "MB"),
        (f"start of {options.beside} agents", "started_s", "s"),
        (f"stop of {options.beside} agents", "stopped_s", "s"),
    ):
        for name, peer in found.items():
            theirs = peer[key] if isinstance(peer, dict) else None
            rows.append(row(what, ours[key], unit, None, theirs, name))
    machine = f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}"
    print(json.dumps({"bench": "crowd", "machine": machine, "rows": rows}))
    return 0 if all(each["ok"] for each in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
