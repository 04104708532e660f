"""hung-loop: the work loop no longer beats, though the process lives.

For an agent that a supervisor runs, the supervisor decides (it sees open calls, steps and children)
and this detector words it. For one that is known by its beats alone, the hub's own due time decides.

What explains the hang comes in two parts: where the process stood and its last lines with `run.hung`,
its stacks with `run.ended`. The incident keeps both.
"""

from __future__ import annotations

from typing import Final

from midwatch.core.detection import OVERDUE, Facts, Verdict, detector
from midwatch.core.exits import End
from midwatch.core.explanation import explained
from midwatch.core.findings import ended, evidence_of, found, told
from midwatch.core.incident import Clear, Finding
from midwatch.core.plain import number_of, text_of
from midwatch.core.recovery import WAKES, recovery
from midwatch.core.times import show_time
from midwatch.core.units import show_duration

KIND = "hung-loop"

SIGNS: Final = ("beat", "agent.step", "agent.progress")
"""What only a working loop gives."""


@detector(KIND, on=(*WAKES, *SIGNS, "run.hung", OVERDUE))
def hung_loop(facts: Facts) -> Verdict:
    """Find an agent without a sign of work; clear it on the next beat or when it is stable again."""
    if facts.item.get("kind") == "run.hung":
        return _hung(facts)
    if not facts.item:
        return _overdue(facts)
    if ended(facts, {End.HUNG}):
        reason = "the supervisor stopped it: no evidence of progress (end=hung)"
        return explained(found(KIND, facts, reason), facts)
    is_sign = facts.cycle is not None or facts.item.get("kind") in SIGNS
    return _works_again(facts) if is_sign else recovery(facts, KIND)


def _hung(facts: Facts) -> Finding:
    """Word the supervisor's verdict, given while the process still exists."""
    last = number_of(facts.data, "last_beat_at") or facts.last_beat_at
    finding = Finding(
        kind=KIND,
        agent=facts.agent,
        # without a restart nobody ends this but a person
        severity="critical" if facts.config.restart.when == "never" else "warning",
        sentence=told(
            facts,
            _silence(number_of(facts.data, "silent_s"), number_of(facts.data, "interval_s")),
            _last(facts, last),
        ),
        reason=text_of(facts.data, "reason") or "the supervisor saw no evidence of progress",
        evidence_at=facts.item["at"],
        evidence=evidence_of(facts),
    )
    return explained(finding, facts)


def _overdue(facts: Facts) -> Verdict:
    """Judge an agent that only its beats vouch for."""
    due, last = facts.beat_due_at, facts.last_beat_at
    if facts.managed or due is None or last is None or facts.now < due:
        return None
    every, missed = facts.config.heartbeat.every, facts.config.heartbeat.missed
    return Finding(
        kind=KIND,
        agent=facts.agent,
        # what the fleet file does not name may be a script that somebody ran once
        severity="critical" if facts.declared else "warning",
        sentence=told(facts, _silence(facts.now - last, every), _last(facts, last)),
        reason=f"no beat for {missed} intervals of {every:g} s; the hub has no supervisor to ask",
        evidence_at=due,
        evidence={"last_beat_at": last, "interval_s": every, "missed": missed},
    )


def _works_again(facts: Facts) -> Verdict:
    """Clear on a sign of work, unless it is an old one; a supervisor says by itself when all is well."""
    is_late = facts.beat_due_at is None or facts.now >= facts.beat_due_at
    if KIND not in facts.open_kinds or facts.managed or is_late:
        return None
    return Clear(KIND, facts.agent, "it works again", facts.now)


def _silence(silent_s: float | None, every_s: float | None) -> str:
    text = f"no beat for {show_duration(silent_s)}" if silent_s else "no sign of work"
    return text + (f", one is due every {show_duration(every_s)}" if every_s else "")


def _last(facts: Facts, last: float | None) -> str:
    return f"last worked at {show_time(last, facts.now, facts.zone, seconds=True)}" if last else ""
