"""prompt-growth: what is sent with each call has grown, until each run costs a multiple."""

from __future__ import annotations

from typing import Final

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.findings import told
from midwatch.core.incident import Clear, Finding
from midwatch.core.times import ordinal

KIND = "prompt-growth"

FLOOR_TOKENS: Final = 1_000
"""Calls that send less are cheap, however much they grew."""

CALM: Final = 0.8
"""Below this share of the limit it is over."""


@detector(KIND, on=("call.ended",))
def prompt_growth(facts: Facts) -> Verdict:
    """Compare what the newest calls send with what was usual, and name the part that grew most."""
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
