"""same-call-loop: the same call with the same result, or the same request, again and again."""

from __future__ import annotations

from typing import Final

from midwatch.core.calling import LATER, is_event, noted, quiet
from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.findings import held_by
from midwatch.core.plain import text_of
from midwatch.core.recovery import decided

KIND = "same-call-loop"

CALM_S: Final = 120.0
"""A repetition that was only warned of is over when it has not gone on for so long."""


@detector(KIND, on=("loop.held", "loop.warned", "run", "agent.state", *LATER))
def same_call_loop(facts: Facts) -> Verdict:
    """Word what the gateway's loop breaker saw. Held: until a person resumes. Warned: until it stops."""
    if is_event(facts, "loop.held", "loop.warned"):
        if facts.data.get("loop") != KIND:
            return None
        said = text_of(facts.data, "sentence", 300) or "the same call again and again"
        held = is_event(facts, "loop.held")
        do, consequence = held_by(facts) if held else (None, "")
        return noted(
            KIND,
            facts,
            "critical" if held else "warning",
            "loop.same_call, calls.same_request: repeated with the same result",
            said,
            consequence,
            do=do,
            held=held,
        )
    if facts.open_evidence.get(KIND, {}).get("held") is True:
        return decided(facts, KIND)
    return decided(facts, KIND) or quiet(facts, KIND, CALM_S)
