"""The fleet view: the read model of the fleet, a fold over committed items.

The watch alone feeds it; API and pages read it through `core.ports.FleetReader`. Rebuilt at start from
`AgentHistory` rows. Nothing here asks a clock: `now` comes in. Unknown agents that report are taken up,
up to MAX_AGENTS.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from midwatch.core.agentview import MAX_DRIFT, AgentView, data_of, dollars
from midwatch.core.calls.news import News
from midwatch.core.detection import MIDWATCH
from midwatch.core.family import parent_of
from midwatch.core.fleet import Agent, Fleet
from midwatch.core.history import AgentHistory
from midwatch.core.incident import Incident
from midwatch.core.loop import Cycle
from midwatch.core.plain import text_of, texts_of
from midwatch.core.scheduled import schedule_of
from midwatch.core.sentence import sentence_of
from midwatch.core.spans.digest import Seen
from midwatch.core.states import ALIVE, State
from midwatch.core.times import zone_of
from midwatch.core.versions import shown
from midwatch.wire.items import Item, Kind

MAX_ENDED: Final = 20
"""Sub-agents of one agent that have ended and are still shown, besides those with open incidents."""

MAX_AGENTS: Final = 5_000
"""Agents that are kept, named by the fleet file or not; more unknown names are counted and left out."""

LOST_AFTER_S: Final = 45.0
"""A node that is silent for so long is lost: samples come every 10 s."""

FORGET_AFTER_S: Final = 86_400.0
"""An agent that the fleet file does not name is forgotten after so long without a word."""

WORKING: Final = frozenset({State.STARTING, State.RUNNING, State.DRAINING})

_SUPERVISED: Final = frozenset(
    {"agent.state", "run.started", "run.ended", "run.hung", "run.waiting", "agent.recovered"}
)
_INSTANCE: Final = re.compile(r"(.+)\.(\d{1,3})")
"""The name of one of several instances, for example `inbox.2`."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one item did to the view."""

    agent: AgentView
    is_news: bool
    """False for a duplicate, or a report that a newer one has overtaken."""
    state_before: State
    cycle: Cycle | None = None


