"""A drill and its result. Drills are data; what only one of them needs is its `stage`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from midwatch.drills.instance import Instance

AGENT = "subject"
"""The name of the agent that misbehaves."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a stage found: when the evidence came into being, and when Midwatch showed that it knew.

    Unix seconds. `noticed_at` None lets the runner wait for the incident.
    """

    at: float
    noticed_at: float | None = None


@dataclass(frozen=True, slots=True)
class Drill:
    """One failure of the catalogue, and what Midwatch must do about it."""

    name: str
    """The id in the failure catalogue; also the incident's kind."""
    about: str
    program: str
    """File in `drills/programs`, run as the agent."""
    limit_s: float
    """Seconds from evidence to incident that are allowed: the catalogue's `within`, scaled with the intervals."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The agent's entry in the fleet file, beside its command."""
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    """More agents of the same program: their entries. Each is given its name as an argument."""
    fleet: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """More of the fleet file: models, budget, gateway."""
    provided: bool = False
    """Whether the rehearsal model plays providers behind the gateway (`drills/provided.py`)."""
    orders: tuple[Mapping[str, Any], ...] = ()
    """How those providers misbehave, the first that applies (docs/reference/rehearsal.md)."""
    kind: str | None = None
    """The incident's kind where it is not the drill's name. Empty: what goes wrong is dealt with, and no incident."""
    says: tuple[str, ...] = ()
    """Regular expressions that the incident's sentence must match."""
    actions: tuple[str, ...] = ()
    """What must have been done, by the incident's record."""
    state: str | None = None
    """The state that the agent must end in."""
    control: bool = False
    watch_s: float = 0.0
    """How long a control drill looks for false alarms."""
    also: frozenset[str] = frozenset()
    """Kinds of incident that may accompany this failure without being false alarms."""
    stage: Callable[[Instance], Evidence] | None = None
    """Makes the failure happen, for those that the program alone cannot make."""
    check: Callable[[Instance], str | None] | None = None
    """Looks at anything else that must hold; returns what does not."""


@dataclass(slots=True)
class Result:
    """What CONTRACT calls the drill result."""

    drill: str
    passed: bool = False
    detected: bool = False
    seconds_to_detect: float | None = None
    limit_s: float = 0.0
    sentence: str | None = None
    actions: list[str] = field(default_factory=list[str])
    false_alarms: int = 0
    why: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
