"""idle-burn: money is spent and nothing gets done."""

from __future__ import annotations

from typing import Final

from midwatch.core.calling import quiet
from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.findings import told
from midwatch.core.incident import Clear, Finding
from midwatch.core.states import ALIVE, State
from midwatch.core.units import show_duration, show_money

KIND = "idle-burn"

LATE_S: Final = 60.0
"""Sums of calls that were under way when the agent ended come so much later."""

QUIET_S: Final = 900.0


@detector(KIND, on=("call.ended", "beat", "agent.progress", "agent.state", "sample"))
def idle_burn(facts: Facts) -> Verdict:
    """Find cost without progress, of agents that say what they get done, and of agents that do not run.

    Money below `loop.floor_cost` is no finding, and neither is an agent that never says what it gets done.
    """
    if facts.item.get("kind") != "call.ended":
        return _over(facts)
    since = _idle_since(facts)
    if since is None or facts.outlay is None:
        return None
    spent, idle_s = facts.outlay.spent_since(since), facts.item["at"] - since
    if spent <= 0 or spent < facts.config.loop.floor_cost:
        return None
    stopped = _is_stopped(facts)
    if not stopped and idle_s < facts.config.loop.idle:
        return None
    rate = round(spent * 3600 / max(idle_s, 60.0))
    what = (
        f"it is {facts.state}, and its calls go on"
        if stopped
        else f"nothing got done for {show_duration(idle_s)}, and its calls go on"
    )
    return Finding(
        kind=KIND,
        agent=facts.agent,
        severity="warning",
        sentence=told(facts, what, f"{show_money(spent)} so far, {show_money(rate)} an hour"),
        reason=f"loop.idle {show_duration(facts.config.loop.idle)}, over {show_money(facts.config.loop.floor_cost)}",
        evidence_at=facts.item["at"],
        evidence={"since": since, "idle_s": idle_s, "spent_nusd": spent, "per_hour_nusd": rate},
    )


def _is_stopped(facts: Facts) -> bool:
    return facts.managed and facts.state is not None and State(facts.state) not in ALIVE


def _idle_since(facts: Facts) -> float | None:
    """Return since when nothing gets done; None when that cannot be known."""
    if _is_stopped(facts):
        return None if facts.state_at is None else facts.state_at + LATE_S
    if facts.progress_at is None:
        return None
    if facts.progress_at > 0:
        return facts.progress_at
    # nothing was ever done, and nobody knows when it began: what is known of its calls is
    return facts.outlay.windows[0].at - 1.0 if facts.outlay and facts.outlay.windows else None


def _over(facts: Facts) -> Verdict:
    seen_at = facts.open_kinds.get(KIND)
    if seen_at is None:
        return None
    if facts.progress_at is not None and facts.progress_at > seen_at:
        return Clear(KIND, facts.agent, "it got something done", facts.item.get("at", facts.now))
    return quiet(facts, KIND, QUIET_S)
