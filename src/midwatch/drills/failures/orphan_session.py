"""`orphan-session`: grandchildren in sessions of their own outlive the agent; the whole family is stopped."""

from __future__ import annotations

from pathlib import Path

from midwatch.drills.drill import Drill
from midwatch.drills.instance import Instance


def _nobody_survived(instance: Instance) -> str | None:
    pids = [int(pid) for pid in (instance.read_note("left") or "").split()]
    if len(pids) != 4:
        return f"the program left {len(pids)} processes, expected 4"
    if not instance.wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 5):
        return f"{sum(Path(f'/proc/{pid}').exists() for pid in pids)} of 4 processes survived"
    told = next(i for i in instance.incidents() if i["kind"] == "orphan-session")
    named = {process["pid"] for process in told["evidence"]["processes"]}
    return None if set(pids) <= named else f"told of {sorted(named)}, left were {pids}"


DRILL = Drill(
    name="orphan-session",
    about="grandchildren in their own session outlive the agent",
    program="orphan_session.py",
    limit_s=5.0,
    settings={"restart": {"when": "failure", "attempts": 3, "backoff": "0s..1s"}},
    says=(r"left 4 processes behind", r"stopped"),
    actions=("kill",),
    state="running",
    also=frozenset({"crash"}),
    check=_nobody_survived,
)
