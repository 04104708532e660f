"""When an incident about a run is over: rules that the detectors of runner failures share.

Over means: the supervisor says that the agent is stable again; or it has run for `stable_after` since
the last finding, should that word have been lost; or a person took the decision, by starting what was
held or stopping what failed; or a later run reached its end in good order.
"""

from __future__ import annotations

from typing import Final

from midwatch.core.detection import Facts
from midwatch.core.incident import Clear
from midwatch.core.plain import number_of
from midwatch.core.states import HELD, State
from midwatch.core.units import show_duration

WAKES: Final = ("agent.recovered", "agent.state", "run.ended", "sample")
"""What wakes a detector of runner failures: what may begin or end an incident about a run."""


def recovery(facts: Facts, kind: str, *, lasts: bool = False) -> Clear | None:
    """Return a Clear with its reason when this agent's open incident of `kind` is over.

    `lasts`: it is about what a run is like, not what happened to it, and the supervisor tells its end:
    then no time in which it only went on makes it good.
    """
    seen_at = facts.open_kinds.get(kind)
    if seen_at is None:
        return None
    went_on = facts.state_at is None or facts.state_at <= seen_at
    return _clear(facts, kind, _reason(facts, None if lasts and went_on else seen_at))


def decided(facts: Facts, kind: str) -> Clear | None:
    """Return a Clear when a person ended this incident, or the restart that `loop.action` asks for; neither time nor
    an end of the run does."""
    if kind not in facts.open_kinds:
        return None
    renewed = facts.state_before == State.DRAINING and facts.state in (
        State.STARTING,
        State.RUNNING,
    )
    restarted = "restarted" if renewed and facts.config.loop.action == "restart" else None
    return _clear(facts, kind, restarted or _by_state(facts))


def _clear(facts: Facts, kind: str, reason: str | None) -> Clear | None:
    return Clear(kind, facts.agent, reason, facts.item.get("at", facts.now)) if reason else None


def _reason(facts: Facts, seen_at: float | None) -> str | None:
    """Return why it is over. `seen_at` None: time alone is no reason."""
    event = facts.item.get("kind")
    if event == "agent.recovered":
        if seen_at is None:
            return None
        stable = number_of(facts.data, "stable_s")
        return f"stable for {show_duration(stable)}" if stable else "stable again"
    if event == "run.ended":
        end = facts.data.get("end")
        if end == "finished":
            return "a later run finished in good order"
        return "stopped or restarted by a person" if end == "operator" else None
    return _by_state(facts) or (None if seen_at is None else _by_time(facts, seen_at))


def _by_state(facts: Facts) -> str | None:
    before, after = facts.state_before, facts.state
    if before is None or before == after:
        return None
    if before == State.SUSPENDED and after == State.RUNNING:
        return "resumed"
    if before in HELD and after in (State.STARTING, State.RUNNING):
        return "started again"
    if after == State.STOPPED and before in (State.PARKED, State.SUSPENDED, State.BACKING_OFF):
        return "stopped by a person"
    if before == State.UNHEALTHY and after == State.RUNNING:
        return "signs of work came after all"
    return None


def _by_time(facts: Facts, seen_at: float) -> str | None:
    if facts.state != State.RUNNING or facts.state_at is None:
        return None
    calm = facts.now - max(facts.state_at, seen_at)
    if calm < facts.config.restart.stable_after:
        return None
    return f"running for {show_duration(calm)} without a failure"
