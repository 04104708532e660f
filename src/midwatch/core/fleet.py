"""The fleet: what the fleet file means once it is read. `fleetfile` turns text into this.

Every model refuses unknown keys. `Fleet.resolved()` lays defaults under each agent, so that whoever
holds an `Agent` needs nothing else.
The docstring under a key is its entry in the published schema and in docs/reference/fleet-file.md.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, cast

from pydantic import AfterValidator, Field, field_validator, model_validator

from midwatch.core import units
from midwatch.core.models import Calls, Models
from midwatch.core.quantities import (
    Duration,
    Listen,
    Liveness,
    Model,
    Target,
    Variables,
    Word,
    Zone,
)
from midwatch.core.telemetry import HubListen as HubListen
from midwatch.core.telemetry import check_postgres
from midwatch.core.terms import (
    Budget,
    Children,
    Heartbeat,
    Limits,
    Loop,
    Restart,
    Sandbox,
    Schedule,
    SharedBudget,
    Verify,
)

MAX_NAME: Final = 63
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""An agent's, group's or fleet's name: it is also a file name and a part of URLs."""


class Agent(Model):
    """One agent. Whatever it leaves out comes from `defaults`."""

    command: list[Word] | None = None
    """The program and its arguments, as a list; no shell is involved."""
    external: bool = False
    """True for an agent that Midwatch watches but does not start."""
    group: str | None = None
    """A name that agents share: for budgets and on the page."""
    cwd: str | None = None
    """Working directory, from the fleet file's directory."""
    env: Variables = {}
    """Environment variables. Values are text as written."""
    env_file: str | None = None
    """A file of NAME=value lines, from the fleet file's directory; `env` wins."""
    instances: Annotated[int, Field(ge=1, le=500)] = 1
    """How many of it run side by side, as NAME.1, NAME.2 and so on."""
    lease: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """A name that only one agent of this user may run under on this machine, whichever fleet file starts it.
    Left out: the fleet file's path and the agent's name."""
    tty: bool = False
    """True: it is given a terminal, and `midwatch attach` shows and feeds it."""
    sandbox: Sandbox | None = None
    """Left out: no walls."""
    liveness: Liveness | None = None
    """What counts as a sign of life. Left out: heartbeat as soon as it has beaten once, process until then."""
    heartbeat: Heartbeat = Heartbeat()
    restart: Restart = Restart()
    limits: Limits = Limits()
    children: Children = Children()
    budget: Budget = Budget()
    calls: Calls = Calls()
    loop: Loop = Loop()
    schedule: Schedule | None = None
    verify: list[Verify] = []
    """Checks on what a run should have produced."""
    enabled: bool = True
    """False: known, shown, not started."""
    rollback: bool = False
    """True: an entry, env file or code (a git commit) that was changed and fails before `stable_after` is taken back
    to the last good one."""

    @field_validator("command", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        if isinstance(value, str):
            raise units.Unexpected("a list such as [python, agent.py]", value)
        if value == []:
            raise units.Unexpected("at least the program's name", value)
        return value

    @field_validator("command")
    @classmethod
    def _program(cls, value: list[str] | None) -> list[str] | None:
        if value and not value[0].strip():
            raise units.Unexpected("the program's name first", value)
        return value

    @model_validator(mode="after")
    def _startable(self) -> Agent:
        if self.command is None and not self.external:
            raise ValueError("command is missing: write command: [program, argument…]")
        return self


class Defaults(Model):
    """What every agent starts from, key by key."""

    heartbeat: Heartbeat = Heartbeat()
    restart: Restart = Restart()
    limits: Limits = Limits()
    children: Children = Children()
    sandbox: Sandbox | None = None
    """See agents."""
    budget: Budget = Budget()
    calls: Calls = Calls()
    loop: Loop = Loop()
    liveness: Liveness | None = None
    """See agents."""
    env: Variables = {}
    """Environment variables of every agent; an agent's own are added, and win."""
    env_file: str | None = None
    """See agents."""
    cwd: str | None = None
    """See agents."""


class Group(Model):
    """Agents that share something."""

    budget: Budget = Budget()


class Route(Model):
    """Which incidents go where."""

    match: str = "true"
    """A condition (CEL), such as severity == "critical" && agent == "inbox". Names: fleet, agent, group, kind,
    severity, count, sentence."""
    to: str
    """A name under `notify`, or `console`."""
    repeat: Duration | None = None
    """Told again after so long, while the incident is open."""


class GatewayListen(Model):
    """The gateway that carries model calls."""

    listen: Listen = "127.0.0.1:8701"
    """host:port."""
    ledger: Annotated[str, AfterValidator(check_postgres)] | None = None
    """Where budgets and charges are kept: a PostgreSQL database that gateways of several machines share, as
    postgresql://…, or env:NAME when its address holds a password. Left out: a file in the data directory."""
    tell_every: Annotated[Duration, Field(ge=0.1, le=60)] = 10.0
    """How often the hub is told what the calls of each run came to. What an agent costs is seen so late, and
    detectors of idle spending and of growing prompts compare these sums."""


class Fleet(Model):
    """The fleet file."""

    fleet: str = "fleet"
    """The fleet's name."""
    timezone: Zone = "UTC"
    """Of schedules, of days in budgets and of what people read; an IANA name such as Europe/Paris."""
    defaults: Defaults = Defaults()
    budget: Budget = Budget()
    budgets: list[SharedBudget] = []
    """Budgets of tags, sub-agents and keys, such as {tag: customer, per_day: $5}."""
    groups: dict[str, Group] = {}
    """By name; an agent joins with `group`."""
    agents: dict[str, Agent]
    """By name: letters, digits, dot, dash and underscore."""
    models: Models = Models()
    """Providers, chains and prices for the gateway."""
    tools: dict[str, Any] = {}
    """Policies and approvals for the guard."""
    alerts: list[dict[str, Any]] = []
    """Conditions of your own."""
    routes: list[Route] = []
    """Who is told of what: every route that matches counts. Without any, every target hears of warnings and
    of what is critical. The console hears of everything."""
    notify: dict[str, Target] = {}
    """Targets by name: an apprise URL such as slack://…"""
    hub: HubListen = HubListen()
    gateway: GatewayListen = GatewayListen()
    root: str = "."
    """The directory that relative paths start from; set by whoever reads the file, not in it."""

    def resolved(self) -> Fleet:
        """Return the fleet with `defaults` laid under every agent, key by key."""
        base = self.defaults.model_dump(exclude_unset=True)
        agents: dict[str, Agent] = {}
        for name, agent in self.agents.items():
            own = agent.model_dump(exclude_unset=True)
            agents[name] = Agent.model_validate(_lay(base, own))
        return self.model_copy(update={"agents": agents})


def _lay(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = (
            _lay(cast("dict[str, Any]", below), cast("dict[str, Any]", value)) if both else value
        )
    return merged