class FleetView:
    """Implements `core.ports.FleetReader`. `node` names the machine of the hub."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        node: str,
        now: float,
        lost: Callable[[], dict[str, int]] | None = None,
    ) -> None:
        self._agents: dict[str, AgentView] = {}
        self._names: list[str] | None = None
        self._node = node
        self._since = now
        self._lost = lost
        self._sdk_lost: dict[str, int] = {}
        self._nodes: dict[str, float] = {node: now}
        self._silent: set[str] = set()
        self._stopping = False
        self._due: list[tuple[float, str]] = []
        self._queued: set[str] = set()
        self._own_incidents = 0
        self.gaps: Sequence[Item] = ()
        """What the store knew of gaps of Midwatch itself, for whoever judges it once more."""
        self.refused_agents = 0
        """Items of unknown agents beyond MAX_AGENTS."""
        self.reload(fleet)

    # --- feeding

    def restore(self, histories: Iterable[AgentHistory], now: float) -> None:
        """Take what the store knew at start; call once, before the first `apply`."""
        for history in histories:
            if history.agent == MIDWATCH:
                self.gaps = history.gaps
                continue
            agent = self._get(history.agent)
            if agent is None:
                continue
            agent.restore(history, now, self.zone)
            if not agent.declared and _is_gone(agent, now):
                del self._agents[agent.name]
        self._names = None
        self._queue_all()

    def reload(self, fleet: Fleet) -> list[str]:
        """Take a new fleet file; return the names of agents that left the view."""
        self._fleet = fleet
        self.zone = zone_of(fleet.timezone)
        self._names = None
        gone: list[str] = []
        for agent in list(self._agents.values()):
            config = self._config(agent.name)
            if config is not None:
                agent.config, agent.declared = config, True
                agent.reckon(self._since)
            elif agent.declared:
                agent.declared = False
                if not agent.alive or agent.state_at is None:
                    del self._agents[agent.name]
                    gone.append(agent.name)
            elif agent.managed and not agent.alive:
                # it left the file with an earlier load, and has ended since
                del self._agents[agent.name]
                gone.append(agent.name)
        for name, config in fleet.agents.items():
            # of several instances each reports under a name of its own
            if name not in self._agents and config.instances == 1:
                self._agents[name] = AgentView(name, config, declared=True)
                self._agents[name].reckon(self._since)
        self._queue_all()
        return gone

    def apply(self, kind: Kind, item: Item, now: float) -> Change | None:
        """Fold one item. Returns None for what is not about an agent of the fleet."""
        name: str = item["agent"]
        if name == MIDWATCH:
            self._stopping = self._stopping or item.get("kind") == "node.stopping"
            if item.get("kind") in ("sdk.lost", "node.lost"):
                self._take_lost(item, "node")
            return None
        agent = self._agents.get(name)
        if agent is None:
            if _is_last_word(kind, item):
                return None
            agent = self._get(name)
            if agent is None:
                return None
        before = agent.state
        is_news, cycle = self._fold(agent, kind, item, now)
        if before in ALIVE and agent.state not in ALIVE and ":" in name:
            self._thin(name)
        if agent.due_at is not None and name not in self._queued:
            self._queue(agent)
        return Change(agent, is_news, before, cycle)

    def see(self, name: str, seen: Seen, now: float) -> bool:
        """Fold what an agent's spans of one commit come to. Returns whether it looks different now.

        Spans are no beats, and nobody is late because of them. Agents of the fleet file are judged by what they
        report themselves; one that sends spans alone is there, and at work, while it sends them.
        """
        at = min(now, seen.newest_ns / 1e9)
        agent = self._agents.get(name)
        if agent is None:
            # a spool of yesterday says nothing of today, and a sub-agent is shown when it reports
            if name == MIDWATCH or ":" in name or now - at > FORGET_AFTER_S:
                return False
            agent = self._get(name)
            if agent is None:
                return False
        return agent.take_spans(at, now)

    def _fold(
        self, agent: AgentView, kind: Kind, item: Item, now: float
    ) -> tuple[bool, Cycle | None]:
        if kind is Kind.BEAT:
            is_news = agent.take_beat(item, now, self.zone)
            return is_news, agent.cycle if is_news else None
        if kind is Kind.SAMPLE:
            self._node_reports(agent.node or self._node, now)
            return agent.take_sample(item, now), None
        if kind is Kind.RUN:
            agent.take_run(item, now)
            return True, agent.open_cycle(item)
        return self._fold_event(agent, item, now), None

    def _fold_event(self, agent: AgentView, item: Item, now: float) -> bool:
        event = item["kind"]
        if event in _SUPERVISED:
            self._node_reports(agent.node or self._node, now)
        if event == "agent.state":
            is_news = agent.take_state(item, now)
            self._node_reports(agent.node or self._node, now)
            return is_news
        if event == "run.started":
            self._end_family(agent, item)
            return agent.take_started(item, now, self.zone)
        if event == "run.ended":
            return agent.take_ended(item, now)
        if event == "run.revision":
            agent.take_revision(item)
        elif event == "agent.drift":
            agent.drift = texts_of(data_of(item), "drift", MAX_DRIFT)
        elif event == "run.unmeasured":
            agent.unmeasured = item
        elif event == News.ENDED:
            agent.take_calls(item, self.zone)
        elif event in ("agent.step", "agent.progress"):
            agent.take_step(item, now)
        elif event == "agent.draining" and not agent.managed:
            agent.due_at = None
        elif event == "sdk.lost":
            self._take_lost(item, "sdk")
        return True

    def _end_family(self, agent: AgentView, item: Item) -> None:
        """A new run begins: sub-agents of the earlier one are over, though nobody may have said so.
        What outlives its parent says in its next sample that it lives."""
        head = f"{agent.name}:"
        for name, sub in self._agents.items():
            if name.startswith(head) and sub.state in ALIVE and (sub.state_at or 0.0) < item["at"]:
                sub.end_with(agent.name, item["at"])

    def _thin(self, name: str) -> None:
        """Keep, of an agent's sub-agents that have ended, those that ended last: an orchestrator may
        give each a name of its own."""
        head = name.split(":")[0] + ":"
        ended = [
            sub
            for sub in self._agents.values()
            if sub.name.startswith(head) and sub.state not in ALIVE and not sub.incidents
        ]
        if len(ended) > MAX_ENDED:
            for sub in sorted(ended, key=lambda sub: sub.state_at or 0.0)[:-MAX_ENDED]:
                del self._agents[sub.name]
            self._names = None

    def _take_lost(self, item: Item, by: str) -> None:
        counts: Any = data_of(item).get("counts")
        if not isinstance(counts, dict):
            return
        for reason, count in list(counts.items())[:20]:  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            name = f"{by}:{text_of({'reason': reason}, 'reason', 40)}"
            known = name in self._sdk_lost or len(self._sdk_lost) < 50
            if known and isinstance(count, int) and 0 < count < 10**12:
                self._sdk_lost[name] = self._sdk_lost.get(name, 0) + count

    def set_incidents(self, agent: str, incidents: Sequence[Incident]) -> None:
        """Take the incidents of one agent that are not resolved."""
        if agent == MIDWATCH:
            self._own_incidents = len(incidents)
            return
        view = self._agents.get(agent)
        if view is not None:
            view.incidents = [i.to_json() for i in incidents]
            view.open_kinds = {i.kind: i.seen_at for i in incidents}

    # --- time

    def overdue(self, now: float) -> list[AgentView]:
        """Return agents whose beat has become overdue; each is returned once per silence."""
        late: list[AgentView] = []
        while self._due and self._due[0][0] <= now:
            name = heapq.heappop(self._due)[1]
            self._queued.discard(name)
            agent = self._agents.get(name)
            if agent is None or agent.due_at is None:
                continue
            if agent.due_at > now:
                self._queue(agent)
                continue
            agent.overdue(now)
            late.append(agent)
        return late

    def lose_silent(self, now: float) -> list[AgentView]:
        """Mark agents of nodes that have gone silent as lost; return them."""
        lost: list[AgentView] = []
        if self._stopping:
            return lost
        for node, seen_at in self._nodes.items():
            if node in self._silent or now - seen_at < LOST_AFTER_S:
                continue
            self._silent.add(node)
            for agent in self._agents.values():
                here = (agent.node or self._node) == node
                if here and agent.managed and agent.alive and agent.state_at is not None:
                    agent.lose(now)
                    lost.append(agent)
        return lost

    def excuse(self, gap_s: float) -> None:
        """Take it that the hub stood still for so long (below 0: its clock was set back by so much).

        Nobody is late because of that, and nobody is given more time.
        """
        for agent in self._agents.values():
            agent.excuse(gap_s)
        self._nodes = {node: seen_at + gap_s for node, seen_at in self._nodes.items()}
        self._queue_all()

    def forget(self, now: float) -> list[str]:
        """Drop agents that the fleet file does not name: those that ended, those long silent."""
        gone = [a.name for a in self._agents.values() if not a.declared and _is_gone(a, now)]
        for name in gone:
            del self._agents[name]
        if gone:
            self._names = None
        return gone

    def next_due(self) -> float | None:
        """Return when `overdue` has something to look at, or None."""
        return self._due[0][0] if self._due else None

    def _queue(self, agent: AgentView) -> None:
        assert agent.due_at is not None
        heapq.heappush(self._due, (agent.due_at, agent.name))
        self._queued.add(agent.name)

    def _queue_all(self) -> None:
        self._due = [(a.due_at, a.name) for a in self._agents.values() if a.due_at is not None]
        heapq.heapify(self._due)
        self._queued = {name for _, name in self._due}

    def _node_reports(self, node: str, now: float) -> None:
        self._nodes[node] = now
        self._silent.discard(node)
        self._stopping = False

    # --- agents

    def look(self, name: str) -> AgentView | None:
        """Return the agent's view for detectors; None when it is unknown."""
        return self._agents.get(name)

    def _get(self, name: str) -> AgentView | None:
        agent = self._agents.get(name)
        if agent is not None:
            return agent
        if len(self._agents) >= MAX_AGENTS:
            self.refused_agents += 1
            return None
        config = self._config(name)
        agent = AgentView(name, config or self._stranger(name), declared=config is not None)
        self._agents[name] = agent
        self._names = None
        return agent

    def _config(self, name: str) -> Agent | None:
        config = self._fleet.agents.get(name)
        if config is not None:
            return config
        match = _INSTANCE.fullmatch(name)
        base = self._fleet.agents.get(match[1]) if match else None
        return base if base is not None and base.instances > 1 else None

    def _stranger(self, name: str) -> Agent:
        """Return the settings of an agent that the fleet file does not name: the defaults, and for a
        sub-agent its parent's group."""
        defaults = self._fleet.defaults
        parent = self._config(name.split(":")[0])
        return Agent(
            external=True,
            group=parent.group if parent is not None else None,
            heartbeat=defaults.heartbeat,
            loop=defaults.loop,
            budget=defaults.budget,
        )

    # --- reading

    def names(self) -> Sequence[str]:
        if self._names is None:
            # a sub-agent stands behind its parent
            self._names = sorted(self._agents, key=lambda name: name.split(":"))
        return self._names

    def agent(self, name: str, now: float) -> dict[str, Any] | None:
        view = self._agents.get(name)
        return None if view is None else self._to_json(view, now)

    def agents(self, now: float) -> list[dict[str, Any]]:
        return [self._to_json(self._agents[name], now) for name in self.names()]

    def fleet(self, now: float) -> dict[str, Any]:
        cost: int | None = None
        cycles = 0
        for agent in self._agents.values():
            today = agent.today(now, self.zone)
            cycles += today.cycles
            if today.cost_nusd is not None and not self._is_paid_above(agent, now):
                cost = (cost or 0) + today.cost_nusd
        known = self._lost() if self._lost is not None else {}
        return {
            "fleet": self._fleet.fleet,
            "node": self._node,
            "timezone": self._fleet.timezone,
            "agents": len(self._agents),
            "working": sum(a.state in WORKING for a in self._agents.values()),
            "open_incidents": self._own_incidents
            + sum(len(a.incidents) for a in self._agents.values()),
            "today": {"cost_usd": dollars(cost), "cycles": cycles},
            "since": self._since,
            "lost": {**known, **self._sdk_lost},
        }

    def _is_paid_above(self, agent: AgentView, now: float) -> bool:
        """Whether a sub-agent's calls are carried with its parent's key, and are in its parent's sum."""
        parent = self._agents.get(agent.name.split(":")[0]) if ":" in agent.name else None
        if parent is None or agent.today(now, self.zone).is_carried:
            return False
        return parent.today(now, self.zone).is_carried

    def _to_json(self, agent: AgentView, now: float) -> dict[str, Any]:
        cycle = agent.cycle
        today = agent.today(now, self.zone)
        beaten = agent.last_beat_at is not None
        return {
            "agent": agent.name,
            "parent": parent_of(agent.name),
            "group": agent.config.group,
            "node": agent.node or (self._node if agent.managed else None),
            "state": agent.state.value,
            "since": agent.since,
            "sentence": sentence_of(agent, now, self.zone),
            "reason": agent.reason,
            "run_id": agent.run_id,
            "pid": agent.pid,
            "next_start_at": agent.next_start_at,
            "schedule": schedule_of(agent, self._fleet.timezone, now),
            "last_beat": agent.last_beat_at,
            "cycle": {
                "tokens": cycle.tokens if cycle else None,
                "tokens_baseline": None
                if agent.tokens.usual is None
                else round(agent.tokens.usual),
                "cost_usd": dollars(cycle.cost_nusd) if cycle else None,
                "tool_calls": agent.tool_calls,
            },
            "today": {
                "cost_usd": dollars(today.cost_nusd),
                "budget_usd": dollars(agent.config.budget.per_day),
                "cycles": today.cycles if beaten else None,
                "restarts": today.restarts,
                "tokens": today.tokens,
                "items": today.items,
                "unit": agent.unit,
            },
            "resources": agent.resources(now),
            "version": shown(data_of(agent.started)) if agent.started is not None else None,
            "drift": agent.drift,
            "unwalled": _unwalled(agent),
            "unmeasured": _unmeasured(agent),
            "incidents": agent.incidents,
            "recent_cycles": agent.strip(),
        }


