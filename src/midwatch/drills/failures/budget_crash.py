"""`budget-crash`: the gateway is killed with calls in flight; what they may cost counts as spent from its first
moment on, until somebody knows better."""

from __future__ import annotations

import os
import signal
import time

from midwatch.drills.drill import AGENT, Drill, Evidence
from midwatch.drills.instance import Instance

STREAMS = 4


def _kill_the_gateway(instance: Instance) -> Evidence:
    instance.wait(lambda: len((instance.read_note("pieces") or "").split()) >= 5 * STREAMS, 20)
    os.kill(instance.children()["gateway"], signal.SIGKILL)
    instance.wait(lambda: len((instance.read_note("broken") or "").split()) == STREAMS, 20)
    instance.wait(instance.carries, 20)
    at = time.time()
    counted = instance.wait(lambda: _charged(instance) >= instance.provided.billed_nusd(), 10)
    return Evidence(at, time.time() if counted else None)


def _charged(instance: Instance) -> int:
    """Return what is spent and held, 0 while nobody can tell."""
    try:
        (limit,) = instance.gateway(f"budgets?agent={AGENT}")["limits"]
    except OSError:
        return 0
    return int(limit["spent_nusd"]) + int(limit["reserved_nusd"])


def _nothing_is_forgotten(instance: Instance) -> str | None:
    instance.wait(lambda: all(c.end != "under-way" for c in instance.provided.asked()), 10)
    calls = instance.gateway(f"calls?agent={AGENT}&state=open")["calls"]
    if len(calls) != STREAMS:
        return f"{STREAMS} calls were in flight, {len(calls)} are known to be open"
    billed, charged = instance.provided.billed_nusd(), _charged(instance)
    if not 0 < billed <= charged:
        return f"the provider bills {billed}, the ledger counts {charged}"
    return None if instance.gateway("audit")["sound"] else "balances differ from the calls' sum"


DRILL = Drill(
    name="budget-crash",
    about="the gateway is killed with calls in flight",
    program="budget_crash.py",
    limit_s=2.0,
    settings={"budget": {"per_day": "$1"}},
    provided=True,
    orders=({"mode": "slow", "first_token": 0, "between": "50ms", "words": 1000},),
    says=(r"died with 4 calls in flight", r"\$[0-9.]+, counts as spent until"),
    also=frozenset({"gateway-down"}),
    stage=_kill_the_gateway,
    check=_nothing_is_forgotten,
)
