"""`idle-burn`: an agent that gets nothing done asks a model all the time; it is told, with what it costs an hour."""

from __future__ import annotations

from midwatch.drills.drill import Drill

DRILL = Drill(
    name="idle-burn",
    about="money is spent, and nothing gets done",
    program="idle_burn.py",
    limit_s=3.0,  # 60 s with sums of ten seconds; here they are of half a second
    settings={"loop": {"idle": "2s", "floor_cost": "$0.0005"}},
    fleet={"gateway": {"tell_every": "500ms"}},
    provided=True,
    orders=({"mode": "shape", "words": 200},),
    says=(r"nothing got done for", r"\$[0-9.]+ an hour"),
)
