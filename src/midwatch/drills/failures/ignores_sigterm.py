"""`ignores-sigterm`: a person stops an agent that ignores it; evidence begins when the grace has gone by."""

from __future__ import annotations

import time
from pathlib import Path

from midwatch.drills.drill import AGENT, Drill, Evidence
from midwatch.drills.instance import Instance

GRACE_S = 1.0


def _ask_it_to_stop(instance: Instance) -> Evidence:
    instance.wait(lambda: instance.read_note("pids"), 20)
    at = time.time()
    instance.post(f"/api/agents/{AGENT}/stop")
    return Evidence(at + GRACE_S)


def _all_are_gone(instance: Instance) -> str | None:
    pids = (instance.read_note("pids") or "").split()
    if not instance.wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 5):
        return "a part of its tree survived"
    return None if len(pids) == 3 else f"the program made {len(pids)} processes, expected 3"


DRILL = Drill(
    name="ignores-sigterm",
    about="does not stop when asked",
    program="ignores_sigterm.py",
    limit_s=1.0,
    settings={"limits": {"stop_grace": f"{GRACE_S:g}s"}},
    says=(r"did not stop within 1 second", r"killed, with 2 processes below it"),
    actions=("kill",),
    state="stopped",
    stage=_ask_it_to_stop,
    check=_all_are_gone,
)
