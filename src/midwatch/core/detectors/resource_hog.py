"""resource-hog: a run passed a hard limit: processes, open files or disk.

Memory has a kind of its own (oom-kill), and so has time (wall-clock-over): one incident each.
"""

from __future__ import annotations

from typing import Final

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.exits import End
from midwatch.core.findings import ended, found, told
from midwatch.core.incident import Finding
from midwatch.core.plain import text_of, whole_of
from midwatch.core.recovery import WAKES, recovery

KIND: Final = "resource-hog"

OTHERS: Final = ("wall", "memory")
"""Limits that other detectors word."""

HELD: Final = {
    "killed": "its tree is stopped",
    "refused": "the system refuses it more",
    "warned": "it is stopped when it passes its limit",
}


@detector(KIND, on=(*WAKES, "run.over_limit"))
def resource_hog(facts: Facts) -> Verdict:
    """Name the limit, what was used, and how the run is held."""
    if ended(facts, {End.LIMIT}):
        reason = text_of(facts.data, "reason") or "a hard limit"
        return found(KIND, facts, f"{reason} (end=limit)")
    if facts.item.get("kind") != "run.over_limit":
        return recovery(facts, KIND)
    data = facts.data
    limit = text_of(data, "limit", 40)
    if limit is None or limit in OTHERS:
        return None
    held = text_of(data, "held", 20) or ""
    reason = text_of(data, "reason") or f"limits.{limit}"
    return Finding(
        kind=KIND,
        agent=facts.agent,
        severity="warning",
        sentence=told(facts, reason, HELD.get(held, "")),
        reason=f"limits.{limit}",
        evidence_at=facts.item["at"],
        evidence={
            "run_id": text_of(data, "run_id", 80),
            "limit": limit,
            "used": whole_of(data, "used"),
            "bound": whole_of(data, "bound"),
            "held": held,
        },
        done=("kill",) if held == "killed" else (),
    )
