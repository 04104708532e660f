"""wall-clock-over: a run was stopped because it ran past its time."""

from __future__ import annotations

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.exits import End
from midwatch.core.findings import ended, found
from midwatch.core.recovery import WAKES, recovery


@detector("wall-clock-over", on=WAKES)
def wall_clock_over(facts: Facts) -> Verdict:
    """Find an end by `limits.wall`."""
    if ended(facts, {End.WALL_CLOCK}):
        limit = facts.config.limits.wall
        reason = "limits.wall" + (f" is {limit:g} s" if limit else "")
        return found("wall-clock-over", facts, f"{reason}; the run was stopped")
    return recovery(facts, "wall-clock-over")
