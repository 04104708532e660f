"""budget-day: a budget nears its end, or is used up, and calls are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from midwatch.core.calling import LATER, is_event, noted, past, until
from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.ends import End
from midwatch.core.findings import ended, found
from midwatch.core.plain import number_of, text_of, whole_of
from midwatch.core.recovery import WAKES, recovery
from midwatch.core.units import show_money

KIND = "budget-day"

_WINDOWS: Final = {"day": " today", "hour": " in the last hour", "month": " this month"}


@detector(KIND, on=("budget.warned", "budget.exhausted", *WAKES, *LATER))
def budget_day(facts: Facts) -> Verdict:
    """Word the ledger's notices, of any window. Over when the budget renews; one that does not is told once."""
    if ended(facts, {End.BUDGET}):
        before = facts.open_evidence.get(KIND, {})
        over = found(KIND, facts, "the last output tells of a refusal by the gateway")
        return replace(over, evidence={**before, **over.evidence})
    if not is_event(facts, "budget.warned", "budget.exhausted"):
        exited = "end" in facts.open_evidence.get(KIND, {})
        renewed = past(facts, KIND, "renews_at", "the budget began anew")
        return renewed or (recovery(facts, KIND) if exited else None)
    data = facts.data
    spent, limit = whole_of(data, "spent_nusd") or 0, whole_of(data, "limit_nusd") or 0
    over = is_event(facts, "budget.exhausted")
    before = facts.open_evidence.get(KIND, {})
    same = all(before.get(name) == data.get(name) for name in ("account", "period"))
    if before.get("over") and same and not over:
        return None  # it is known to be used up
    window = text_of(data, "window") or ""
    whose = text_of(data, "whose") or ""
    subject = "" if whose in ("", facts.agent) else f" of {whose}"
    money = f"{show_money(spent)} of {show_money(limit)}{subject}"
    when = _WINDOWS.get(window, "")
    share = f" ({spent * 100 // limit}%)" if limit else ""
    if over:
        said = f"the budget is used up: {money}{when}; calls that do not fit are refused"
        said += until(facts, "renews_at")
        if data.get("then") == "park":
            said += ", and it is held until it is resumed"
    else:
        said = f"{money} spent{when}{share}"
    return noted(
        KIND,
        facts,
        "critical" if over else "warning",
        text_of(data, "sentence", 300) or "the ledger's notice",
        said,
        transient=number_of(data, "renews_at") is None,
        over=over,
    )
