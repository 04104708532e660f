"""`hung-loop`: the work loop blocks on a socket for ever while a side thread still answers.

Evidence begins when the first beat is overdue, one interval after the last one; two intervals are allowed
from there, and the default of two missed beats needs one.
"""

from __future__ import annotations

from midwatch.drills.drill import Drill
from midwatch.drills.programs.hung_loop import INTERVAL_S

DRILL = Drill(
    name="hung-loop",
    about="work loop blocked on a socket for ever; a side thread still answers and the port is open",
    program="hung_loop.py",
    limit_s=2 * INTERVAL_S,
    settings={
        "heartbeat": {"every": f"{INTERVAL_S}s", "missed": 2},
        "limits": {"stop_grace": "1s"},
        "restart": {"when": "failure", "attempts": 3, "backoff": "0s..1s"},
    },
    says=(r"beat|worked|progress|hung|silent",),
    actions=("restart",),
    state="running",
)
