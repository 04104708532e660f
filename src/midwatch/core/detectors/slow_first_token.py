"""slow-first-token: nothing came of an answer within the time for it."""

from __future__ import annotations

from midwatch.core.calling import LATER, because, how_often, is_event, model_of, noted, quiet
from midwatch.core.detection import Facts, Verdict, detector

KIND = "slow-first-token"


@detector(KIND, on=("call.slow", *LATER))
def slow_first_token(facts: Facts) -> Verdict:
    """Word what the gateway saw; over when it has not come again for a while."""
    if not is_event(facts, "call.slow"):
        return quiet(facts, KIND)
    said = f"{model_of(facts)} gave no token in time{because(facts)}"
    became = "nothing had been sent to the client: the next place was asked"
    return noted(KIND, facts, "warning", "models.timeouts", said, how_often(facts), became)
