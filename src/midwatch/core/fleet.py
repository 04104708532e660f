"""The fleet: what the fleet file means once it is read. `fleetfile.py` turns text into this.

Every model refuses unknown keys. `Fleet.resolved()` lays defaults and groups under each agent, so
that whoever holds an `Agent` needs nothing else. Quantities keep their unit in their name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from midwatch.core import units

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""An agent's, group's or fleet's name: it is also a file name and a part of URLs."""


def _from_text(parse: Callable[[str], Any], example: str) -> BeforeValidator:
    def read(value: object) -> object:
        if isinstance(value, str):
            return parse(value)
        # resolved fleets travel as JSON numbers; a bare number in YAML has no unit
        if isinstance(value, int | float) and not isinstance(value, bool):
            if _STRICT_UNITS[0]:
                raise ValueError(f"expected a unit, for example {example}, got {value!r}")
            return value
        raise ValueError(f"expected text such as {example}, got {value!r}")

    return BeforeValidator(read)


_STRICT_UNITS = [False]
"""True while a fleet file is read by `fleetfile.load`; JSON snapshots carry plain numbers."""


def _backoff(value: object) -> object:
    if isinstance(value, str):
        low, dots, high = value.partition("..")
        first = units.parse_duration(low)
        return (first, units.parse_duration(high) if dots else first)
    return value


Duration = Annotated[float, _from_text(units.parse_duration, "90s"), Field(ge=0)]
Size = Annotated[int, _from_text(units.parse_size, "512MiB"), Field(ge=1)]
Money = Annotated[int, _from_text(units.parse_money, "$1.50"), Field(ge=0)]
Ratio = Annotated[float, _from_text(units.parse_ratio, "80% or 10x"), Field(ge=0)]
Range = Annotated[tuple[float, float], BeforeValidator(_backoff)]

Liveness = Literal["heartbeat", "activity", "output", "process", "none"]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Heartbeat(Model):
    """A beat is due `every`; after `missed` intervals without one the agent counts as hung."""

    every: Duration = 60.0
    missed: Annotated[int, Field(ge=1)] = 2


class Restart(Model):
    """When an ended agent is started again, and when that stops being wise."""

    when: Literal["always", "failure", "never"] = "failure"
    attempts: Annotated[int, Field(ge=0)] = 3
    backoff: Range = (5.0, 300.0)
    cooldown: Duration = 300.0
    stable_after: Duration = 600.0

    @field_validator("backoff")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("expected the smaller delay first, for example 5s..5m")
        return value


class Limits(Model):
    memory: Size | None = None
    open_files: Annotated[int, Field(ge=16)] | None = 16_384
    processes: Annotated[int, Field(ge=1)] | None = 256
    wall: Duration | None = None
    disk: Size | None = None
    stop_grace: Duration = 20.0


class Budget(Model):
    """Money in nano-dollars. The gateway enforces it; until then it is shown beside what was spent."""

    per_day: Money | None = None
    per_hour: Money | None = None
    per_month: Money | None = None
    per_run: Money | None = None
    per_call: Money | None = None
    total: Money | None = None
    warn_at: Ratio = 0.8


class Loop(Model):
    """What counts as a runaway loop, against the agent's own rolling baseline."""

    tokens_per_cycle: Ratio = 10.0
    cost_per_cycle: Ratio = 10.0
    tool_calls_per_cycle: Ratio = 5.0
    same_call: Annotated[int, Field(ge=2)] = 5
    floor_tokens: Annotated[int, Field(ge=0)] = 5_000
    floor_cost: Money = 50_000_000
    action: Literal["suspend", "notify", "restart", "stop"] = "suspend"


class Schedule(Model):
    cron: str
    timezone: str | None = None
    missed: Literal["skip", "once"] = "once"
    overlap: Literal["skip"] = "skip"


class Verify(Model):
    file: str
    newer_than: Literal["start"] | None = None
    not_empty: bool = False


class Agent(Model):
    """One entry under `agents:`; after `Fleet.resolved()` nothing in it depends on defaults."""

    command: list[str] | None = None
    external: bool = False
    """True for an agent that Midwatch watches but does not start."""
    group: str | None = None
    cwd: str | None = None
    env: dict[str, str] = {}
    env_file: str | None = None
    instances: Annotated[int, Field(ge=1, le=500)] = 1
    liveness: Liveness | None = None
    """None: heartbeat as soon as the agent has beaten once, process until then."""
    heartbeat: Heartbeat = Heartbeat()
    restart: Restart = Restart()
    limits: Limits = Limits()
    budget: Budget = Budget()
    loop: Loop = Loop()
    schedule: Schedule | None = None
    verify: list[Verify] = []
    enabled: bool = True

    @field_validator("command", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError(f"expected a list, for example [python, agent.py], got {value!r}")
        if value == []:
            raise ValueError("expected at least the program's name, got an empty list")
        return value

    @field_validator("env", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {
            k: str(v).lower() if isinstance(v, bool) else str(v) if isinstance(v, int | float) else v
            for k, v in value.items()  # pyright: ignore[reportUnknownVariableType]
        }

    @model_validator(mode="after")
    def _startable(self) -> Agent:
        if self.command is None and not self.external:
            raise ValueError("command is missing: write command: [program, argument…]")
        return self


class Defaults(Model):
    heartbeat: Heartbeat = Heartbeat()
    restart: Restart = Restart()
    limits: Limits = Limits()
    budget: Budget = Budget()
    loop: Loop = Loop()
    liveness: Liveness | None = None
    env: dict[str, str] = {}
    env_file: str | None = None
    cwd: str | None = None


class Group(Model):
    budget: Budget = Budget()


class Route(Model):
    match: str = "true"
    to: str
    repeat: Duration | None = None


class HubListen(Model):
    listen: str = "127.0.0.1:8700"
    otlp_http: str | None = None
    otlp_grpc: str | None = None


class GatewayListen(Model):
    listen: str = "127.0.0.1:8701"


class Fleet(Model):
    """The whole file. `root` is the directory that relative paths start from."""

    fleet: str = "fleet"
    timezone: str = "UTC"
    defaults: Defaults = Defaults()
    budget: Budget = Budget()
    groups: dict[str, Group] = {}
    agents: dict[str, Agent]
    models: dict[str, Any] = {}
    tools: dict[str, Any] = {}
    alerts: list[dict[str, Any]] = []
    routes: list[Route] = []
    notify: dict[str, str] = {}
    hub: HubListen = HubListen()
    gateway: GatewayListen = GatewayListen()
    root: str = "."

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
        merged[key] = _lay(below, value) if isinstance(below, dict) and isinstance(value, dict) else value  # pyright: ignore
    return merged
