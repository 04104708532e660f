"""leaked-key: somebody shows a key that was revoked."""

from __future__ import annotations

from midwatch.core.calling import LATER, how_often, is_event, noted, quiet
from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.plain import text_of

KIND = "leaked-key"

QUIET_S = 3600.0


@detector(KIND, on=("key.revoked_used", *LATER))
def leaked_key(facts: Facts) -> Verdict:
    """Find the use of a revoked key: it is refused everywhere; who has it is for a person to find."""
    if not is_event(facts, "key.revoked_used"):
        return quiet(facts, KIND, QUIET_S)
    key = text_of(facts.data, "key") or "a key"
    said = f"the revoked key {key} was used, and refused"
    return noted(KIND, facts, "critical", "the key was revoked", said, how_often(facts))
