"""`overlapping-run`: a start falls due while the last run still works; it is left out and noted.

Evidence is the due time itself, which the program computes as the schedule does.
"""

from __future__ import annotations

from datetime import datetime

from midwatch.drills.drill import AGENT, Drill
from midwatch.drills.instance import Instance
from midwatch.drills.programs.overlapping_run import EVERY_S


def _never_two_at_once(instance: Instance) -> str | None:
    ended = float(instance.wait(lambda: instance.read_note("ended"), 10) or 0)
    if not ended:
        return "the first run did not end"
    if not instance.wait(lambda: len(_starts(instance)) >= 2, 10):
        return "no run followed the one that took too long"
    second = sorted(_starts(instance))[1]
    return (
        None
        if second >= ended
        else f"the second run began {ended - second:.2f} s before the first had ended"
    )


def _starts(instance: Instance) -> list[float]:
    runs = instance.get(f"/api/runs?agent={AGENT}&limit=50")["items"]
    return [datetime.fromisoformat(run["started_at"]).timestamp() for run in runs]


DRILL = Drill(
    name="overlapping-run",
    about="the schedule is due while the last run still works; the start is left out and noted",
    program="overlapping_run.py",
    limit_s=1.0,
    settings={"schedule": {"every": f"{EVERY_S}s", "overlap": "skip", "missed": "skip"}},
    says=(r"was due while the last one still works", r"left out"),
    check=_never_two_at_once,
)
