"""`disconnect-mid-stream`: the client goes away; the provider is told to stop, and what was made is paid for.

Clients come and go: that is no incident.
"""

from __future__ import annotations

import time
from typing import Any

from midwatch.drills.drill import Drill, Evidence
from midwatch.drills.instance import Instance


def _leave(instance: Instance) -> Evidence:
    at = float(instance.told("evidence", 40))
    settled = instance.wait(lambda: _call(instance)["state"] == "settled", 10)
    return Evidence(at, time.time() if settled else None)


def _call(instance: Instance) -> dict[str, Any]:
    return dict(instance.gateway(f"calls/{instance.read_note('call')}"))


def _stopped_and_paid(instance: Instance) -> str | None:
    instance.wait(lambda: instance.provided.asked()[0].end != "under-way", 10)
    (asked,) = instance.provided.asked()
    if asked.end != "left":
        return f"the provider's stream ended as {asked.end!r}: it was not told to stop"
    call, billed = _call(instance), instance.provided.billed_nusd()
    if (call["outcome"], call["estimated"]) != ("gone", True):
        return f"the ledger has it as {call['outcome']!r}, estimated: {call['estimated']}"
    if not 0 < billed <= call["cost_nusd"] < 600_000:
        return f"the provider bills {billed}, the ledger says {call['cost_nusd']}"
    return None if instance.counted("calls_under_way") == 0 else "the call is still under way"


DRILL = Drill(
    name="disconnect-mid-stream",
    about="a client goes away in the middle of a stream",
    program="disconnect_mid_stream.py",
    limit_s=1.0,
    settings={"budget": {"per_day": "$1"}},
    provided=True,
    orders=({"mode": "slow", "first_token": 0, "between": "50ms", "words": 1000},),
    kind="",
    stage=_leave,
    check=_stopped_and_paid,
)
