"""cut-stream: an answer broke off before its end."""

from __future__ import annotations

from midwatch.core.calling import LATER, because, how_often, is_event, model_of, noted, quiet
from midwatch.core.detection import Facts, Verdict, detector

KIND = "cut-stream"


@detector(KIND, on=("call.cut", *LATER))
def cut_stream(facts: Facts) -> Verdict:
    """Word what the gateway saw; over when it has not come again for a while."""
    if not is_event(facts, "call.cut"):
        return quiet(facts, KIND)
    said = f"an answer of {model_of(facts)} broke off{because(facts)}"
    became = "nothing of it had been sent: it was asked for again"
    if facts.data.get("told") is True:
        became = "its client was told so"
    elif facts.data.get("mended") is True:
        became = "it was gone on with, and its client has the whole"
        if facts.data.get("seam") == "unproven":
            became = "a further request asked for the rest; nothing proves that both parts fit"
    return noted(KIND, facts, "warning", "no end mark", said, how_often(facts), became)
