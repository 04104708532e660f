"""`slow-but-alive` (control): declared steps, open calls and busy children outlast many heartbeats."""

from __future__ import annotations

from midwatch.drills.drill import Drill

DRILL = Drill(
    name="slow-but-alive",
    about="one call takes 10 heartbeats, one step 10, one child works for 10, many calls make one cycle",
    program="slow_but_alive.py",
    limit_s=0.0,
    settings={"heartbeat": {"every": "600ms", "missed": 2}},
    control=True,
    watch_s=60.0,
)
