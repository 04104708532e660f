"""Alive or hung: a decision from evidence and `now`. Pure; times are monotonic seconds.

Evidence of progress is what only a working loop can give: a beat, an open model or tool call, a
declared long step, CPU used by child processes, draining. A side thread that answers, an open port
or CPU of the agent itself prove nothing. Each kind of evidence is bounded, so that nothing keeps an
agent alive for ever. Time in which it waited for a person is nobody's fault.

What is asked of an agent depends on its mode:

    heartbeat  beats, and what stands in for them
    activity   any sign: a beat, output, a call, CPU of the tree
    output     output, or a beat
    process    that its process exists, and that it does not wait for input
    none       nothing; that it waits for input is told once
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

OWN_WORK: Final = 0.03
"""Part of one core that the whole tree must use to count as active: above a side thread that polls."""


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
    work: float | None = None
    """The whole tree used the processor: proves activity, not progress."""
    waited: float | None = None
    """Until when it was known to wait for a person, or when one answered it."""

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
            # a call whose host slept may well be answered now: it is not blamed for the night
            call_open=later(self.call_open),
            step_until=later(self.step_until),
            child_work=later(self.child_work),
            draining=later(self.draining),
            work=later(self.work),
            waited=later(self.waited),
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
    due, why = _extended(evidence, last, last + patience_of(beat), beat.every, now)
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


def tree_worked(cpu_s: float, before_s: float, elapsed_s: float) -> bool:
    """Tell whether the CPU time of the whole tree between two samples counts as activity."""
    return elapsed_s > 0 and cpu_s - before_s >= max(OWN_WORK * elapsed_s, 0.02)


def patience_of(beat: Heartbeat) -> float:
    """Return for how long an agent may be silent, seconds."""
    return beat.every * beat.missed


def _last(mode: Liveness, evidence: Evidence) -> tuple[float, str]:
    e = evidence
    signs = {"heartbeat": [e.beat], "output": [e.beat, e.output]}
    seen = signs.get(mode, [e.beat, e.output, e.call, e.child_work, e.work])
    names = {"heartbeat": "beat", "output": "output"}
    known = [e.started, e.waited, *seen]
    return max(s for s in known if s is not None), names.get(mode, "activity")


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
