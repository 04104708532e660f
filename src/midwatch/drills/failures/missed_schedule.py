"""`missed-schedule`: Midwatch is down while scheduled runs are due; at its next start it tells, and makes up for them.

Down, it cannot notice anything: the catalogue's 60 seconds count from its next start, and are 5 here.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from midwatch.drills.drill import AGENT, Drill, Evidence
from midwatch.drills.instance import Instance
from midwatch.drills.programs.missed_schedule import EVERY_S, WINDOW_S


def _sleep_through_two(instance: Instance) -> Evidence:
    instance.wait(lambda: instance.read_note("lives"), 20)
    instance.stop()
    time.sleep(2 * EVERY_S + WINDOW_S)
    # well between two due times: a run that is due just then would be the one that makes up
    time.sleep(EVERY_S - (time.time() - 0.5) % EVERY_S)
    instance.start()
    return Evidence(time.time())


def _made_up_for_once(instance: Instance) -> str | None:
    """One run makes up for all of them, and no due time is started twice."""
    runs = instance.wait(lambda: _runs(instance), 10)
    if not isinstance(runs, list) or not runs:
        return "no run makes up for what was missed"
    dues = [run["due_at"] for run in runs]
    if len(dues) != len(set(dues)):
        return f"a due time was started twice: {sorted(dues)}"
    made_up = sum(run["made_up"] for run in runs)
    return None if made_up <= 1 else f"{made_up} runs make up for what was missed, expected 1"


def _runs(instance: Instance) -> list[dict[str, Any]]:
    """Return the runs that were for a start of the schedule, once one of them makes up for the missed ones.

    A start that takes so long that the next run falls due at its end makes up by that run, in its time.
    """
    found = instance.get(f"/api/runs?agent={AGENT}&limit=200")["items"]
    runs = [run for run in found if run.get("due_at") is not None]
    incidents = instance.get(f"/api/incidents?agent={AGENT}&limit=50")["items"]
    missed = next((i for i in incidents if i["kind"] == "missed-schedule"), None)
    if missed is None:
        return []
    following = missed["evidence"]["last_due_at"] + EVERY_S
    made_up = [r for r in runs if r["made_up"] or abs(_unix(r["due_at"]) - following) < 0.001]
    return runs if made_up else []


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


DRILL = Drill(
    name="missed-schedule",
    about="scheduled runs fall due while Midwatch is down; they are told and made up for",
    program="missed_schedule.py",
    limit_s=5.0,
    settings={
        "schedule": {"every": f"{EVERY_S}s", "window": f"{WINDOW_S}s", "missed": "once"},
    },
    # what makes up for the missed ones may begin just before the next one is due
    also=frozenset({"overlapping-run"}),
    says=(r"runs? ", r"did not happen", r"not running from", r"made up for at"),
    stage=_sleep_through_two,
    check=_made_up_for_once,
)
