"""`resource-hog`: 10,000 files, endless allocation, 200 children, a 5 GB file and a fork bomb, one after another.

Each is an agent of its own that passes one limit. Evidence begins when it starts to take; the slowest of the
five counts. The subject is their neighbour: it must not be restarted, and hardly be late with its beats.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from midwatch.drills.drill import AGENT, Drill, Evidence
from midwatch.drills.instance import Instance

SAYS = {
    "files": "open files",
    "memory": "memory",
    "children": "processes",
    "disk": "limits.disk",
    "bomb": "processes",
}
"""What each hog's incident names."""

KINDS = ("resource-hog", "oom-kill")
LATE_S = 2.0
"""A beat of the neighbour that is later than this was disturbed. It shares two busy cores."""

_found: dict[Path, list[str]] = {}


def _one_after_another(instance: Instance) -> Evidence:
    instance.wait(lambda: _running(instance), 20)
    slowest, at = 0.0, time.time()
    problems = _found.setdefault(instance.directory, [])
    for name, words in SAYS.items():
        (instance.work / f"go-{name}").touch()
        began = instance.wait(lambda n=name: instance.read_note(f"done-{n}"), 20)
        told = instance.wait(lambda n=name: _told(instance, n), 20)
        if not isinstance(began, str) or not isinstance(told, str):
            problems.append(f"nobody told of {name}")
            continue
        slowest = max(slowest, time.time() - float(began))
        if words not in told:
            problems.append(f"{told!r} does not name {words!r}")
        if not instance.wait(lambda n=name: _back(instance, n), 30):
            problems.append(f"{name} was not contained: {_processes(instance, name)} processes")
    return Evidence(at, at + slowest)


def _running(instance: Instance) -> bool:
    agents = [instance.agent(name) for name in (AGENT, *SAYS)]
    return all(agent and agent["state"] == "running" for agent in agents)


def _told(instance: Instance, name: str) -> str | None:
    found = [i for i in instance.incidents() if i["agent"] == name and i["kind"] in KINDS]
    return found[0]["sentence"] if found else None


def _back(instance: Instance, name: str) -> bool:
    """Its second life runs, and nothing else of it."""
    agent = instance.agent(name)
    restarted = agent is not None and agent["state"] == "running" and agent["today"]["restarts"] > 0
    return restarted and _processes(instance, name) == 1


def _processes(instance: Instance, name: str) -> int:
    marks = (f"DRILL_DIR={instance.work}".encode(), f"MIDWATCH_AGENT={name}".encode())
    count = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
        try:
            entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        count += all(mark in entries for mark in marks)
    return count


def _neighbour_undisturbed(instance: Instance) -> str | None:
    problems = _found.pop(instance.directory, [])
    late = float(instance.read_note("neighbour-late") or "0")
    lives = len((instance.read_note("neighbour-lives") or "").split())
    if lives != 1:
        problems.append(f"the neighbour was started {lives} times")
    if late > LATE_S:
        problems.append(f"a beat of the neighbour was {late:.1f} s late")
    return "; ".join(problems) or None


_AGAIN = {"when": "failure", "attempts": 3, "backoff": "0s..200ms"}

DRILL = Drill(
    name="resource-hog",
    about="10,000 files, endless allocation, 200 children, a 5 GB file, a fork bomb",
    program="resource_hog.py",
    limit_s=5.0,
    settings={"heartbeat": {"every": "2s", "missed": 2}},
    others={
        "files": {"limits": {"open_files": 1024, "stop_grace": "1s"}, "restart": _AGAIN},
        "memory": {"limits": {"memory": "256MiB"}, "restart": _AGAIN},
        "children": {"limits": {"processes": 64}, "restart": _AGAIN},
        "disk": {"limits": {"disk": "64MiB"}, "restart": _AGAIN},
        "bomb": {"limits": {"processes": 64}, "restart": _AGAIN},
    },
    says=(r"limit|open files|processes",),
    state="running",
    also=frozenset({"oom-kill"}),
    stage=_one_after_another,
    check=_neighbour_undisturbed,
)
