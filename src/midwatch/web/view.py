"""What a page says about agents: order, groups, the sentence about the fleet, what may be done.

Turns the read model's plain JSON into values that templates only print. Tolerates what is
missing: an agent that has told nothing yet is shown as such.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from itertools import groupby
from typing import Any, Final, Literal
from urllib.parse import quote

from markupsafe import Markup

from midwatch.core.states import ALIVE, State
from midwatch.web import charts, words

Tone = Literal["good", "calm", "warn", "bad"]

TONES: Final[dict[State, Tone]] = {
    State.RUNNING: "good",
    State.STARTING: "calm",
    State.DRAINING: "calm",
    State.STOPPED: "calm",
    State.SCHEDULED: "calm",
    State.BACKING_OFF: "warn",
    State.UNHEALTHY: "warn",
    State.WAITING: "warn",
    State.SUSPENDED: "bad",
    State.PARKED: "bad",
    State.LOST: "bad",
}

NEEDS_YOU: Final = frozenset({State.PARKED, State.SUSPENDED, State.WAITING, State.LOST})
"""States that last until a person does something."""

ORDER: Final[tuple[State, ...]] = (
    State.PARKED,
    State.LOST,
    State.SUSPENDED,
    State.WAITING,
    State.UNHEALTHY,
    State.BACKING_OFF,
    State.RUNNING,
    State.STARTING,
    State.DRAINING,
    State.SCHEDULED,
    State.STOPPED,
)
"""Who needs attention first. An open incident puts a working agent before the other working ones."""

DENSE_FROM: Final = 25
"""From so many agents on, rows are one line high and strips have no title for each bar."""


@dataclass(frozen=True, slots=True)
class Deed:
    """Something a person may do to an agent: the API's verb, and what it leads to."""

    do: str
    label: str
    outcome: str
    ask: bool
    """True when a person should confirm it first."""


DEEDS: Final[dict[str, Deed]] = {
    "start": Deed("start", "Start", "It is started now; counted failures are forgotten.", False),
    "resume": Deed(
        "resume", "Resume", "Its calls are let through; it is started if it has ended.", False
    ),
    "restart": Deed("restart", "Restart", "It is asked to finish, then started again.", False),
    "suspend": Deed(
        "suspend",
        "Suspend",
        "Its model calls are refused until you resume it; its process is left.",
        True,
    ),
    "stop": Deed(
        "stop", "Stop", "It is asked to finish, and stays stopped until you start it.", True
    ),
    "kill": Deed(
        "kill",
        "Kill",
        "Its model calls are cut and all its processes end at once; what it was doing is lost.",
        True,
    ),
}


def deeds_for(state: State | None) -> tuple[Deed, ...]:
    """Return what may be done in a state, the most likely wish first."""
    if state is State.SUSPENDED:
        wanted = ("resume", "stop", "kill")
    elif state is State.WAITING:
        wanted = ("restart", "suspend", "stop", "kill")
    elif state is State.BACKING_OFF:
        wanted = ("start", "suspend", "stop")
    elif state in ALIVE:
        wanted = ("restart", "suspend", "stop", "kill")
    elif state is State.LOST or state is None:
        wanted = ("restart", "stop")
    elif state is State.SCHEDULED:
        wanted = ("start", "suspend", "stop")
    else:
        wanted = ("start",)
    return tuple(DEEDS[do] for do in wanted)


@dataclass(frozen=True, slots=True)
class AgentView:
    """One agent as a page shows it. `rank` orders rows; a change of rank moves the row."""

    name: str
    shown: str
    path: str
    group: str
    node: str
    state: str
    glyph: str
    tone: Tone
    rank: int
    needs: bool
    since: datetime | None
    sentence: str
    strip: Markup | None
    cost: charts.Meter
    restarts: int | None
    memory: str
    incidents: int
    last_beat: datetime | None
    urgent: Deed | None
    """What a person most likely wants to do now; None while nothing needs them."""
    deeds: tuple[Deed, ...]
    raw: dict[str, Any]


def _state(word: object) -> State | None:
    try:
        return State(str(word))
    except ValueError:
        return None


def _open_count(listed: object) -> int:
    """Count an agent's open incidents, given as objects or as ids."""
    if not isinstance(listed, list):
        return 0
    items: list[Any] = listed  # pyright: ignore[reportUnknownVariableType]
    return sum(
        not (isinstance(item, dict) and item.get("state") == "resolved")  # pyright: ignore[reportUnknownMemberType]
        for item in items
    )


def _sentence(agent: dict[str, Any], name: str) -> str:
    """Return the agent's sentence without its name, which stands beside it."""
    text = words.plain(agent.get("sentence") or "Has not reported anything yet.")
    text = text.removeprefix(f"{name}: ").lstrip()
    return text[:1].upper() + text[1:]


