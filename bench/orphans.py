"""How many processes survive their agent: five ways to escape, under ours and under the peers.

Each program leaves one process behind in its own way. Counted twice: after the program itself has
ended and was replaced (or not), what is left of its first life; and after the supervisor was
stopped in good order, what is left at all.

    python bench/orphans.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _peers import PEERS, Skipped, midwatch, wait

ESCAPES = {
    "child": "sleep 1000 &",
    "own session": "setsid sleep 1000 &",
    "double fork": "(setsid sleep 1000 &) &",
    "empty environment": "(env -i PATH=$PATH setsid sleep 1000 &) &",
    "ignores SIGTERM": """setsid sh -c 'trap "" TERM HUP INT; while :; do sleep 1000; done' &""",
}
PROGRAM = """#!/bin/sh
if [ -e "{folder}/{number}.life" ]; then exec sleep 900; fi
exec 3>"{folder}/{number}.held"
{escape}
exec 3>&-
sleep 0.5
echo > "{folder}/{number}.life"
sleep 0.5
exit 1
"""
"""What escapes holds the file NUMBER.held open: so it is found whatever it has become."""


def escaped(folder: Path) -> list[int]:
    """Return the numbers of the programs of which something lives."""
    held = {f"{folder}/{number}.held": number for number in range(len(ESCAPES))}
    found: set[int] = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                for link in (process / "fd").iterdir():
                    found.add(held.get(os.readlink(link), -1))
            except OSError:
                continue
    return sorted(found - {-1})


def end_of(folder: Path) -> None:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                links = [os.readlink(link) for link in (process / "fd").iterdir()]
            except OSError:
                continue
            if any(link.startswith(f"{folder}/") and link.endswith(".held") for link in links):
                os.kill(int(process.name), 9)


def measure(under: Any) -> tuple[list[str], list[str]]:
    """Return what survived its program, and what survived its supervisor."""
    with tempfile.TemporaryDirectory(prefix="midwatch-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        programs: list[Path] = []
        for number, escape in enumerate(ESCAPES.values()):
            program = folder / f"program{number}"
            program.write_text(PROGRAM.format(folder=folder, number=number, escape=escape))
            program.chmod(0o755)
            programs.append(program)
        ways = list(ESCAPES)
        try:
            with under(programs, folder):
                lives = [folder / f"{number}.life" for number in range(len(ways))]
                wait(lambda: all(life.exists() for life in lives), 60, "the first lives")
                time.sleep(5)  # within the 5 s of the catalogue they are gone
                after_program = [ways[number] for number in escaped(folder)]
            time.sleep(1)
            after_supervisor = [ways[number] for number in escaped(folder)]
        finally:
            end_of(folder)
    return after_program, after_supervisor


def main() -> int:
    """Measure and print; 1 when anything survives ours."""
    found: dict[str, tuple[list[str], list[str]] | str] = {}
    for under in (midwatch, *PEERS):
        try:
            found[under.__name__] = measure(under)
        except (Skipped, subprocess.SubprocessError) as error:
            found[under.__name__] = str(error)
        print(f"orphans: {under.__name__}: {found[under.__name__]}", flush=True)
    ours = found.pop("midwatch")
    assert isinstance(ours, tuple), ours
    rows = [
        {
            "what": f"processes that survive their {whose}, of {len(ESCAPES)}",
            "ours": len(ours[index]),
            "peer": len(peer[index]) if isinstance(peer, tuple) else None,
            "peer_name": name,
            "unit": "",
            "target": 0,
            "ok": not ours[index],
        }
        for index, whose in enumerate(("program", "supervisor"))
        for name, peer in found.items()
    ]
    machine = f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}"
    print(json.dumps({"bench": "orphans", "machine": machine, "rows": rows}))
    return 0 if all(each["ok"] for each in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
