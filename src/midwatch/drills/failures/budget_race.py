"""`budget-race`: 64 calls at one time with money for a few: as many are made as fit, and no more."""

from __future__ import annotations

from midwatch.drills.drill import AGENT, Drill
from midwatch.drills.instance import Instance

LIMIT_NUSD = 10_000_000
CALL_NUSD = 610_000
"""What a call may cost at the most: 1,000 tokens out and a few in."""


def _no_overspend(instance: Instance) -> str | None:
    said = instance.told("said")
    refused = [one for one in said if one["status"] != 200]
    if strange := [one for one in refused if one["error"].get("type") != "midwatch_budget"]:
        return f"a call was refused as {strange[0]}"
    billed = instance.provided.billed_nusd()
    (limit,) = instance.gateway(f"budgets?agent={AGENT}")["limits"]
    if limit["spent_nusd"] != billed:
        return f"the provider bills {billed}, the ledger says {limit['spent_nusd']}"
    if billed > LIMIT_NUSD:
        return f"{billed} of {LIMIT_NUSD} nano-dollars were spent"
    if LIMIT_NUSD - billed >= CALL_NUSD:
        return f"calls were refused with room for more: {billed} of {LIMIT_NUSD} were spent"
    return None


DRILL = Drill(
    name="budget-race",
    about="64 calls at one time, with money for 16",
    program="budget_race.py",
    limit_s=1.0,
    settings={"budget": {"per_day": "$0.01"}},
    provided=True,
    orders=({"mode": "shape", "words": 1000, "first_token": "200ms"},),
    kind="budget-day",
    says=(r"used up",),
    check=_no_overspend,
)
