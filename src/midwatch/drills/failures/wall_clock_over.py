"""`wall-clock-over`: a job runs past its time; it is asked to stop, keeps its part, and is not killed."""

from __future__ import annotations

from midwatch.drills.drill import Drill
from midwatch.drills.instance import Instance
from midwatch.drills.programs.wall_clock_over import WALL_S


def _kept_its_part(instance: Instance) -> str | None:
    partial = instance.wait(lambda: instance.read_note("partial"), 10)
    if not isinstance(partial, str):
        return "what it had done until then was lost"
    lives = len((instance.read_note("lives") or "").split())
    return None if lives == 1 else f"it was started {lives} times, expected once"


DRILL = Drill(
    name="wall-clock-over",
    about="a bounded job runs past its time",
    program="wall_clock_over.py",
    limit_s=1.0,
    settings={
        "limits": {"wall": f"{WALL_S:g}s", "stop_grace": "5s"},
        "restart": {"when": "never"},
    },
    says=(r"time limit \(\d seconds\)",),
    actions=("stop",),
    state="stopped",
    check=_kept_its_part,
)
