"""unknown-price: a model was asked for whose price nobody knows."""

from __future__ import annotations

from midwatch.core.calling import LATER, is_event, model_of, noted, quiet
from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.plain import whole_of
from midwatch.core.units import show_money

KIND = "unknown-price"

QUIET_S = 3600.0


@detector(KIND, on=("price.unknown", *LATER))
def unknown_price(facts: Facts) -> Verdict:
    """Say what became of the call; a cost of 0 is never told in silence."""
    if not is_event(facts, "price.unknown"):
        return quiet(facts, KIND, QUIET_S)
    cost = whole_of(facts.data, "cost_nusd") or 0
    if facts.data.get("refused") is True:
        became = "calls to it are refused while a budget holds"
    elif cost:
        became = f"counted at the dearest price of its provider, {show_money(cost)}"
    else:
        became = "counted as nothing: what it costs is not known"
    said = f"the price of {model_of(facts)} is not known"
    advice = "set it with midwatch prices set"
    return noted(KIND, facts, "warning", "no price list knows the model", said, became, advice)
