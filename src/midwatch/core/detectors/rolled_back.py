"""rolled-back: what was changed failed before it was stable, and the last good one runs again."""

from __future__ import annotations

from typing import Final

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.findings import told
from midwatch.core.incident import Finding
from midwatch.core.plain import text_of
from midwatch.core.recovery import WAKES, recovery
from midwatch.core.versions import Takeback

KIND: Final = "rolled-back"


@detector(KIND, on=("agent.rolled_back", *WAKES))
def rolled_back(facts: Facts) -> Verdict:
    """Find what was taken back; say what had changed, why it did not stay, and what could not be taken back."""
    if facts.item.get("kind") != "agent.rolled_back":
        return recovery(facts, KIND)
    taken, why = Takeback.of(facts.data), text_of(facts.data, "reason", 160)
    what = taken.said or "its changed entry"
    verb = "were" if " and " in what else "was"
    return Finding(
        kind=KIND,
        agent=facts.agent,
        severity="warning",
        sentence=told(
            facts,
            f"{what} {verb} taken back" + (f" because it failed: {why}" if why else ""),
            taken.left_said,
            f"the last good one runs again until {taken.until} is changed",
        ),
        reason="it failed before stable_after, and rollback is on",
        evidence_at=facts.item["at"],
        evidence={
            **taken.to_json(),
            "reason": why,
            "end": text_of(facts.data, "end"),
            "run_id": facts.run_id,
        },
        done=("rollback",),
    )
