"""stalled-stream: an answer stopped, and its stream stayed open."""

from __future__ import annotations

from midwatch.core.calling import LATER, because, how_often, is_event, model_of, noted, quiet
from midwatch.core.detection import Facts, Verdict, detector

KIND = "stalled-stream"


@detector(KIND, on=("call.stalled", *LATER))
def stalled_stream(facts: Facts) -> Verdict:
    """Word what the gateway saw; over when it has not come again for a while."""
    if not is_event(facts, "call.stalled"):
        return quiet(facts, KIND)
    said = f"a stream of {model_of(facts)} stopped and stayed open{because(facts)}"
    ended = "it ended with an explicit error" if facts.data.get("told") is True else ""
    if facts.data.get("mended") is True:
        ended = "it was gone on with, and its client has the whole"
    return noted(KIND, facts, "warning", "models.timeouts.between", said, how_often(facts), ended)
