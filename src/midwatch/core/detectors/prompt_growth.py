"""prompt-growth: what is sent with each call has grown, until each run costs a multiple.

Told from two sides: the hub compares sums of calls with what was usual of days before; the gateway, hub or no hub,
sees a conversation to which each call adds a multiple, and may have held the agent for it.
"""

from __future__ import annotations

from typing import Final

from midwatch.core.calling import LATER, QUIET_S, is_event, noted, quiet
from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.findings import held_by, told
from midwatch.core.incident import Clear, Finding
from midwatch.core.plain import text_of
from midwatch.core.recovery import decided
from midwatch.core.times import ordinal

KIND = "prompt-growth"

FLOOR_TOKENS: Final = 1_000
"""Calls that send less are cheap, however much they grew."""

CALM: Final = 0.8
"""Below this share of the limit it is over."""


@detector(KIND, on=("loop.held", "loop.warned", "run", "agent.state", *LATER))
def prompt_growth(facts: Facts) -> Verdict:
    """Word what the gateway saw, or compare what the newest calls send with what was usual. Held: until a person
    resumes. Warned: until it has not gone on for a while."""
    if is_event(facts, "loop.held", "loop.warned"):
        return _seen(facts)
    known = facts.open_evidence.get(KIND, {})
    if known.get("held") is True:
        return decided(facts, KIND)
    found = _compared(facts) if is_event(facts, "call.ended") else None
    if known.get("held") is False and found is None:
        return decided(facts, KIND) or quiet(facts, KIND, QUIET_S)
    return found


def _seen(facts: Facts) -> Verdict:
    if facts.data.get("loop") != KIND:
        return None
    held = is_event(facts, "loop.held")
    do, consequence = held_by(facts) if held else (None, "")
    return noted(
        KIND,
        facts,
        "critical" if held else "warning",
        "calls.growth: calls of one conversation that add a multiple of the usual; raise it if this is normal",
        text_of(facts.data, "sentence", 300) or "each call sends far more than the one before",
        consequence,
        do=do,
        held=held,
    )


def _compared(facts: Facts) -> Verdict:
    """Judge the newest sums, and name the part that grew most."""
    if facts.outlay is None:
        return None
    today = ordinal(facts.item["at"], facts.zone)
    grown = facts.outlay.growth(today)
    limit = facts.config.loop.prompt_growth
    if grown is None:
        return None
    if grown.ratio >= limit and grown.tokens >= FLOOR_TOKENS:
        return Finding(
            kind=KIND,
            agent=facts.agent,
            severity="warning",
            sentence=told(
                facts,
                f"{grown.tokens:,.0f} tokens with each call, usual {grown.usual:,.0f} ({grown.ratio:.1f}x)",
                f"its {grown.part} grew from {grown.part_usual:,.0f} to {grown.part_tokens:,.0f}",
            ),
            reason=f"loop.prompt_growth: {limit:g}x of the usual",
            evidence_at=facts.item["at"],
            evidence={
                "part": grown.part,
                "part_tokens": round(grown.part_tokens),
                "part_usual": round(grown.part_usual),
                "tokens": round(grown.tokens),
                "usual": round(grown.usual),
            },
        )
    if KIND in facts.open_kinds and grown.ratio < CALM * limit:
        return Clear(KIND, facts.agent, f"{grown.tokens:,.0f} tokens a call", facts.item["at"])
    return None