def _memory(agent: dict[str, Any], resources: dict[str, Any]) -> str:
    if words.number(resources.get("rss_bytes")) is not None:
        return words.size(resources["rss_bytes"])
    return "no memory data" if agent.get("pid") else "no process"


def see(agent: dict[str, Any], tz: tzinfo, *, titles: bool = True) -> AgentView:
    """Return one agent as a page shows it."""
    name = str(agent.get("agent", ""))
    shown = words.plain(name, 128)
    state = _state(agent.get("state"))
    today: dict[str, Any] = agent.get("today") or {}
    resources: dict[str, Any] = agent.get("resources") or {}
    incidents = _open_count(agent.get("incidents"))
    restarts = words.number(today.get("restarts"))
    needs = state in NEEDS_YOU
    deeds = deeds_for(state)
    rank = (ORDER.index(state) if state else 1) * 2 + (0 if incidents else 1)

    def when(value: object) -> str:
        at = words.moment(value)
        return f"{at.astimezone(tz):%H:%M:%S}" if at else "no time"

    return AgentView(
        name=name,
        shown=shown,
        path=quote(name, safe=""),
        group=words.plain(agent.get("group") or "", 128),
        node=words.plain(agent.get("node") or "", 128),
        state=(state or words.plain(agent.get("state") or "unknown", 40)).replace("-", " "),
        glyph=state.value if state else "lost",
        tone=TONES[state] if state else "bad",
        rank=rank,
        needs=needs,
        since=words.moment(agent.get("since")),
        sentence=_sentence(agent, shown),
        strip=charts.strip(agent.get("recent_cycles") or [], when, titles=titles),
        cost=charts.meter(today.get("cost_usd"), today.get("budget_usd")),
        restarts=None if restarts is None else int(restarts),
        memory=_memory(agent, resources),
        incidents=incidents,
        last_beat=words.moment(agent.get("last_beat")),
        urgent=deeds[0] if needs else None,
        deeds=deeds,
        raw=agent,
    )


@dataclass(frozen=True, slots=True)
class GroupView:
    name: str
    agents: list[AgentView]

    @property
    def needing(self) -> int:
        return sum(a.needs for a in self.agents)


def in_order(agents: Iterable[AgentView]) -> list[AgentView]:
    """Return agents with the most urgent first, by name among equals; sub-agents stand behind their parent,
    and a family is as urgent as the most urgent of it."""
    members = list(agents)
    urgency: dict[str, int] = {}
    for agent in members:
        root = agent.name.split(":")[0]
        urgency[root] = min(agent.rank, urgency.get(root, agent.rank))
    return sorted(members, key=lambda a: (urgency[a.name.split(":")[0]], a.name.split(":")))


def in_groups(agents: Sequence[AgentView]) -> list[GroupView]:
    """Return groups with the most urgent first; agents without a group stand together, last."""
    by_group = sorted(agents, key=lambda a: a.group)
    groups = [GroupView(name, in_order(of)) for name, of in groupby(by_group, lambda a: a.group)]
    return sorted(
        groups,
        key=lambda g: (not g.needing, g.name == "", g.agents[0].rank if g.needing else 0, g.name),
    )


@dataclass(frozen=True, slots=True)
class Lead:
    """One sentence about the whole fleet, and how serious it is. `stress` is its second half."""

    sentence: str
    tone: Tone
    stress: str = ""

    def __str__(self) -> str:
        return f"{self.sentence} {self.stress}".strip()


def lead(agents: Sequence[AgentView], open_incidents: int) -> Lead:
    """Say how the fleet is, names first of those that need a person."""
    if not agents:
        return Lead("No agents yet.", "calm")
    total = len(agents)
    needing = [a for a in in_order(agents) if a.needs]
    if needing:
        who = words.listed([f"{a.shown} is {a.state}" for a in needing])
        if total == 1:
            return Lead("Your one agent needs you:", "bad", f"{who}.")
        verb = "needs" if len(needing) == 1 else "need"
        return Lead(f"{len(needing)} of {total} agents {verb} you:", "bad", f"{who}.")
    working = sum(a.glyph == State.RUNNING for a in agents)
    if working == total:
        base = "1 agent, working" if total == 1 else f"{total} agents, all working"
    else:
        counts = {
            word: sum(a.state == word for a in agents)
            for word in (s.replace("-", " ") for s in ORDER)
        }
        parts = [
            f"{n} {'working' if word == 'running' else word}" for word, n in counts.items() if n
        ]
        base = f"{words.plural(total, 'agent')}: {', '.join(parts)}"
    if open_incidents:
        verb = "is" if open_incidents == 1 else "are"
        told = f"{words.plural(open_incidents, 'incident')} {verb} open"
        return Lead(f"{base};", "warn", f"{told}.")
    worried = any(a.tone == "warn" for a in agents)
    return Lead(f"{base}.", "warn" if worried else "good")
