"""The sentence that says how an agent is doing: what it did last, what is wrong, what was done about it.

Each state has one rule for its lead; then come the last work, today's count and the money, as far as
they are known. What is unknown is left out, never told as 0. Times are in the fleet's zone.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo
from typing import Any, Final

from midwatch.core.agentview import AgentView, Day, is_restart
from midwatch.core.causes import Cause, cause_of
from midwatch.core.exits import EXPECTED
from midwatch.core.plain import clean, flag_of, number_of, text_of
from midwatch.core.states import State
from midwatch.core.times import show_time
from midwatch.core.units import show_duration, show_money

RECENT_S: Final = 3600.0
"""For how long a restart stays the first thing that is said of a working agent."""

MAX_SENTENCE: Final = 400

_BAD_WORDS: Final = frozenset({"failed", "error", "fail"})

Lead = Callable[[AgentView, float, tzinfo], str]


def sentence_of(agent: AgentView, now: float, zone: tzinfo) -> str:
    """Return the agent's sentence, without its name."""
    lead = _LEADS[agent.state](agent, now, zone)
    parts = [lead] if lead else []
    work = _work(agent, now, zone)
    if work:
        parts.append(work)
    return clean("; ".join(parts), MAX_SENTENCE) or "nothing known yet"


# --- leads, one for each state


def _running(agent: AgentView, now: float, zone: tzinfo) -> str:
    started = agent.started
    if started is not None and now - started["at"] < RECENT_S and is_restart(_data(started)):
        cause = _failure(agent)
        after = f" after {cause.after}" if cause else ""
        return f"restarted at {show_time(started['at'], now, zone)}{after}"
    step = agent.step
    if step is not None and step["at"] >= (agent.last_beat_at or 0.0):
        return _step(step, now)
    if agent.last_beat_at is None and agent.since is not None:
        return f"running for {_ago(agent.since, now)}, no beat yet"
    return ""


def _step(step: dict[str, Any], now: float) -> str:
    data = _data(step)
    text = text_of(data, "text", 80)
    done, total = number_of(data, "done"), number_of(data, "total")
    if done is not None and total:
        return f"{done:,.0f} of {total:,.0f} done" + (f" ({text})" if text else "")
    return f"in a long step for {_ago(step['at'], now)}" + (f" ({text})" if text else "")


def _starting(agent: AgentView, now: float, zone: tzinfo) -> str:
    if not agent.managed:
        return "waiting for its first beat"
    cause = _failure(agent)
    return f"starting again after {cause.after}" if cause else "starting"


def _draining(agent: AgentView, now: float, zone: tzinfo) -> str:
    return (
        f"finishing its work for {_ago(agent.since, now)}" if agent.since else "finishing its work"
    )


def _stopped(agent: AgentView, now: float, zone: tzinfo) -> str:
    if agent.ended is None:
        return f"stopped: {agent.reason}" if agent.reason else "stopped"
    return f"{cause_of(_data(agent.ended)).did} at {show_time(agent.ended['at'], now, zone)}"


def _backing_off(agent: AgentView, now: float, zone: tzinfo) -> str:
    lead = _stopped(agent, now, zone) if agent.ended else "ended"
    if agent.next_start_at is None:
        return f"{lead}; waits for its next start"
    return f"{lead}; next start at {show_time(agent.next_start_at, now, zone, seconds=True)}"


def _parked(agent: AgentView, now: float, zone: tzinfo) -> str:
    cause = _failure(agent)
    after = f" after {cause.after}" if cause else f": {agent.reason}" if agent.reason else ""
    return f"parked{_at(agent, now, zone)}{after}, until a person starts it"


def _suspended(agent: AgentView, now: float, zone: tzinfo) -> str:
    own = next(
        (i for i in agent.incidents if any(a["do"] == "suspend" for a in i["actions"])), None
    )
    if own is not None:
        return own["sentence"].removeprefix(f"{agent.name}: ")
    reason = f" ({agent.reason})" if agent.reason else ""
    return f"suspended{_at(agent, now, zone)}{reason}, until it is resumed"


