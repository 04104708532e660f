"""`double-count` (control): agent, client and gateway tell of the same two calls, and the trace costs what the ledger says."""

from __future__ import annotations

from typing import Any

from midwatch.drills.drill import AGENT, Drill
from midwatch.drills.instance import Instance

CALLS = 2
SPANS = 1 + 2 * CALLS
"""The agent's, and of each call the client's and the gateway's."""


def _trace(instance: Instance) -> dict[str, Any] | None:
    trace_id = instance.read_note("trace")
    try:
        items = instance.get("/api/traces?limit=100")["items"]
    except OSError:
        return None
    return next((item for item in items if item["trace_id"] == trace_id), None)


def _whole(instance: Instance) -> dict[str, Any] | None:
    found = _trace(instance)
    return found if found is not None and found["spans"] >= SPANS else None


def _costs_what_the_ledger_says(instance: Instance) -> str | None:
    found = instance.wait(lambda: _whole(instance), 30)
    if not isinstance(found, dict):
        return f"not all of its spans arrived: {_trace(instance)}"
    (limit,) = instance.gateway(f"budgets?agent={AGENT}")["limits"]
    billed = instance.provided.billed()
    said = (found["cost_nusd"], found["calls"], found["input_tokens"], found["output_tokens"])
    expected = (limit["spent_nusd"], CALLS, billed["input"], billed["output"])
    if said != expected:
        return f"the trace says {said} (nano-dollars, calls, tokens in and out), ledger and bill {expected}"
    return (
        None if limit["spent_nusd"] == instance.provided.billed_nusd() > 0 else "nothing was billed"
    )


DRILL = Drill(
    name="double-count",
    about="an agent's span repeats its children's tokens",
    program="double_count.py",
    limit_s=0.0,
    control=True,
    watch_s=40.0,
    settings={"budget": {"per_day": "$1"}},
    provided=True,
    check=_costs_what_the_ledger_says,
)
