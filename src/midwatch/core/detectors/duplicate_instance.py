"""duplicate-instance: another instance on this machine runs the agent already; this one did not start it."""

from __future__ import annotations

from typing import Final

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.findings import told
from midwatch.core.incident import Clear, Finding
from midwatch.core.plain import number_of, text_of, whole_of
from midwatch.core.states import State

KIND: Final = "duplicate-instance"


@detector(KIND, on=("agent.duplicate", "agent.state", "sample"))
def duplicate_instance(facts: Facts) -> Verdict:
    """Find the second holder of a lease; over when the agent is started here, or a person stops it."""
    if facts.item.get("kind") == "agent.duplicate":
        return _second(facts)
    if KIND not in facts.open_kinds or facts.state in (None, State.PARKED):
        return None
    how = "started here" if facts.state in (State.STARTING, State.RUNNING) else f"now {facts.state}"
    return Clear(KIND, facts.agent, how, facts.item.get("at", facts.now))


def _second(facts: Facts) -> Finding:
    data = facts.data
    held = text_of(data, "reason", 300) or "runs already under another instance"
    fields = {
        "pid": whole_of(data, "pid"),
        "data": text_of(data, "data"),
        "since": number_of(data, "since"),
    }
    then = "started" if facts.config.schedule is None else "its schedule is followed"
    return Finding(
        kind=KIND,
        agent=facts.agent,
        severity="warning",
        sentence=told(facts, f"not started: {held}", f"{then} here when that one lets go"),
        reason="another supervisor of this user holds the agent's lease",
        evidence_at=facts.item["at"],
        evidence={name: value for name, value in fields.items() if value is not None},
        done=("park",),
    )
