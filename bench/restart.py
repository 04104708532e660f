"""How long an agent is gone: from its death to its replacement's first action, beside its peers.

The same shell program under each supervisor appends its pid to a file and sleeps. The bench kills
it with SIGKILL and waits for the next pid.

    python bench/restart.py [--rounds N]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _peers import PEERS, Skipped, midwatch

PROGRAM = '#!/bin/sh\necho $$ >> "{pids}"\nexec sleep 1000\n'
START_S = 60.0
REPLACE_S = 30.0
TARGET_MS = 20.0


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


def measure(under: Any, rounds: int) -> list[float]:
    """Return the seconds from kill to replacement, sorted."""
    with tempfile.TemporaryDirectory(prefix="midwatch-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        pids, program = folder / "pids", folder / "program"
        program.write_text(PROGRAM.format(pids=pids))
        program.chmod(0o755)
        took: list[float] = []
        with under([program], folder):
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
    for under in (midwatch, *PEERS):
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
