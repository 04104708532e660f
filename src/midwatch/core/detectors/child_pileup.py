"""child-pileup: children accumulate, outlive their time, or are never waited for."""

from __future__ import annotations

from typing import Final

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.findings import times, told
from midwatch.core.incident import Clear, Finding
from midwatch.core.plain import number_of, text_of, whole_of
from midwatch.core.recovery import WAKES, recovery
from midwatch.core.units import show_duration

KIND: Final = "child-pileup"


@detector(KIND, on=(*WAKES, "run.children"))
def child_pileup(facts: Facts) -> Verdict:
    """Word the supervisor's counts; clear when the children are few again."""
    if facts.item.get("kind") != "run.children":
        return recovery(facts, KIND, lasts=True)
    stage = text_of(facts.data, "stage", 20)
    if stage == "over":
        why = text_of(facts.data, "reason", 120) or "its children are few again"
        over = Clear(KIND, facts.agent, why, facts.item["at"])
        return over if KIND in facts.open_kinds else None
    if stage == "killed":
        return _killed(facts)
    return _piled(facts) if stage == "pileup" else None


def _piled(facts: Facts) -> Finding | None:
    data = facts.data
    children, zombies = whole_of(data, "children") or 0, whole_of(data, "zombies") or 0
    bound = whole_of(data, "bound")
    count = _children(children)
    if bound is not None and children > bound:
        count += f", {bound:,} are expected"
    waits = f"{zombies:,} of them have ended and wait for the agent to notice" if zombies else ""
    return Finding(
        kind=KIND,
        agent=facts.agent,
        severity="warning",
        sentence=told(facts, count, waits),
        reason=text_of(data, "reason") or "children pile up",
        evidence_at=facts.item["at"],
        evidence={"children": children, "zombies": zombies, "bound": bound},
    )


def _killed(facts: Facts) -> Finding:
    data = facts.data
    count, ttl = whole_of(data, "killed") or 0, number_of(data, "ttl_s")
    limit = f" ({show_duration(ttl)})" if ttl else ""
    oldest = number_of(data, "oldest_s")
    return Finding(
        kind=KIND,
        agent=facts.agent,
        severity="warning",
        sentence=told(
            facts,
            f"{_children(count)} over {'its' if count == 1 else 'their'} time to live{limit}",
            f"the oldest {show_duration(oldest)}" if oldest else "",
            "killed",
        ),
        reason=text_of(data, "reason") or "children.ttl",
        evidence_at=facts.item["at"],
        evidence={"killed": count, "ttl_s": ttl, "processes": data.get("processes")},
        done=("kill",),
    )


def _children(count: int) -> str:
    return times(count, "child") if count == 1 else f"{count:,} children"
