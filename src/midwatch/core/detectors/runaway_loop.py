"""runaway-loop: one cycle uses many times the tokens or the money of the agent's usual cycle."""

from __future__ import annotations

from typing import Any, Final

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.findings import FRESH_S, held_by, told
from midwatch.core.incident import Clear, Finding
from midwatch.core.loop import Cycle, Excess
from midwatch.core.plain import text_of
from midwatch.core.recovery import decided
from midwatch.core.states import State
from midwatch.core.units import show_money

KIND = "runaway-loop"

CALM: Final = 3
"""Cycles in a row within the limit after which an agent that was not stopped has calmed down."""


@detector(KIND, on=("beat", "run", "agent.state", "sample", "loop.held"))
def runaway_loop(facts: Facts) -> Verdict:
    """Find a runaway cycle; the action is the fleet file's. Clear when a person resumes, or it calms."""
    if facts.item.get("kind") == "loop.held":
        return _held(facts)
    cycle = facts.cycle
    if cycle is None:
        return decided(facts, KIND)
    if cycle.excess:
        return _found(facts, cycle)
    held = facts.state == State.SUSPENDED or facts.open_evidence.get(KIND, {}).get("held") is True
    if KIND in facts.open_kinds and facts.calm_cycles >= CALM and not held:
        return Clear(KIND, facts.agent, f"{CALM} usual cycles in a row", facts.item["at"])
    return None


def _held(facts: Facts) -> Verdict:
    """Word what the gateway saw between two beats: it has stopped the calls already."""
    if facts.data.get("loop") != KIND:
        return None
    do, consequence = held_by(facts)
    evidence: Any = facts.data.get("evidence")
    return Finding(
        kind=KIND,
        agent=facts.agent,
        severity="critical",
        sentence=told(
            facts, text_of(facts.data, "sentence", 300) or "far above its pace", consequence
        ),
        reason="calls.rate: the pace of its calls is a multiple of the usual; raise it if this is normal",
        evidence_at=facts.item["at"],
        # apart: what is usual of a minute is not what is usual of a cycle
        evidence={"pace": evidence, "held": True},
        do=do,
    )


def _found(facts: Facts, cycle: Cycle) -> Finding:
    worst = max(cycle.excess, key=lambda e: e.value / e.threshold)
    action = facts.config.loop.action
    stale = facts.now - facts.item["at"] > FRESH_S
    can_act = facts.managed and not stale and worst.usual is not None
    do = action if can_act and action != "notify" else None
    return Finding(
        kind=KIND,
        agent=facts.agent,
        severity="critical" if worst.usual is not None else "warning",
        sentence=told(facts, _sentence(worst)),
        reason=_reason(worst),
        evidence_at=facts.item["at"],
        evidence={
            "measure": worst.measure,
            "value": worst.value,
            "usual": worst.usual,
            "threshold": worst.threshold,
            "tokens": cycle.tokens,
            "cost_nusd": cycle.cost_nusd,
            "spent_nusd": facts.spent_nusd or None,
        },
        do=do,
    )


def _show(measure: str, value: float) -> str:
    return f"{round(value):,} tokens" if measure == "tokens" else show_money(round(value))


def _sentence(worst: Excess) -> str:
    spent = f"{_show(worst.measure, worst.value)} in one cycle"
    if worst.usual is None:
        return f"{spent}, and too few cycles before it to know what is usual"
    usual = (
        f"{round(worst.usual):,}" if worst.measure == "tokens" else show_money(round(worst.usual))
    )
    return f"{spent}, usual {usual}"


def _reason(worst: Excess) -> str:
    limit = _show(worst.measure, worst.threshold)
    if worst.usual is None:
        return f"over {limit} in a cycle without a baseline; nothing is done about it"
    rule = f"loop.{worst.measure}_per_cycle: {worst.ratio:g}x"
    return (
        f"limit {limit}: {rule} of the usual, and not under the floor; raise it if this is normal"
    )
