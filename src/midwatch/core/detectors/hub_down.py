"""hub-down: the hub was away while agents worked; the supervisor noticed and says for how long."""

from __future__ import annotations

from midwatch.core.detection import MIDWATCH, Facts, Verdict, detector
from midwatch.core.incident import Finding
from midwatch.core.plain import number_of, text_of
from midwatch.core.report import told
from midwatch.core.times import show_time
from midwatch.core.units import show_duration


@detector("hub-down", on=("hub.down",))
def hub_down(facts: Facts) -> Verdict:
    """Tell of the gap once it has ended: only then can the hub hear of it."""
    if facts.agent != MIDWATCH:
        return None
    start, end = number_of(facts.data, "from"), number_of(facts.data, "to")
    gap = number_of(facts.data, "gap_s")
    if gap is None and start is not None and end is not None:
        gap = max(0.0, end - start)
    length = f" for {show_duration(gap)}" if gap is not None else ""
    since = f", since {show_time(start, facts.now, facts.zone, seconds=True)}" if start else ""
    why = text_of(facts.data, "reason")
    return Finding(
        kind="hub-down",
        agent=MIDWATCH,
        severity="warning",
        sentence=told(
            facts,
            f"the hub was down{length}{since}" + (f" ({why})" if why else ""),
            "agents ran on, and what they reported was kept",
        ),
        reason=why or "the supervisor could not reach the hub",
        evidence_at=end or facts.item["at"],
        evidence={"from": start, "to": end, "gap_s": gap},
        transient=True,
    )
