"""disputed-price: the price lists do not agree on what a model costs; the higher price is charged."""

from __future__ import annotations

from typing import Final

from midwatch.core.calling import LATER, is_event, model_of, noted, quiet
from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.plain import texts_of, whole_of
from midwatch.core.units import show_money

KIND = "disputed-price"

QUIET_S: Final = 2 * 86_400.0
"""The gateway tells it once a day of each model: it is over when it left out a day."""

MAX_MODELS: Final = 20
SHOWN: Final = 3


@detector(KIND, on=("price.disputed", *LATER))
def disputed_price(facts: Facts) -> Verdict:
    """Name the models, and what the lists say of one call; one incident for all of them."""
    if not is_event(facts, "price.disputed"):
        return quiet(facts, KIND, QUIET_S)
    model = model_of(facts)
    known = texts_of(facts.open_evidence.get(KIND, {}), "models")
    models = [model, *(one for one in known if one != model)][:MAX_MODELS]
    more = f" and of {', '.join(models[1:SHOWN])}" if len(models) > 1 else ""
    more += f" and {len(models) - SHOWN} more" if len(models) > SHOWN else ""
    said = f"the price lists differ on the price of {model}{_figures(facts)}{more}"
    became = "the higher one is charged"
    advice = "see midwatch prices show, and say which is right with midwatch prices set"
    return noted(
        KIND, facts, "info", "two price lists differ by more than 2%", said, became, advice, models=models
    )  # fmt: skip


def _figures(facts: Facts) -> str:
    """Return ` ($0.0012 and $0.0015 for one call)`, or nothing."""
    costs = facts.data.get("costs")
    names: list[str] = sorted(costs) if isinstance(costs, dict) else []  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    figures = [whole_of(costs, name) for name in names[:4]]  # pyright: ignore[reportArgumentType, reportUnknownArgumentType]
    known = sorted({figure for figure in figures if figure is not None})
    if len(known) < 2:
        return ""
    return f" ({show_money(known[0])} and {show_money(known[-1])} for one call)"
