"""wall-clock-over: a run goes past its time: it is asked to finish, and stopped when it does not."""

from __future__ import annotations

from typing import Final

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.exits import End
from midwatch.core.family import parent_of
from midwatch.core.findings import ended, found, told
from midwatch.core.incident import Finding
from midwatch.core.plain import whole_of
from midwatch.core.recovery import WAKES, recovery
from midwatch.core.units import show_duration

KIND: Final = "wall-clock-over"


@detector(KIND, on=(*WAKES, "run.over_limit"))
def wall_clock_over(facts: Facts) -> Verdict:
    """Find a run at `limits.wall`, then the end that follows."""
    limit = facts.config.limits.wall
    rule = "limits.wall" + (f" is {limit:g} s" if limit else "")
    if facts.data.get("limit") == "wall" and facts.item.get("kind") == "run.over_limit":
        bound = whole_of(facts.data, "bound") or limit
        grace = facts.config.limits.stop_grace
        return Finding(
            kind=KIND,
            agent=facts.agent,
            severity="warning",
            sentence=told(
                facts,
                "reached its time limit" + (f" ({show_duration(bound)})" if bound else ""),
                f"asked to finish within {show_duration(grace)}",
            ),
            reason=rule,
            evidence_at=facts.item["at"],
            evidence={"run_id": facts.run_id, "bound_s": bound},
        )
    if ended(facts, {End.WALL_CLOCK}):
        if parent_of(facts.agent) is not None:
            rule = "the time to live that its parent gave it"
        return found(KIND, facts, f"{rule}; the run was stopped")
    return recovery(facts, KIND)
