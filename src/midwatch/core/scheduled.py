"""What is shown of an agent's schedule: the rule in words, and its next start on the schedule's own clock."""

from __future__ import annotations

from typing import Any, Final

from midwatch.core.agentview import AgentView
from midwatch.core.schedule import Plan, in_words, show_day
from midwatch.core.states import ALIVE, State

_TOLD: Final = ALIVE | {State.SCHEDULED}
"""States in which the supervisor tells when the schedule starts the agent next."""

_COUNTED: Final = frozenset({State.BACKING_OFF, State.LOST})
"""States in which it tells of another start, or nothing: the calendar says when the next one is due."""


def schedule_of(agent: AgentView, timezone: str, now: float) -> dict[str, Any] | None:
    """Return the schedule as JSON; None for an agent without one. `timezone` is the fleet's."""
    terms = agent.config.schedule
    if terms is None:
        return None
    plan = Plan(terms, timezone, agent.name)
    at = next_of(agent, plan, now)
    return {
        "rule": in_words(terms),
        "timezone": plan.timezone,
        "next_at": at,
        "next": None if at is None else show_day(at, plan),
        "missed": terms.missed,
        "overlap": terms.overlap,
    }


def next_of(agent: AgentView, plan: Plan, now: float) -> float | None:
    """Return when the schedule starts the agent next; None when it does not, as things are."""
    if agent.state in _TOLD and agent.next_start_at is not None:
        return agent.next_start_at
    if agent.state in _TOLD | _COUNTED and agent.config.enabled:
        due = plan.after(now)
        return due.at if due else None
    return None
