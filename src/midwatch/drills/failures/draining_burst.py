"""`draining-burst` (control): it announces its end, then a burst of calls cleans up."""

from __future__ import annotations

from midwatch.drills.drill import Drill

DRILL = Drill(
    name="draining-burst",
    about="announces shutdown, then a burst of calls to clean up",
    program="draining_burst.py",
    limit_s=0.0,
    control=True,
    watch_s=30.0,
    state="stopped",
)
