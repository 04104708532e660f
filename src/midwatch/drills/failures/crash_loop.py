"""`crash-loop`: it dies at once on each start; attempts are spaced, then it is parked, never for ever."""

from __future__ import annotations

from midwatch.drills.drill import AGENT, Drill
from midwatch.drills.instance import Instance

ATTEMPTS = 3


def _starts_are_bounded(instance: Instance) -> str | None:
    starts = (instance.read_note("starts") or "").split()
    if len(starts) > ATTEMPTS + 1:
        return f"started {len(starts)} times with {ATTEMPTS} attempts allowed"
    agent = instance.agent(AGENT)
    return None if agent and agent["pid"] is None else "a process still runs after parking"


DRILL = Drill(
    name="crash-loop",
    about="bad configuration, dies at once on each start",
    program="crash_loop.py",
    limit_s=1.0,
    settings={"restart": {"when": "failure", "attempts": ATTEMPTS, "backoff": "50ms..400ms"}},
    says=(r"\d failed starts", r"mailbox"),
    actions=("park",),
    state="parked",
    also=frozenset({"crash"}),
    check=_starts_are_bounded,
)
