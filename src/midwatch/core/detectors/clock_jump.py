"""clock-jump: the hub's wall clock does not go as its steady one does; nothing goes by age for the difference."""

from __future__ import annotations

from midwatch.core.detection import MIDWATCH, Facts, Verdict, detector
from midwatch.core.findings import told
from midwatch.core.incident import Clear, Finding
from midwatch.core.plain import text_of

KIND = "clock-jump"


@detector(KIND, on=("clock.jumped", "clock.steady"))
def clock_jump(facts: Facts) -> Verdict:
    """Warn until the clock is believed again."""
    if facts.agent != MIDWATCH:
        return None
    reason = text_of(facts.data, "reason") or "the hub's wall clock jumped"
    node, at = text_of(facts.data, "node") or "", facts.item["at"]
    if facts.item["kind"] == "clock.steady":
        return Clear(KIND, MIDWATCH, reason, at, node)
    return Finding(
        kind=KIND,
        agent=MIDWATCH,
        severity="warning",
        sentence=told(facts, f"{node}: {reason}" if node else reason),
        reason="the wall clock against the steady one, more than five minutes apart",
        evidence_at=at,
        evidence=dict(facts.data),
        subject=node,
    )
