"""`honest-polling` (control): the same tool call whose result changes, and the same request that says that it polls."""

from __future__ import annotations

from midwatch.drills.drill import Drill
from midwatch.drills.instance import Instance


def _all_answered(instance: Instance) -> str | None:
    asked = len(instance.provided.asked())
    return None if asked == 30 else f"{asked} of 30 calls reached the provider"


DRILL = Drill(
    name="honest-polling",
    about="the same call with a changing result, and a declared poll",
    program="honest_polling.py",
    limit_s=0.0,
    control=True,
    watch_s=30.0,
    provided=True,
    settings={"calls": {"polling": True}},
    check=_all_answered,
)
