"""Whether one cycle is a runaway: its tokens or cost against the agent's own baseline.

A cycle is a runaway when it reaches both `ratio x usual` and the floor of the fleet file, so that small
numbers do not alarm. Before a baseline exists there is nothing to compare with: only an enormous cycle
(FIRST_CYCLES x ratio x floor) is told, nothing is done about it, and it is learned, because it may be how
this agent works. Draining cycles are clean-up: never judged, never learned. What exceeds a baseline is
not learned, so a runaway never becomes usual; to accept a new level, raise the ratio in the fleet file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from midwatch.core.baseline import Baseline
from midwatch.core.terms import Loop
from midwatch.wire.items import Item

FIRST_CYCLES = 10
"""Without a baseline the threshold is this many times `ratio x floor`: 500,000 tokens or $5 by default."""


@dataclass(frozen=True, slots=True)
class Excess:
    """One measure of a cycle that is far over what is usual."""

    measure: Literal["tokens", "cost"]
    value: int
    """Tokens, or nano-dollars."""
    usual: float | None
    """None: no baseline yet."""
    threshold: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Cycle:
    """One cycle, judged. None: not reported."""

    at: float
    tokens: int | None
    cost_nusd: int | None
    usual_tokens: float | None
    """The baseline before this cycle."""
    usual_cost_nusd: float | None
    draining: bool
    excess: tuple[Excess, ...]


def judge(item: Item, tokens: Baseline, cost: Baseline, loop: Loop) -> Cycle:
    """Judge one beat (or the usage of a cycle that is still open) against the baselines."""
    draining = bool(item.get("draining"))
    usual_tokens, usual_cost = tokens.usual, cost.usual
    excess: list[Excess] = []
    if not draining:
        spent_tokens, spent_cost = item.get("tokens"), item.get("cost_nusd")
        if spent_tokens:
            limit = _threshold(usual_tokens, loop.tokens_per_cycle, loop.floor_tokens)
            if limit is not None and spent_tokens >= limit:
                excess.append(
                    Excess("tokens", spent_tokens, usual_tokens, limit, loop.tokens_per_cycle)
                )
        if spent_cost:
            limit = _threshold(usual_cost, loop.cost_per_cycle, loop.floor_cost)
            if limit is not None and spent_cost >= limit:
                excess.append(Excess("cost", spent_cost, usual_cost, limit, loop.cost_per_cycle))
    return Cycle(
        at=item["at"],
        tokens=item.get("tokens"),
        cost_nusd=item.get("cost_nusd"),
        usual_tokens=usual_tokens,
        usual_cost_nusd=usual_cost,
        draining=draining,
        excess=tuple(excess),
    )


def learn(cycle: Cycle, tokens: Baseline, cost: Baseline) -> None:
    """Let a cycle enter the baselines, except for what exceeds them."""
    if cycle.draining:
        return
    over = {e.measure for e in cycle.excess if e.usual is not None}
    if "tokens" not in over:
        tokens.add(cycle.tokens or 0)
    if "cost" not in over:
        cost.add(cycle.cost_nusd or 0)


def _threshold(usual: float | None, ratio: float, floor: int) -> float | None:
    """Return the value that counts as a runaway; None when a ratio of 0 switches the measure off."""
    if ratio <= 0:
        return None
    if usual is None:
        return FIRST_CYCLES * ratio * floor or None
    return max(ratio * usual, float(floor))
