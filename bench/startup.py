"""From `midwatch up` to a green /readyz, what supervisor and hub weigh when idle, and what the install weighs."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from _table import row
from midwatch.drills.instance import Instance

STARTS = 5
SETTLE_S = 5.0
MIB = 1024 * 1024


def start_once(directory: Path) -> tuple[float, float]:
    """Return seconds to a green /readyz and MiB of supervisor and hub together, five seconds later."""
    instance = Instance(directory, {"sleeper": {"command": ["sleep", "600"]}})
    began = time.monotonic()
    with instance:
        seconds = time.monotonic() - began
        assert urllib.request.urlopen(instance.url + "/readyz", timeout=5).status == 200
        time.sleep(SETTLE_S)
        weight = resident(instance.pid) + resident(instance.children()["hub"])
    return seconds, weight


def resident(pid: int) -> float:
    """Return resident memory in MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no Rss for process {pid}")


def installed_size() -> float | None:
    """Return MiB of a fresh virtual environment with `midwatch[server]`; None where uv is missing."""
    uv = shutil.which("uv") or next(iter(map(str, Path(".uv").glob("**/bin/uv"))), None)
    if uv is None:
        return None
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory, "venv")
        environment = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"}
        for command in (
            [uv, "venv", "-q", str(target)],
            [
                uv,
                "pip",
                "install",
                "-q",
                "--python",
                str(target),
                "--link-mode",
                "copy",
                ".[server]",
            ],
        ):
            subprocess.run(command, check=True, env=environment)
        return (
            sum(p.stat().st_size for p in target.rglob("*") if p.is_file() and not p.is_symlink())
            / MIB
        )


def main() -> None:
    figures: list[tuple[float, float]] = []
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory() as directory:
            figures.append(start_once(Path(directory)))
    rows = [
        row(
            "midwatch up -> /readyz green, median",
            round(statistics.median(f[0] for f in figures), 3),
            "s",
            3.0,
        ),
        row(
            "supervisor + hub idle, RSS",
            round(statistics.median(f[1] for f in figures), 3),
            "MiB",
            250.0,
        ),
    ]
    size = installed_size()
    if size is not None:
        rows.append(row("installed .venv with midwatch[server]", round(size, 3), "MiB", 350.0))
    print(json.dumps({"bench": "startup", "rows": rows}))


if __name__ == "__main__":
    sys.exit(main())
