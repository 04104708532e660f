"""fallback: a call was answered by a model that is weaker, or dearer, than the one that was asked for."""

from __future__ import annotations

from typing import Final

from midwatch.core.calling import LATER, because, how_often, is_event, noted, quiet
from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.plain import text_of, texts_of

KIND = "fallback"

QUIET_S: Final = 86_400.0
"""One incident a day, however often a chain falls back."""

MAX_WAYS: Final = 20


@detector(KIND, on=("call.fallback", *LATER))
def fallback(facts: Facts) -> Verdict:
    """Find marked fallbacks; one that is as good and no dearer is what chains are for, and no incident."""
    if not is_event(facts, "call.fallback"):
        return quiet(facts, KIND, QUIET_S)
    marks = [mark for mark in ("weaker", "dearer") if facts.data.get(mark) is True]
    if not marks:
        return None
    asked, served = text_of(facts.data, "from") or "?", text_of(facts.data, "to") or "?"
    why = text_of(facts.data, "why") or "it failed"
    way = f"{asked} to {served}"
    known = texts_of(facts.open_evidence.get(KIND, {}), "ways")
    ways = [way, *(one for one in known if one != way)][:MAX_WAYS]
    said = f"{served} answered instead of {asked} ({why}){because(facts)}"
    worse = f"it is {' and '.join(marks)}"
    more = f"{len(ways)} such ways since it began" if len(ways) > 1 else ""
    reason = "models.chains: a fallback that models.about ranks lower, or that may cost more"
    return noted(KIND, facts, "info", reason, said, worse, how_often(facts), more, ways=ways)
