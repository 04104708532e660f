"""model-mismatch: another model answered than the one that was asked for."""

from __future__ import annotations

from midwatch.core.calling import LATER, how_often, is_event, noted, quiet
from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.plain import text_of

KIND = "model-mismatch"


@detector(KIND, on=("model.mismatch", *LATER))
def model_mismatch(facts: Facts) -> Verdict:
    """Find answers of other models; a warning when the policy forbids the one that answered."""
    if not is_event(facts, "model.mismatch"):
        return quiet(facts, KIND)
    asked, served = text_of(facts.data, "asked") or "?", text_of(facts.data, "served") or "?"
    forbidden = text_of(facts.data, "forbidden", 300)
    said = f"{asked} was asked, and {served} answered"
    against = f"which models.policy forbids: {forbidden}" if forbidden else ""
    severity = "warning" if forbidden else "info"
    return noted(KIND, facts, severity, "the provider's own word", said, how_often(facts), against)
