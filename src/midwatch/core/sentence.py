"""The sentence that says how an agent is doing: what it did last, what is wrong, what was done about it.

Each state has one rule for its lead; then come the last work, today's count and the money, as far as
they are known. What is unknown is left out, never told as 0. Times are in the fleet's zone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final

from midwatch.core.agentview import AgentView, data_of, is_restart
from midwatch.core.causes import Cause, cause_of
from midwatch.core.day import Day
from midwatch.core.exits import EXPECTED
from midwatch.core.plain import clean, flag_of, number_of, text_of
from midwatch.core.states import State
from midwatch.core.times import show_time, zone_of
from midwatch.core.units import show_duration, show_money
from midwatch.wire.items import Item

RECENT_S: Final = 3600.0
"""For how long a restart stays the first thing that is said of a working agent."""

MAX_SENTENCE: Final = 400

_BAD_WORDS: Final = frozenset({"failed", "error", "fail"})


@dataclass(frozen=True, slots=True)
class Look:
    """One agent at one moment, with the words for times."""

    agent: AgentView
    now: float
    zone: tzinfo

    def time(self, at: float, *, seconds: bool = False) -> str:
        return show_time(at, self.now, self.zone, seconds=seconds)

    def ago(self, at: float) -> str:
        return show_duration(max(1.0, self.now - at))

    def since(self, word: str) -> str:
        """Return ` at 02:14` (or ` since`, ` for 3 minutes`) about the state's beginning, if known."""
        since = self.agent.since
        if since is None:
            return ""
        return f" {word} {self.ago(since) if word == 'for' else self.time(since)}"


def sentence_of(agent: AgentView, now: float, zone: tzinfo) -> str:
    """Return the agent's sentence, without its name."""
    look = Look(agent, now, zone)
    parts = [part for part in (_LEADS[agent.state](look), _work(look)) if part]
    return clean("; ".join(parts), MAX_SENTENCE) or "nothing known yet"


# --- leads, one for each state


def _running(look: Look) -> str:
    agent, now = look.agent, look.now
    started = agent.started
    if started is not None and now - started["at"] < RECENT_S and is_restart(data_of(started)):
        cause = _failure(agent)
        after = f" after {cause.after}" if cause else ""
        return f"restarted at {look.time(started['at'])}{after}"
    step = agent.step
    if step is not None and step["at"] >= (agent.last_beat_at or 0.0):
        return _step(look, step)
    if agent.last_beat_at is None and not agent.managed and agent.traced_at is not None:
        return f"last span {look.ago(agent.traced_at)} ago"
    if agent.last_beat_at is None and agent.since is not None:
        return f"running for {look.ago(agent.since)}, no beat yet"
    return ""


def _step(look: Look, step: Item) -> str:
    data = data_of(step)
    text = text_of(data, "text", 80)
    words = f" ({text})" if text else ""
    done, total = number_of(data, "done"), number_of(data, "total")
    if done is not None and total:
        return f"{done:,.0f} of {total:,.0f} done{words}"
    return f"in a long step for {look.ago(step['at'])}{words}"


def _starting(look: Look) -> str:
    if not look.agent.managed:
        return "waiting for its first beat"
    cause = _failure(look.agent)
    return f"starting again after {cause.after}" if cause else "starting"


def _draining(look: Look) -> str:
    return f"finishing its work{look.since('for')}"


def _stopped(look: Look) -> str:
    agent = look.agent
    if agent.ended is None:
        return f"stopped: {agent.reason}" if agent.reason else "stopped"
    return f"{cause_of(data_of(agent.ended)).did} at {look.time(agent.ended['at'])}"


def _backing_off(look: Look) -> str:
    following = look.agent.next_start_at
    lead = _stopped(look) if look.agent.ended else "ended"
    if following is None:
        return f"{lead}; waits for its next start"
    return f"{lead}; next start at {look.time(following, seconds=True)}"


def _parked(look: Look) -> str:
    if any(i["kind"] == "duplicate-instance" for i in look.agent.incidents):
        return f"parked{look.since('at')}: {look.agent.reason}"  # no person need start it
    cause = _failure(look.agent)
    reason = f": {look.agent.reason}" if look.agent.reason else ""
    after = f" after {cause.after}" if cause else reason
    return f"parked{look.since('at')}{after}, until a person starts it"


def _suspended(look: Look) -> str:
    agent = look.agent
    for incident in agent.incidents:
        if any(action["do"] == "suspend" for action in incident["actions"]):
            return str(incident["sentence"]).removeprefix(f"{agent.name}: ")
    reason = f" ({agent.reason})" if agent.reason else ""
    left = "; its process is left" if agent.pid is not None else ""
    return f"suspended{look.since('at')}{reason}, until it is resumed{left}"


def _waiting(look: Look) -> str:
    reason = look.agent.reason or "waits for a person"
    said = reason if reason.startswith("waits ") else f"waits: {reason}"
    return f"{said}{look.since('since')}"


def _unhealthy(look: Look) -> str:
    agent = look.agent
    if agent.last_beat_at is None:
        return f"no sign of work: {agent.reason}" if agent.reason else "no sign of work"
    every = show_duration(agent.config.heartbeat.every)
    return f"no beat for {look.ago(agent.last_beat_at)}, one is due every {every}"


def _lost(look: Look) -> str:
    node = f"node {look.agent.node}" if look.agent.node else "its node"
    return f"lost: {node} no longer reports{look.since('since')}"


def _scheduled(look: Look) -> str:
    following = look.agent.next_start_at
    last = f"last run {_stopped(look)}" if look.agent.ended else "has not run yet"
    if following is None:
        return last
    terms = look.agent.config.schedule
    own = terms.timezone if terms is not None else None
    when = look.time(following)
    if own is not None and zone_of(own) != look.zone:
        when = f"{show_time(following, look.now, zone_of(own))} {own}"
    return f"next run at {when}, {last}"


_LEADS: Final[dict[State, Callable[[Look], str]]] = {
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


def _work(look: Look) -> str:
    today = look.agent.today(look.now, look.zone)
    parts = [_last_work(look), _count(look.agent, today), _money(look.agent, today)]
    return ", ".join(part for part in parts if part)


def _last_work(look: Look) -> str:
    agent = look.agent
    if agent.last_beat_at is None or agent.state is State.UNHEALTHY:
        return ""
    when = look.ago(agent.last_beat_at)
    if agent.result in _BAD_WORDS:
        error = f" ({clean(agent.error, 120)})" if agent.error else ""
        return f"its last cycle failed {when} ago{error}"
    if agent.state is State.SCHEDULED and agent.ended is not None:
        return ""  # the end of its last run was told
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
    data = data_of(agent.ended)
    if flag_of(data, "expected") or text_of(data, "end") in EXPECTED:
        return None
    return cause_of(data)


def _singular(unit: str) -> str:
    if unit.endswith("ies"):
        return unit[:-3] + "y"
    return unit[:-1] if unit.endswith("s") and not unit.endswith("ss") else unit
