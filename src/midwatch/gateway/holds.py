"""Agents whose calls are refused: suspended, killed, caught in a loop, out of a budget that parks.

A hold is in force at once, survives the process, and ends when somebody resumes the agent. A sub-agent is held
with the agents above it. Nothing lifts a hold by itself but the next run, where the fleet file says that a loop is
answered with a restart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from midwatch.gateway.kept import Kept

MAX_WHY: Final = 500

MAX_BELOW: Final = 100
"""Sub-agents of one agent that are held by themselves; then the agent above them is."""

RESTART: Final = "restart"

MAX_RESTARTS: Final = 3
RESTARTS_S: Final = 3600.0
"""A loop that so many restarts within this time did not end is not ended by a further one: then a person is waited
for."""

GATEWAY: Final = "gateway"
"""Who holds an agent when no person does."""


class HoldKind(StrEnum):
    """Why an agent is held. A later hold of a stronger kind replaces a weaker one, never the other way."""

    SUSPENDED = "suspended"  # a person, or the supervisor for one
    KILLED = "killed"  # the kill switch
    LOOP = "loop"  # it went round in circles
    BUDGET = "budget"  # its budget is used up, and says park


_WEIGHT: Final = {
    HoldKind.BUDGET: 0,
    HoldKind.LOOP: 1,
    HoldKind.SUSPENDED: 2,
    HoldKind.KILLED: 3,
}


@dataclass(frozen=True, slots=True)
class Hold:
    """One agent that is held."""

    agent: str
    kind: HoldKind
    why: str
    since: float
    """Unix seconds."""
    by: str
    """Who holds it: a person's name, `gateway`, a supervisor."""
    run: str = ""
    """The run that went round in circles, where it is a supervisor's."""
    then: str = ""
    """What the supervisor does about it: `restart`, `stop`; nothing: it suspends."""

    @property
    def kills(self) -> bool:
        """Whether calls under way end, too."""
        return self.kind is HoldKind.KILLED

    def to_json(self) -> dict[str, Any]:
        """Return it as it is kept and told."""
        shown = {
            "agent": self.agent,
            "kind": self.kind.value,
            "why": self.why,
            "since": self.since,
            "by": self.by,
        }
        return {**shown, "run": self.run, "then": self.then} if self.then else shown


class Holds:
    """All holds of a data directory."""

    def __init__(self, path: Path, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._held: dict[str, Hold] = {}
        self._renewed: dict[str, list[float]] = {}
        """When an agent's next run was let call again, by the top of its tree."""
        self.document = Kept(path, self._read)

    def open(self) -> None:
        """Read what was held. Raises SetupError. Blocking."""
        self.document.open()
        self._read()

    def find(self, agent: str) -> Hold | None:
        """Return the hold that is in force for an agent: its own, or one of the agents above it."""
        if not self._held:
            return None
        found = self._held.get(agent)
        while found is None and ":" in agent:
            agent = agent.rpartition(":")[0]
            found = self._held.get(agent)
        return found

    def hold(
        self,
        agent: str,
        kind: HoldKind,
        why: str,
        by: str = GATEWAY,
        *,
        run: str = "",
        then: str = "",
    ) -> Hold:
        """Refuse an agent's calls from now on; on disk when `document.saved()` returns. Again is no change."""
        if ":" in agent and len(self._below(top := agent.partition(":")[0])) >= MAX_BELOW:
            agent, why = top, f"{why} (so did {MAX_BELOW} of its sub-agents)"
        held = self._held.get(agent)
        if held is not None and _WEIGHT[held.kind] >= _WEIGHT[kind]:
            return held
        fresh = Hold(agent, kind, why[:MAX_WHY], self._wall(), by[:120], run, then)
        self._held[agent] = fresh
        self.document.put(agent, fresh.to_json())
        return fresh

    def lift(self, agent: str) -> list[Hold]:
        """Let an agent and its sub-agents call again; return what was lifted."""
        names = [name for name in (agent, *self._below(agent)) if name in self._held]
        lifted = [self._held.pop(name) for name in names]
        for name in names:
            self.document.drop(name)
        return lifted

    def renew(self, agent: str, run: str) -> list[Hold]:
        """A run has begun: lift what held an earlier one until it was restarted, of its sub-agents too; return what
        was lifted."""
        lifted = [
            held
            for name in (agent, *self._below(agent))
            if (held := self._held.get(name)) is not None
            and held.kind is HoldKind.LOOP
            and held.then == RESTART
            and held.run != run
        ]
        for held in lifted:
            del self._held[held.agent]
            self.document.drop(held.agent)
        if lifted:
            self._renewed[agent] = [*self._renewed.get(agent, ()), self._wall()][-MAX_RESTARTS:]
        return lifted

    def may_restart(self, agent: str) -> bool:
        """Tell whether a restart may still help an agent that goes round in circles."""
        times = self._renewed.get(agent.partition(":")[0], [])
        return len(times) < MAX_RESTARTS or times[0] < self._wall() - RESTARTS_S

    def _below(self, agent: str) -> list[str]:
        return [name for name in self._held if name.startswith(f"{agent}:")]

    def all(self) -> list[Hold]:
        """Return all that is held, the newest first."""
        return sorted(self._held.values(), key=lambda hold: hold.since, reverse=True)

    def _read(self) -> None:
        self._held = {
            name: Hold(
                name,
                HoldKind(entry["kind"])
                if entry.get("kind") in set(HoldKind)
                else HoldKind.SUSPENDED,
                str(entry.get("why", "")),
                float(entry.get("since") or 0.0),
                str(entry.get("by", "")),
                str(entry.get("run", "")),
                str(entry.get("then", "")),
            )
            for name, entry in self.document.entries.items()
        }
