"""`oom-kill`: memory grows until SIGKILL; the incident says so, with the growth, and the agent is restarted."""

from __future__ import annotations

from midwatch.drills.drill import Drill

DRILL = Drill(
    name="oom-kill",
    about="killed at its memory limit, log cut mid-sentence",
    program="oom_kill.py",
    limit_s=1.0,
    settings={
        "limits": {"memory": "192MiB"},
        "restart": {"when": "failure", "attempts": 3, "backoff": "0s..1s"},
    },
    says=(r"memory", r"MiB", r"an hour"),
    actions=("restart",),
    state="running",
)
