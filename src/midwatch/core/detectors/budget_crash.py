"""budget-crash: the gateway died with calls in flight, whose reservations nobody settled."""

from __future__ import annotations

from midwatch.core.calling import noted
from midwatch.core.detection import MIDWATCH, Facts, Verdict, detector
from midwatch.core.findings import times
from midwatch.core.plain import whole_of
from midwatch.core.units import show_money

KIND = "budget-crash"


@detector(KIND, on=("gateway.ready",))
def budget_crash(facts: Facts) -> Verdict:
    """Tell what was in flight, and that it counts; nothing is left to do about it."""
    count = whole_of(facts.data, "open_calls") or 0
    if facts.agent != MIDWATCH or count <= 0:
        return None
    held = show_money(max(0, whole_of(facts.data, "open_nusd") or 0))
    said = f"the gateway died with {times(count, 'call')} in flight"
    counted = f"what they may cost at the most, {held}, counts as spent until they are settled"
    return noted(
        KIND, facts, "warning", "unsettled reservations at start", said, counted, transient=True
    )
