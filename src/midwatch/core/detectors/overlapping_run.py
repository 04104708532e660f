"""overlapping-run: the schedule is due while the last run still works.

Over when a run has come to its end before the next one was due.
"""

from __future__ import annotations

from typing import Final

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.findings import told
from midwatch.core.incident import Clear, Finding, Severity
from midwatch.core.plain import flag_of, number_of, text_of, whole_of
from midwatch.core.times import show_time, zone_of
from midwatch.core.units import show_duration

KIND = "overlapping-run"

_THEN: Final = {
    "skip": "left out",
    "queue": "put off until it ends",
    "full": "left out, one waits already",
    "replace": "it is stopped, and a new run takes its place",
}
_SEVERITY: Final[dict[str, Severity]] = {"queue": "info"}


@detector(KIND, on=("schedule.overlap", "run.ended", "sample"))
def overlapping_run(facts: Facts) -> Verdict:
    """Find a start that fell due during a run: since when that one works, and what the policy did."""
    if facts.item.get("kind") == "schedule.overlap":
        return _found(facts)
    seen_at = facts.open_kinds.get(KIND)
    reason = _over(facts, seen_at) if seen_at is not None else None
    return Clear(KIND, facts.agent, reason, facts.item["at"]) if reason else None


def _found(facts: Facts) -> Finding:
    data = facts.data
    then = text_of(data, "then", 20) or ""
    due, ran = number_of(data, "due_at"), number_of(data, "ran_s")
    count = whole_of(data, "count") or 1
    zone = zone_of(text_of(data, "timezone", 80) or "")
    first = "an unknown time"
    if due is not None:
        first = show_time(due, facts.now, zone, seconds=due % 60 >= 1)
    which = f"the run of {first} was due"
    if count > 1:
        more = "more than " if flag_of(data, "more") else ""
        which = f"{more}{count:,} runs from {first} on were due"
    works = (
        f" while the last one still works, since {show_duration(ran)}"
        if ran
        else " while one works"
    )
    return Finding(
        kind=KIND,
        agent=facts.agent,
        severity=_SEVERITY.get(then, "warning"),
        sentence=told(facts, which + works, _THEN.get(then, "")),
        reason=f"due during a run; overlap is {text_of(data, 'policy', 20) or 'unknown'}",
        evidence_at=facts.item["at"],
        evidence={
            name: value
            for name in ("due_at", "last_due_at", "count", "started_at", "ran_s")
            if (value := number_of(data, name)) is not None
        },
        done=("restart",) if then == "replace" else (),
    )


def _over(facts: Facts, seen_at: float) -> str | None:
    if facts.config.schedule is None:
        return "it has no schedule any more"
    if facts.item.get("kind") != "run.ended":
        return None
    lasted = number_of(facts.data, "duration_s")
    if lasted is None or facts.item["at"] - lasted <= seen_at:
        return None  # this is the run that was in the way
    return f"a run ended after {show_duration(lasted)}, before the next was due"
