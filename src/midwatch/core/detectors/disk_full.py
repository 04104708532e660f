"""disk-full: the hub's disk has little room left; below a limit telemetry is refused, and all else goes on."""

from __future__ import annotations

from midwatch.core.detection import MIDWATCH, Facts, Verdict, detector
from midwatch.core.findings import told
from midwatch.core.incident import Clear, Finding
from midwatch.core.plain import text_of

KIND = "disk-full"


@detector(KIND, on=("disk.low", "disk.full", "disk.fine"))
def disk_full(facts: Facts) -> Verdict:
    """Warn while telemetry is still taken; critical once it is refused."""
    if facts.agent != MIDWATCH:
        return None
    reason = text_of(facts.data, "reason") or "the hub's disk has little room"
    node, at = text_of(facts.data, "node") or "", facts.item["at"]
    if facts.item["kind"] == "disk.fine":
        return Clear(KIND, MIDWATCH, reason, at, node)
    is_full = facts.item["kind"] == "disk.full"
    return Finding(
        kind=KIND,
        agent=MIDWATCH,
        severity="critical" if is_full else "warning",
        sentence=told(facts, f"{node}: {reason}" if node else reason),
        reason="free space of the hub's disk against hub.keep.free",
        evidence_at=at,
        evidence=dict(facts.data),
        subject=node,
    )
