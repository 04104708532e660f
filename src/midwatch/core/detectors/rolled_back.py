"""rolled-back: a changed entry failed before it was stable, and the last good one runs again."""

from __future__ import annotations

from typing import Final

from midwatch.core.change import listed
from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.findings import told
from midwatch.core.incident import Finding
from midwatch.core.plain import text_of, texts_of
from midwatch.core.recovery import WAKES, recovery

KIND: Final = "rolled-back"


@detector(KIND, on=("agent.rolled_back", *WAKES))
def rolled_back(facts: Facts) -> Verdict:
    """Find an entry that was taken back; say what had changed, and why it did not stay."""
    if facts.item.get("kind") != "agent.rolled_back":
        return recovery(facts, KIND)
    keys, why = texts_of(facts.data, "keys", 20), text_of(facts.data, "reason", 160)
    what = f"its changed entry ({listed(keys)})" if keys else "its changed entry"
    return Finding(
        kind=KIND,
        agent=facts.agent,
        severity="warning",
        sentence=told(
            facts,
            f"{what} was taken back" + (f" because it failed: {why}" if why else ""),
            "the last good one runs again until the fleet file is changed",
        ),
        reason="it failed before stable_after, and rollback is on",
        evidence_at=facts.item["at"],
        evidence={
            "keys": keys,
            "reason": why,
            "end": text_of(facts.data, "end"),
            "run_id": facts.run_id,
        },
        done=("rollback",),
    )
