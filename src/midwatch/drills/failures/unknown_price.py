"""`unknown-price`: a model of which no price list has heard: under a budget it is refused, and never counted as free."""

from __future__ import annotations

from midwatch.drills.drill import Drill
from midwatch.drills.instance import Instance


def _not_asked(instance: Instance) -> str | None:
    refused = instance.told("refused")
    error = refused["error"]
    if (refused["status"], error.get("type")) != (403, "midwatch_budget"):
        return f"the call was answered with {refused}"
    if "mystery-9" not in error["message"] or "models.prices" not in error["message"]:
        return f"the refusal does not say what to do: {error['message']!r}"
    return "the provider was asked" if instance.provided.asked() else None


DRILL = Drill(
    name="unknown-price",
    about="a model with no known price, under a budget",
    program="unknown_price.py",
    limit_s=1.0,
    settings={"budget": {"per_day": "$1"}},
    provided=True,
    says=(r"mystery-9", r"not known", r"refused while a budget holds"),
    check=_not_asked,
)
