"""`hub-killed`: kill -9 of the hub under load: it is started anew, and every acknowledged span is there."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from midwatch.drills.drill import AGENT, Drill, Evidence
from midwatch.drills.instance import Instance

SPANS = 100
"""Of each request."""

KILLS = 2


def _kill_the_hub(instance: Instance) -> Evidence:
    instance.wait(lambda: instance.read_note("working"), 40)
    slowest = Evidence(time.time(), None)
    for _ in range(KILLS):
        pid = instance.children()["hub"]
        os.kill(pid, signal.SIGKILL)
        new = instance.wait(lambda old=pid: _another(instance, old), 30)
        began = time.time()
        ready = instance.wait(lambda: _ready(instance), 60)
        noticed = time.time() if ready else None
        found = Evidence(began + _kept_waiting_s(new), noticed)
        if found.noticed_at is None:
            return found
        if (
            slowest.noticed_at is None
            or found.noticed_at - found.at > slowest.noticed_at - slowest.at
        ):
            slowest = found
        time.sleep(0.5)  # some more load between two deaths
    (instance.work / "enough").touch()
    return slowest


def _another(instance: Instance, old: int) -> int | None:
    try:
        new = instance.children().get("hub", old)
    except OSError:
        return None  # it went while its name was read
    return new if new != old else None


def _kept_waiting_s(pid: int | None) -> float:
    """Return how long a process was ready to run and had no processor, since others had them: not its own time."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def _ready(instance: Instance) -> bool:
    try:
        instance.get("/readyz")
    except OSError:
        return False
    return True


def _nothing_acknowledged_is_lost(instance: Instance) -> str | None:
    journal = set(instance.told("journal", 60.0))
    there = _spans(instance)
    missing = [trace for trace in journal if there.get(trace) != SPANS]
    if missing:
        return f"{len(missing)} of {len(journal)} acknowledged requests are not there whole, {missing[0]} with {there.get(missing[0], 0)} spans"
    agent = instance.agent(AGENT)
    return (
        None
        if agent and not agent["today"]["restarts"]
        else "the agent was restarted because of the hub"
    )


def _spans(instance: Instance) -> dict[str, int]:
    """Return how many spans there are of each trace."""
    found: dict[str, int] = {}
    after = ""
    while True:
        page: dict[str, Any] = instance.get(f"/api/traces?limit=500{after}")
        found |= {one["trace_id"]: one["spans"] for one in page["items"]}
        if not page["next"]:
            return found
        after = f"&after={page['next']}"


DRILL = Drill(
    name="hub-killed",
    about="kill -9 of the hub under load",
    program="hub_killed.py",
    limit_s=3.0,  # 1.4 on a quiet machine; starting the hub is all of it, and two cores share one chip
    kind="",
    also=frozenset({"hub-down"}),
    stage=_kill_the_hub,
    check=_nothing_acknowledged_is_lost,
)
