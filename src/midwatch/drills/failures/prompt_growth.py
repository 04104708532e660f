"""`prompt-growth`: the system prompt grows until each call sends three times as much; the incident names that part."""

from __future__ import annotations

from midwatch.drills.drill import Drill

DRILL = Drill(
    name="prompt-growth",
    about="the system prompt grows to five times as much",
    program="prompt_growth.py",
    limit_s=4.0,  # 60 s with sums of ten seconds; here they are of half a second, and three have to show it
    fleet={"gateway": {"tell_every": "500ms"}},
    provided=True,
    says=(r"tokens with each call, usual", r"its system prompt grew from"),
)
