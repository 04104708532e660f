"""`budget-day`: the day's money is used up; a warning at 80%, then calls are refused before they are made."""

from __future__ import annotations

import time

from midwatch.drills.drill import AGENT, Drill, Evidence
from midwatch.drills.instance import Instance

LIMIT_NUSD = 2_000_000


def _spend_it(instance: Instance) -> Evidence:
    """The incident begins with the warning; what counts is when it says that nothing is left."""
    instance.told("refused", 40)
    at = float(instance.told("evidence"))
    used_up = instance.wait(
        lambda: any("used up" in one["sentence"] for one in instance.incidents()), 20
    )
    return Evidence(at, time.time() if used_up else at + 20)


def _refused_before_it_was_made(instance: Instance) -> str | None:
    refused, calls = instance.told("refused"), instance.told("calls")
    error = refused["error"]
    if (refused["status"], error.get("type")) != (429, "midwatch_budget"):
        return f"the call was refused with {refused['status']} {error}"
    if not int(refused.get("retry-after", 0)) or refused.get("x-should-retry") != "false":
        return f"the refusal does not say when to come back, and that waiting is not for a client: {refused}"
    billed, made = instance.provided.billed_nusd(), len(instance.provided.asked("openai"))
    if made != calls - 1 or billed > LIMIT_NUSD:
        return f"{made} of {calls} calls reached the provider, which bills {billed} of {LIMIT_NUSD}"
    (limit,) = instance.gateway(f"budgets?agent={AGENT}")["limits"]
    if (limit["spent_nusd"], limit["reserved_nusd"]) != (billed, 0):
        return f"the provider bills {billed}, the ledger says {limit}"
    seen = next(one["count"] for one in instance.incidents() if one["kind"] == "budget-day")
    return None if seen >= 2 else "no warning came before the end"


DRILL = Drill(
    name="budget-day",
    about="the day's money is used up",
    program="budget_day.py",
    limit_s=1.0,
    settings={"budget": {"per_day": "$0.002"}},
    provided=True,
    orders=({"mode": "shape", "words": 1000},),
    says=(r"used up", r"\$0\.002", r"refused until"),
    stage=_spend_it,
    check=_refused_before_it_was_made,
)
