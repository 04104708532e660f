"""How detectors turn what the supervisor reports into findings: read, worded, bounded.

The supervisor decides why a run ended; a detector takes the ends that are its own and words them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from midwatch.core.causes import cause_of, done_of, next_of
from midwatch.core.detection import MIDWATCH, Facts
from midwatch.core.family import parent_of
from midwatch.core.incident import Finding, Severity
from midwatch.core.plain import clean, flag_of, number_of, text_of, whole_of
from midwatch.core.times import show_time
from midwatch.core.units import show_duration, show_money

LOOP_FAILURES: Final = 3
"""Failed starts in a row that make a crash loop (the catalogue's "3 failed starts")."""

MAX_SENTENCE: Final = 400


def told(facts: Facts, *clauses: str) -> str:
    """Return `agent: clause; clause`, bounded, without empty clauses."""
    return clean(f"{facts.agent}: " + "; ".join(c for c in clauses if c), MAX_SENTENCE)


def ended(facts: Facts, ends: Collection[str]) -> bool:
    """Tell whether the item reports an unwanted end that is one of `ends`."""
    if facts.item.get("kind") != "run.ended":
        return False
    end = facts.data.get("end")
    return isinstance(end, str) and end in ends and not flag_of(facts.data, "expected")


@dataclass(frozen=True, slots=True)
class Gap:
    """A time when a part of Midwatch was away. Unix seconds; None: not reported."""

    began: float | None
    ended: float | None
    length_s: float | None

    @property
    def lasted(self) -> str:
        return "" if self.length_s is None else f" for {show_duration(self.length_s)}"

    def since(self, facts: Facts, words: str) -> str:
        """Return `words` and `02:11:57`, or nothing."""
        if not self.began:
            return ""
        return words + show_time(self.began, facts.now, facts.zone, seconds=True)

    def to_json(self) -> dict[str, object]:
        return {"from": self.began, "to": self.ended, "gap_s": self.length_s}


def gap_of(facts: Facts) -> Gap:
    """Read the gap that an event of Midwatch itself reports."""
    began, ended = number_of(facts.data, "from"), number_of(facts.data, "to")
    length = number_of(facts.data, "gap_s")
    if length is None and began is not None and ended is not None:
        length = max(0.0, ended - began)
    return Gap(began, ended, length)


def was_down(kind: str, facts: Facts, what: str, meanwhile: str) -> Finding | None:
    """Tell of a server of Midwatch that was away; it is over, or the hub would not hear of it."""
    if facts.agent != MIDWATCH:
        return None
    gap = gap_of(facts)
    why = text_of(facts.data, "reason")
    down = f"the {what} was down{gap.lasted}{gap.since(facts, ', since ')}"
    return Finding(
        kind=kind,
        agent=MIDWATCH,
        severity="warning",
        sentence=told(facts, down + (f" ({why})" if why else ""), meanwhile),
        reason=why or f"the supervisor could not reach the {what}",
        evidence_at=gap.ended or facts.item["at"],
        evidence=gap.to_json(),
        transient=True,
    )


def failures_of(facts: Facts) -> int:
    """Return how many times in a row the agent has failed, this time included."""
    return max(1, whole_of(facts.data, "failures") or 1)


def parked(facts: Facts) -> bool:
    """Tell whether the agent stays down until a person acts."""
    return facts.data.get("next") == "park"


def severity_of(facts: Facts) -> Severity:
    """Return critical when a person is needed: parked, or down and not scheduled again. Not for a
    sub-agent, which its parent answers for."""
    if parent_of(facts.agent) is not None:
        return "warning"
    if parked(facts):
        return "critical"
    stays_down = facts.data.get("next") == "stop" and facts.config.schedule is None
    return "critical" if stays_down else "warning"


def found(kind: str, facts: Facts, reason: str, *clauses: str) -> Finding:
    """Return the finding for a reported end: cause, `clauses`, what happens next."""
    return Finding(
        kind=kind,
        agent=facts.agent,
        severity=severity_of(facts),
        sentence=told(facts, cause_of(facts.data).did, *clauses, next_of(facts.data)),
        reason=reason,
        evidence_at=facts.item["at"],
        evidence=evidence_of(facts),
        done=done_of(facts.data),
        # nobody starts that sub-agent again: no later run could end its incident
        transient=parent_of(facts.agent) is not None,
    )


def evidence_of(facts: Facts) -> dict[str, object]:
    """Return what the report says, bounded: numbers, names and the last lines of output."""
    data = facts.data
    evidence: dict[str, object] = {} if facts.run_id is None else {"run_id": facts.run_id}
    for name, read in _EVIDENCE.items():
        value = read(data, name)
        if value is not None:
            evidence[name] = value
    tail = data.get("tail")
    if isinstance(tail, list) and tail:
        evidence["tail"] = [clean(t, 400) for t in tail[-20:] if isinstance(t, str)]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    elif isinstance(tail, str) and tail:
        evidence["tail"] = [clean(t, 400) for t in tail.splitlines()[-20:]]
    return evidence


_EVIDENCE: Final[dict[str, Callable[..., object]]] = {
    "run_id": text_of,
    "pid": whole_of,
    "end": text_of,
    "reason": text_of,
    "exit_code": whole_of,
    "signal": whole_of,
    "duration_s": number_of,
    "rss_bytes": number_of,
    "rss_limit_bytes": number_of,
    "rss_slope_bytes_h": number_of,
    "failures": whole_of,
    "credential": text_of,
    "said": text_of,
    "retry_after_s": number_of,
    "identical": whole_of,
    "last_beat_at": number_of,
    "silent_s": number_of,
    "interval_s": number_of,
    "missed": whole_of,
}


FRESH_S: Final = 900.0
"""What is older, out of a spool, is told but not acted upon: the agent may be another by now."""


_ACTIONS: Final = frozenset({"suspend", "restart", "stop"})


def held_by(facts: Facts) -> tuple[str | None, str]:
    """Return the action for an agent whose calls the gateway refuses from now on, and the clause about it."""
    told_action = text_of(facts.data, "then", 20)
    action = told_action if told_action in _ACTIONS else facts.config.loop.action
    fresh = facts.now - facts.item["at"] <= FRESH_S
    since = show_time(facts.item["at"], facts.now, facts.zone, seconds=True)
    spent = whole_of(facts.data, "spent_nusd")
    after = f" after {show_money(spent)}" if spent else ""
    do = action if facts.managed and fresh and action != "notify" else None
    return do, f"its calls are refused since {since}{after}"


def same_again(facts: Facts) -> str:
    """Return `the same failure twice`, when it was."""
    count = whole_of(facts.data, "identical") or 0
    if count < 2:
        return ""
    return "the same failure twice" if count == 2 else f"the same failure {count} times"


def times(count: int, noun: str) -> str:
    """Return `1 attempt`, `3 attempts`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
