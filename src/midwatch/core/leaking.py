"""What the supervisor reports of a resource that nears its limit, in words: for the leak detectors."""

from __future__ import annotations

from collections.abc import Callable

from midwatch.core.detection import Facts, Verdict
from midwatch.core.findings import told
from midwatch.core.incident import Clear, Finding
from midwatch.core.plain import number_of, text_of, whole_of
from midwatch.core.recovery import recovery
from midwatch.core.times import show_time
from midwatch.core.units import show_duration


def judge(
    kind: str, facts: Facts, resource: str, noun: str, show: Callable[[float], str]
) -> Verdict:
    """Return the verdict of `kind`, about `resource`: what `noun` do, in amounts that `show` words."""
    if facts.item.get("kind") != "run.leaking":
        return recovery(facts, kind, lasts=True)
    data = facts.data
    if data.get("resource") != resource:
        return None
    stage = text_of(data, "stage", 20)
    if stage == "calm":
        over = Clear(kind, facts.agent, "well below its limit again", facts.item["at"])
        return over if kind in facts.open_kinds else None
    used, limit = number_of(data, "used"), number_of(data, "limit")
    if used is None or not limit:
        return None
    growth = _growth(facts, noun, show, limit)
    level = f"{show(used)} of {show(limit)} {noun} in use ({min(1.0, used / limit):.0%})"
    stays = number_of(data, "above_s")
    if stays and stage in ("restart", "needs"):
        level += f", over the soft limit for {show_duration(stays)}"
    tries = whole_of(data, "tries") or 0
    futile = f"{tries} planned restarts did not change that" if tries > 1 else ""
    clauses = {
        "forecast": (growth or level,),
        "near": (level, growth),
        "full": (level, "what needs another one fails"),
        "restart": (growth or level, "restarted as planned before it fails"),
        "needs": (
            level,
            futile,
            f"limits.{resource} is below what it needs: raise it",
            "it is not restarted for this again",
        ),
    }.get(stage or "")
    if clauses is None:
        return None
    return Finding(
        kind=kind,
        agent=facts.agent,
        severity="warning",
        sentence=told(facts, *clauses),
        reason=text_of(data, "reason") or f"{resource} nears its limit",
        evidence_at=facts.item["at"],
        evidence={
            name: data.get(name)
            for name in ("run_id", "resource", "stage")
            if isinstance(data.get(name), str)
        }
        | {
            name: number
            for name in ("used", "limit", "per_hour", "reaches_at", "seen_s", "above_s", "tries")
            if (number := number_of(data, name)) is not None
        },
        done=("restart",) if stage == "restart" else (),
    )


def _growth(facts: Facts, noun: str, show: Callable[[float], str], limit: float) -> str:
    """Return `memory grows by 40 MiB an hour and reaches its limit of 1 GiB at about 04:40`."""
    rate, at = number_of(facts.data, "per_hour"), number_of(facts.data, "reaches_at")
    if not rate or rate <= 0:
        return ""
    plural = noun.endswith("s")
    verb, reach, whose = ("grow", "reach", "their") if plural else ("grows", "reaches", "its")
    text = f"{noun} {verb} by {show(rate)} an hour"
    if at is None:
        return text
    when = show_time(at, facts.now, facts.zone, seconds=at - facts.now < 120)
    return f"{text} and {reach} {whose} limit of {show(limit)} at about {when}"