def _waiting(agent: AgentView, now: float, zone: tzinfo) -> str:
    what = f": {agent.reason}" if agent.reason else " for a person"
    return f"waits{what}" + (f", for {_ago(agent.since, now)}" if agent.since else "")


def _unhealthy(agent: AgentView, now: float, zone: tzinfo) -> str:
    last = agent.last_beat_at
    if last is None:
        return f"no sign of work{': ' + agent.reason if agent.reason else ''}"
    return f"no beat for {_ago(last, now)}, one is due every {show_duration(agent.config.heartbeat.every)}"


def _lost(agent: AgentView, now: float, zone: tzinfo) -> str:
    node = f"node {agent.node}" if agent.node else "its node"
    return f"lost: {node} no longer reports" + (_since(agent, now, zone))


def _scheduled(agent: AgentView, now: float, zone: tzinfo) -> str:
    following = (
        ""
        if agent.next_start_at is None
        else f"next run at {show_time(agent.next_start_at, now, zone)}"
    )
    last = f"last run {_stopped(agent, now, zone)}" if agent.ended else "has not run yet"
    return f"{following}, {last}" if following else last


_LEADS: Final[dict[State, Lead]] = {
    State.RUNNING: _running,
    State.STARTING: _starting,
    State.DRAINING: _draining,
    State.STOPPED: _stopped,
    State.BACKING_OFF: _backing_off,
    State.PARKED: _parked,
    State.SUSPENDED: _suspended,
    State.WAITING: _waiting,
    State.UNHEALTHY: _unhealthy,
    State.LOST: _lost,
    State.SCHEDULED: _scheduled,
}


# --- work, count, money


def _work(agent: AgentView, now: float, zone: tzinfo) -> str:
    today = agent.today(now, zone)
    parts = [_last_work(agent, now), _count(agent, today), _money(agent, today)]
    return ", ".join(p for p in parts if p)


def _last_work(agent: AgentView, now: float) -> str:
    if agent.last_beat_at is None or agent.state is State.UNHEALTHY:
        return ""
    when = _ago(agent.last_beat_at, now)
    if agent.result in _BAD_WORDS:
        error = f" ({clean(agent.error, 120)})" if agent.error else ""
        return f"its last cycle failed {when} ago{error}"
    return f"last worked {when} ago"


def _count(agent: AgentView, today: Day) -> str:
    if today.items is not None:
        unit = agent.unit or "items"
        return f"{today.items:,} {_singular(unit) if today.items == 1 else unit} today"
    if today.cycles:
        return f"{today.cycles:,} cycle{'' if today.cycles == 1 else 's'} today"
    return ""


def _money(agent: AgentView, today: Day) -> str:
    budget = agent.config.budget.per_day
    if today.cost_nusd is None:
        return ""
    spent = show_money(today.cost_nusd)
    return f"{spent} of {show_money(budget)}" if budget is not None else f"{spent} today"


# --- words


def _failure(agent: AgentView) -> Cause | None:
    """Return why the last run ended, when nobody wanted that."""
    if agent.ended is None:
        return None
    data = _data(agent.ended)
    if flag_of(data, "expected") or data.get("end") in EXPECTED:
        return None
    return cause_of(data)


def _data(item: dict[str, Any]) -> dict[str, Any]:
    return item.get("data") or {}


def _ago(at: float, now: float) -> str:
    return show_duration(max(1.0, now - at))


def _at(agent: AgentView, now: float, zone: tzinfo) -> str:
    return f" at {show_time(agent.since, now, zone)}" if agent.since is not None else ""


def _since(agent: AgentView, now: float, zone: tzinfo) -> str:
    return f" since {show_time(agent.since, now, zone)}" if agent.since is not None else ""


def _singular(unit: str) -> str:
    if unit.endswith("ies"):
        return unit[:-3] + "y"
    return unit[:-1] if unit.endswith("s") and not unit.endswith("ss") else unit
