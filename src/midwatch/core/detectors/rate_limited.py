"""rate-limited: a provider refuses for the rate of calls; they are tried again, or elsewhere."""

from __future__ import annotations

from typing import Final

from midwatch.core.calling import LATER, because, how_often, is_event, model_of, noted, quiet
from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.plain import whole_of

KIND = "rate-limited"

MANY: Final = 10
"""So many refusals within ten seconds are more than a busy minute."""


@detector(KIND, on=("call.retried", *LATER))
def rate_limited(facts: Facts) -> Verdict:
    """Find refusals for rate; a few are worth knowing, many are a warning."""
    if not is_event(facts, "call.retried"):
        return quiet(facts, KIND)
    if facts.data.get("why") != "rate_limit":
        return None
    many = (whole_of(facts.data, "count") or 1) >= MANY
    said = f"{model_of(facts)} limits its calls{because(facts)}"
    became = "its wait is kept, then it is asked again, or the next model"
    severity = "warning" if many else "info"
    return noted(KIND, facts, severity, "class rate_limit", said, how_often(facts), became)
