"""Findings and incidents. A finding is a detector's verdict; an incident is what a person sees.

`kind` is the failure's id in the catalogue. One incident is open per (kind, agent, subject); a repeated
finding raises its `count`. Times are Unix seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal

SUBJECT: Final = "subject"
"""Where an incident's evidence says which one it is; no finding says it otherwise."""

Severity = Literal["info", "warning", "critical"]


class IncidentState(StrEnum):
    OPEN = "open"
    ACKED = "acked"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Finding:
    """A detector's verdict: what is wrong with whom, why, and what to do about it."""

    kind: str
    agent: str
    severity: Severity
    sentence: str
    """For a person, one sentence, numbers included."""
    reason: str
    """Which rule fired, with the values that it compared."""
    evidence_at: float
    evidence: dict[str, Any] = field(default_factory=dict[str, Any])
    do: str | None = None
    """Action that the watch asks the node for: suspend, restart, stop. None: nothing more."""
    done: tuple[str, ...] = ()
    """What the supervisor already did by itself: restart, park, kill."""
    transient: bool = False
    """True when the incident is over as soon as it is told (a gap that has ended)."""
    subject: str = ""
    """Which one, where an agent has several of a kind: of Midwatch itself the node of one of several hubs."""


@dataclass(frozen=True, slots=True)
class Clear:
    """A detector's other verdict: what was wrong is over."""

    kind: str
    agent: str
    reason: str
    at: float
    subject: str = ""
    """Of which one, as in `Finding`."""


@dataclass(slots=True)
class Action:
    do: str
    at: float
    result: str

    def to_json(self) -> dict[str, Any]:
        return {"do": self.do, "at": self.at, "result": self.result}


@dataclass(slots=True)
class Incident:
    """One row of the incident book."""

    id: str
    kind: str
    agent: str
    group: str | None
    severity: Severity
    state: IncidentState
    sentence: str
    reason: str
    evidence: dict[str, Any]
    opened_at: float
    evidence_at: float
    seen_at: float
    """When the last finding for it arrived."""
    resolved_at: float | None = None
    acked_at: float | None = None
    actions: list[Action] = field(default_factory=list[Action])
    count: int = 1

    @property
    def subject(self) -> str:
        """Return which one it is, where an agent has several of this kind; else an empty text."""
        return str(self.evidence.get(SUBJECT, ""))

    def to_json(self) -> dict[str, Any]:
        """Return the shape of `GET /api/incidents` (CONTRACT)."""
        return {
            "id": self.id,
            "kind": self.kind,
            "agent": self.agent,
            "group": self.group,
            "severity": self.severity,
            "state": self.state.value,
            "sentence": self.sentence,
            "reason": self.reason,
            "evidence": self.evidence,
            "opened_at": self.opened_at,
            "evidence_at": self.evidence_at,
            "seen_at": self.seen_at,
            "acked_at": self.acked_at,
            "resolved_at": self.resolved_at,
            "actions": [action.to_json() for action in self.actions],
            "count": self.count,
        }
