"""`silent-exit`: the process ends with code 0 and no word; it is started again, and a person is told."""

from __future__ import annotations

from midwatch.drills.drill import Drill

DRILL = Drill(
    name="silent-exit",
    about="process ends with code 0 and no log line",
    program="silent_exit.py",
    limit_s=1.0,
    settings={"restart": {"when": "failure", "attempts": 3, "backoff": "0s..1s"}},
    says=(r"exit", r"code 0"),
    actions=("restart",),
    state="running",
)
