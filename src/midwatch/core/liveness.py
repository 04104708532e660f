"""Alive or hung: a decision from evidence and `now`. Pure; times are monotonic seconds.

Evidence of progress is what only a working loop can give: a beat, an open model or tool call, a
declared long step, CPU used by child processes, draining. A side thread that answers, an open port
or CPU of the agent itself prove nothing. Each kind of evidence is bounded, so that nothing keeps an
agent alive for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from midwatch.core import units
from midwatch.core.quantities import Liveness
from midwatch.core.terms import Heartbeat

MAX_CALL_S: Final = 3600.0
"""How long one open call counts as progress. Model calls of ten minutes and tools of forty are real."""

MAX_STEP_S: Final = 86_400.0
"""How long a declared step may be: whoever needs more beats in between."""

MAX_CHILD_WORK_S: Final = 6 * 3600.0
"""How long busy child processes stand in for beats, counted from the last beat."""

MAX_DRAIN_S: Final = 600.0
"""How long an announced clean-up counts as progress."""

CHILD_WORK: Final = 0.01
"""Part of one core that children must use to count as working: above idle timers, below a download."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """When each sign of life was last seen."""

    started: float
    beat: float | None = None
    output: float | None = None
    call: float | None = None
    """A call opened or ended."""
    call_open: float | None = None
    """Since when a call has been open."""
    step_until: float | None = None
    child_work: float | None = None
    draining: float | None = None

    def shifted(self, by_s: float) -> Evidence:
        """Return the same evidence as if `by_s` had not passed: we, or the host, stood still."""

        def later(value: float | None) -> float | None:
            return None if value is None else value + by_s

        return replace(
            self,
            started=self.started + by_s,
            beat=later(self.beat),
            output=later(self.output),
            call=later(self.call),
            step_until=later(self.step_until),
            child_work=later(self.child_work),
        )


@dataclass(frozen=True, slots=True)
class Judgement:
    """Hung or not, why, and when to look again (None: when the next evidence comes)."""

    hung: bool
    reason: str
    look_at: float | None = None
    silent_s: float = 0.0
    missed: int = 0


def mode_of(wanted: Liveness | None, evidence: Evidence) -> Liveness:
    """Return the mode that applies: by default, heartbeat as soon as the agent has beaten once."""
    if wanted is not None:
        return wanted
    return "heartbeat" if evidence.beat is not None else "process"


def judge(wanted: Liveness | None, beat: Heartbeat, evidence: Evidence, now: float) -> Judgement:
    """Tell whether the agent is hung.

    1. The patience is `missed` intervals from the last evidence of the mode.
    2. What the agent declared, or its children do, moves the end of the patience.
    3. Before the end a look is due, so that two samples of the children's CPU can be compared.
    """
    mode = mode_of(wanted, evidence)
    if mode in ("process", "none"):
        return Judgement(False, f"liveness is {mode}: the process exists")
    last, sign = _last(mode, evidence)
    due, why = _extended(evidence, last, last + beat.every * beat.missed, beat.every, now)
    silent = now - last
    missed = int(silent / beat.every) if beat.every > 0 else 0
    if now < due:
        look = due - (beat.every if beat.missed > 1 else beat.every / 2)
        return Judgement(
            False,
            why or f"last {sign} {units.show_duration(silent)} ago",
            look if look > now else due,
            silent,
            missed,
        )
    never = evidence.beat is None and mode == "heartbeat"
    since = "since its start" if never else f"for {units.show_duration(silent)}"
    reason = (
        f"no {sign} {since}: one is due every {units.show_duration(beat.every)},"
        f" {missed} missed; {_excuse(evidence, now)}"
    )
    return Judgement(True, reason, None, silent, missed)


def child_worked(cpu_s: float, before_s: float, elapsed_s: float) -> bool:
    """Tell whether the children's CPU time between two samples counts as work."""
    return elapsed_s > 0 and cpu_s - before_s >= max(CHILD_WORK * elapsed_s, 0.02)


def _last(mode: Liveness, evidence: Evidence) -> tuple[float, str]:
    signs = {"heartbeat": [evidence.beat], "output": [evidence.beat, evidence.output]}
    seen = signs.get(mode, [evidence.beat, evidence.output, evidence.call, evidence.child_work])
    names = {"heartbeat": "beat", "output": "output"}
    return max([evidence.started, *(s for s in seen if s is not None)]), names.get(mode, "activity")


def _excuse(evidence: Evidence, now: float) -> str:
    """Return what was no reason, or no longer one, to wait."""
    if evidence.call_open is None:
        return "no open call, declared step or working child"
    opened = units.show_duration(now - evidence.call_open)
    return f"a call has been open for {opened}, of which {units.show_duration(MAX_CALL_S)} excuse silence"


def _extended(
    evidence: Evidence, last: float, due: float, every: float, now: float
) -> tuple[float, str]:
    """Return the end of the patience and what moved it."""
    patience = due - last
    options = [(due, "")]
    if evidence.step_until is not None:
        until = min(evidence.step_until, last + MAX_STEP_S)
        options.append((until + every, "in a declared long step"))
    if evidence.call_open is not None:
        options.append((min(now + every, evidence.call_open + MAX_CALL_S), "in an open call"))
    elif evidence.call is not None:
        options.append((evidence.call + patience, "a call ended"))
    if evidence.child_work is not None:
        options.append(
            (
                min(evidence.child_work + patience, last + MAX_CHILD_WORK_S),
                "its child processes work",
            )
        )
    if evidence.draining is not None:
        options.append((evidence.draining + MAX_DRAIN_S, "draining"))
    return max(options, key=lambda option: option[0])
