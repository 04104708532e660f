"""missed-schedule: a scheduled run did not happen in time, or not at all.

Over when a run begins on time again, or when a run that makes up for it has finished. That a person stopped the agent
is worth knowing and no alarm.
"""

from __future__ import annotations

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.findings import told
from midwatch.core.incident import Clear, Finding, Severity
from midwatch.core.plain import flag_of, number_of, text_of, whole_of
from midwatch.core.times import show_time, zone_of

KIND = "missed-schedule"

BRIEF_S = 600.0
"""Shorter times are told with their seconds."""

TOLD_WITHIN_S = 30.0
"""How long a report may be on its way."""


@detector(KIND, on=("schedule.missed", "run.started", "run.ended", "sample"))
def missed_schedule(facts: Facts) -> Verdict:
    """Find starts that were not made: which, why, and what the policy did about them."""
    if facts.item.get("kind") == "schedule.missed":
        return _found(facts)
    reason = _over(facts) if KIND in facts.open_kinds else None
    return Clear(KIND, facts.agent, reason, facts.item["at"]) if reason else None


def _found(facts: Facts) -> Finding:
    data = facts.data
    count = whole_of(data, "count") or 1
    why = text_of(data, "reason", 200)
    return Finding(
        kind=KIND,
        agent=facts.agent,
        severity=_severity(facts),
        sentence=told(facts, f"{_which(facts)}{_because(facts, why)}", _then(facts)),
        reason=f"{count} missed: {why or 'no reason was told'}",
        evidence_at=facts.item["at"],
        evidence={
            name: value
            for name in ("due_at", "last_due_at", "count", "from", "to", "made_up", "dropped")
            if (value := number_of(data, name)) is not None
        },
    )


def _severity(facts: Facts) -> Severity:
    if flag_of(facts.data, "expected"):
        return "info"
    return "critical" if flag_of(facts.data, "parked") else "warning"


def _which(facts: Facts) -> str:
    data = facts.data
    first, last = number_of(data, "due_at"), number_of(data, "last_due_at")
    count = whole_of(data, "count") or 1
    if count == 1 or first is None or last is None:
        return f"the run of {_time(facts, first)} did not happen"
    many = f"more than {count:,}" if flag_of(data, "more") else f"{count:,}"
    return f"{many} runs from {_time(facts, first)} to {_time(facts, last)} did not happen"


def _because(facts: Facts, why: str | None) -> str:
    began, ended = number_of(facts.data, "from"), number_of(facts.data, "to")
    if why is None:
        return ""
    when = ""
    if began is not None and ended is not None:
        when = f" from {_time(facts, began)} to {_time(facts, ended)}"
    return f" ({why}{when})"


def _then(facts: Facts) -> str:
    data = facts.data
    if flag_of(data, "expected"):
        return "left out"
    if flag_of(data, "parked"):
        return "none will before a person starts it"
    made_up, dropped = whole_of(data, "made_up") or 0, whole_of(data, "dropped") or 0
    if not made_up:
        return "left out" if text_of(data, "policy") == "skip" else "not made up for"
    begins = number_of(data, "starts_at")
    if begins is None:
        words = "made up for when the last run ends"
    else:
        words = f"made up for {'from' if made_up > 1 else 'at'} {_time(facts, begins)}"
    if text_of(data, "policy") == "all" and made_up > 1:
        words += ", one by one"
    return words + (f"; {dropped:,} older ones are left out" if dropped else "")


def _time(facts: Facts, at: float | None) -> str:
    """Return a time on the schedule's own clock."""
    if at is None:
        return "an unknown time"
    zone = zone_of(text_of(facts.data, "timezone", 80) or "")
    return show_time(at, facts.now, zone, seconds=_is_brief(facts))


def _is_brief(facts: Facts) -> bool:
    """Tell whether minutes would not tell one time from another."""
    data = facts.data
    dues = (number_of(data, "due_at") or 0.0, number_of(data, "last_due_at") or 0.0)
    began, ended = number_of(data, "from"), number_of(data, "to")
    short = began is not None and ended is not None and ended - began < BRIEF_S
    return short or any(due % 60 >= 1 for due in dues)


def _over(facts: Facts) -> str | None:
    if facts.config.schedule is None:
        return "it has no schedule any more"
    event = facts.item.get("kind")
    if event == "run.started":
        on_time = "due_at" in facts.data and not flag_of(facts.data, "made_up")
        return "a run began on time again" if on_time else None
    lasted = number_of(facts.data, "duration_s")
    if event != "run.ended" or facts.data.get("end") != "finished" or lasted is None:
        return None
    # a run that makes up for it begins as this is told; one that was in the way had begun long before
    later = facts.item["at"] - lasted >= facts.open_kinds[KIND] - TOLD_WITHIN_S
    return "a run that came later finished" if later else None
