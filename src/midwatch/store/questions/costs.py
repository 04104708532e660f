"""Sums on their way out, whatever store added them up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from midwatch.core.spans.questions import QUANTILES, By, Cost, Item, Metric
from midwatch.wire.limits import NUSD_PER_USD

OF_TRACES: Final = frozenset(
    {*(QUANTILES - {Metric.FIRST_TOKEN, Metric.CONTEXT_FILL}), Metric.GOAL_COMPLETION, Metric.ESCALATION}
)  # fmt: skip
"""Metrics that a trace as a whole has; of the others each span has its own."""


def cost_of(by: By, rows: Iterable[Any], groups: Mapping[str, str], limit: int) -> Cost:
    """Return the answer of `asking.cost`'s rows."""
    found: dict[str | None, list[int]] = {}
    for key, *numbers in rows:
        if by == "group":
            name = groups.get(key)
        elif by == "day":
            name = datetime.fromtimestamp(key * 86_400, UTC).date().isoformat()
        else:
            name = key
        mine = found.setdefault(name, [0] * len(numbers))
        for at, number in enumerate(numbers):
            mine[at] += int(number)
    ordered = sorted(found.items(), key=lambda one: (-one[1][0], str(one[0])))
    return Cost(
        [_cost_row(name, *numbers) for name, numbers in ordered[:limit]],
        sum(numbers[0] for numbers in found.values()),
        sum(numbers[-1] for numbers in found.values()),
        max(0, len(ordered) - limit),
    )


def _cost_row(
    key: str | None, cost: int, calls: int, given: int, cached: int, made: int, unpriced: int
) -> Item:
    return {
        "key": key, "cost_nusd": cost, "cost_usd": cost / NUSD_PER_USD, "calls": calls, "input_tokens": given,
        "cached_tokens": cached, "output_tokens": made, "unpriced": unpriced,
    }  # fmt: skip