def _unwalled(agent: AgentView) -> str | None:
    """Return why the run that lives does not have the walls that it should."""
    if agent.started is None or not agent.alive:
        return None
    return text_of(data_of(agent.started), "unwalled", 500)


def _unmeasured(agent: AgentView) -> str | None:
    """Return which limit of the run that lives is judged later than it should be."""
    if agent.unmeasured is None or not agent.alive:
        return None
    data = data_of(agent.unmeasured)
    if data.get("over") is True or data.get("run_id") != agent.run_id:
        return None
    return text_of(data, "reason", 500)


def _is_gone(agent: AgentView, now: float) -> bool:
    if agent.managed and not agent.alive:
        return True
    return now - max(agent.last_beat_at or 0.0, agent.state_at or 0.0) > FORGET_AFTER_S


def _is_last_word(kind: Kind, item: Item) -> bool:
    """Tell whether an item only says that an agent nobody knows has ended: no reason to take it up."""
    if kind is Kind.RUN:  # only a supervisor names its node; a ping may begin with an end
        return item.get("state") == "ended" and "node" in item
    if kind is not Kind.EVENT:
        return False
    event = item["kind"]
    if event == "agent.state":
        return text_of(data_of(item), "state") not in {s.value for s in ALIVE}
    return event in ("run.ended", "run.hung", "run.waiting")
