"""provider-down: a place does not answer and is passed over, or many calls are answered elsewhere."""

from __future__ import annotations

from typing import Final

from midwatch.core.calling import because, is_event, noted, quiet
from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.incident import Clear
from midwatch.core.plain import number_of, text_of, texts_of, whole_of
from midwatch.core.units import show_duration

KIND = "provider-down"

SPIKE: Final = 0.2
MANY: Final = 20
"""Fallbacks of a minute that are a spike: this share of all calls, and so many."""

FEW: Final = 0.05
"""Below this share a spike is over."""

FORGOTTEN_S: Final = 6 * 3600.0
"""A place that nobody asked for since is no longer known to be down."""


@detector(KIND, on=("breaker.opened", "breaker.closed", "gateway.calls", "gateway.ready", "sample"))
def provider_down(facts: Facts) -> Verdict:
    """Find breakers that open, and spikes of fallbacks; over when all are closed, or fallbacks are few."""
    if is_event(facts, "breaker.opened"):
        data = facts.data
        place = f"{text_of(data, 'provider')}/{text_of(data, 'model')}"
        rest = number_of(data, "for_s") or 0.0
        said = f"{place} does not answer{because(facts)}"
        passed = f"it is passed over for {show_duration(max(rest, 1.0))}, then asked again with one call at a time"
        down = texts_of(data, "open")
        more = f"{len(down)} places are down: {', '.join(down[:5])}" if len(down) > 1 else ""
        return noted(
            KIND, facts, "warning", "models.breaker: failures in a row", said, passed, more
        )
    if is_event(facts, "breaker.closed", "gateway.ready"):
        return _closed(facts)
    if is_event(facts, "gateway.calls"):
        return _spike(facts)
    return quiet(facts, KIND, FORGOTTEN_S)


def _closed(facts: Facts) -> Verdict:
    if KIND not in facts.open_kinds or texts_of(facts.data, "open"):
        return None
    reason = "the gateway began anew" if is_event(facts, "gateway.ready") else "it answers again"
    return Clear(KIND, facts.agent, reason, facts.item["at"])


def _spike(facts: Facts) -> Verdict:
    calls = whole_of(facts.data, "calls") or 0
    fell = whole_of(facts.data, "fallbacks") or 0
    share = fell / calls if calls > 0 else 0.0
    if fell >= MANY and share >= SPIKE:
        counts = facts.data.get("fell_from")
        sources: list[str] = sorted(counts)[:5] if isinstance(counts, dict) else []  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        said = (
            f"{fell:,} of {calls:,} calls of the last minute were answered elsewhere ({share:.0%})"
        )
        source = f"instead of {', '.join(sources)}" if sources else ""
        reason = f"fallbacks: at least {MANY} and {SPIKE:.0%} of all calls"
        return noted(KIND, facts, "warning", reason, said, source, spike=True)
    spiked = facts.open_evidence.get(KIND, {}).get("spike") is True
    if spiked and calls > 0 and share < FEW:
        return Clear(KIND, facts.agent, f"{share:.0%} fallbacks", facts.item["at"])
    return None
