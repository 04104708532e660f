"""How detectors turn what the gateway tells into findings: read, worded, bounded; and when such an incident is over.

The gateway has acted already: refused, tried elsewhere, rested a key. Its events say what was seen and done.
"""

from __future__ import annotations

from typing import Any, Final

from midwatch.core.detection import Facts
from midwatch.core.findings import times, told
from midwatch.core.incident import Clear, Finding, Severity
from midwatch.core.plain import number_of, text_of, whole_of
from midwatch.core.times import show_time
from midwatch.core.units import show_duration

LATER: Final = ("sample", "beat", "call.ended", "gateway.calls")
"""What comes again and again, and so wakes a detector whose incident ends with time."""

QUIET_S: Final = 600.0
"""Not seen for so long, what broke single calls is over."""

MAX_EVIDENCE: Final = 20


def noted(
    kind: str,
    facts: Facts,
    severity: Severity,
    reason: str,
    *clauses: str,
    do: str | None = None,
    transient: bool = False,
    **evidence: Any,
) -> Finding:
    """Return the finding for an event of the gateway; its data is the evidence, with what is added here."""
    kept = {k: v for k, v in list(facts.data.items())[:MAX_EVIDENCE] if _is_plain(v)}
    return Finding(
        kind=kind,
        agent=facts.agent,
        severity=severity,
        sentence=told(facts, *clauses),
        reason=reason,
        evidence_at=facts.item["at"],
        evidence={**kept, **evidence},
        do=do,
        transient=transient,
    )


def quiet(facts: Facts, kind: str, after_s: float = QUIET_S) -> Clear | None:
    """Return a Clear when this agent's open incident of `kind` has not been seen for `after_s`."""
    seen_at = facts.open_kinds.get(kind)
    if seen_at is None or facts.now - seen_at < after_s:
        return None
    reason = f"not seen again for {show_duration(facts.now - seen_at)}"
    return Clear(kind, facts.agent, reason, facts.item.get("at", facts.now))


def past(facts: Facts, kind: str, name: str, reason: str) -> Clear | None:
    """Return a Clear when the moment that the evidence of the open incident holds under `name` is past."""
    evidence = facts.open_evidence.get(kind)
    moment = None if evidence is None else number_of(evidence, name)
    if moment is None or facts.now < moment:
        return None
    return Clear(kind, facts.agent, reason, facts.item.get("at", facts.now))


def is_event(facts: Facts, *kinds: str) -> bool:
    """Tell whether one of these events woke the detector."""
    return facts.item.get("kind") in kinds


def how_often(facts: Facts) -> str:
    """Return `12 times in a moment`, or nothing for a single time."""
    count = whole_of(facts.data, "count") or 1
    return "" if count < 2 else times(count, "time")


def because(facts: Facts, name: str = "reason") -> str:
    """Return ` (words of the provider)`, or nothing."""
    said = text_of(facts.data, name, 160)
    return f" ({said})" if said else ""


def model_of(facts: Facts) -> str:
    """Return the model that the event is about."""
    return text_of(facts.data, "model") or "a model"


def until(facts: Facts, name: str, words: str = " until ") -> str:
    """Return ` until 02:14:07`, or nothing."""
    moment = number_of(facts.data, name)
    if moment is None:
        return ""
    return words + show_time(moment, facts.now, facts.zone, seconds=True)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | list | dict)
