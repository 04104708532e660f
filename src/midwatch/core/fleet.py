"""The fleet: what the fleet file means once it is read. `fleetfile` turns text into this.

Every model refuses unknown keys. `Fleet.resolved()` lays defaults under each agent, so that whoever
holds an `Agent` needs nothing else. Quantities are plain numbers here (seconds, bytes, nano-dollars,
a share of one): text with a unit is what people write, and what `reading()` insists on; the
snapshot that travels as JSON carries the numbers.

The docstring under a key is its entry in the published schema and in docs/reference/fleet-file.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from midwatch.core import units
from midwatch.core.cron import check_cron, check_zone

MAX_NAME: Final = 63
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""An agent's, group's or fleet's name: it is also a file name and a part of URLs."""

READING: Final = {"units": "required"}
"""Validation context while a fleet file is read: a bare number has no unit and is refused.
Without it (a JSON snapshot) plain numbers are what is expected."""


def _quantity(
    parse: Callable[[str], Any], what: str, pattern: str, examples: list[str], likely: str = ""
) -> Any:
    """Return the annotation of a quantity: how it is read, and how the schema shows it.

    `likely` is what a number without a unit was probably meant to be: `{}s`.
    """
    example = " or ".join(examples[:2])

    def read(value: object, info: ValidationInfo) -> object:
        if isinstance(value, str):
            return parse(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            if info.context == READING:
                hint = f"did you mean {likely.format(value)}?" if likely else None
                raise units.Unexpected(f"{what} with its unit, such as {example}", value, hint)
            return value
        raise units.Unexpected(f"{what} such as {example}", value)

    shown = {"type": "string", "pattern": pattern, "examples": examples, "title": what}
    return BeforeValidator(read), WithJsonSchema(shown)


_DURATION = _quantity(
    units.parse_duration,
    "a duration",
    r"^([0-9.]+ *(ms|s|m|h|d|w) *)+$",
    ["90s", "5m", "1h30m"],
    "{}s",
)
_SIZE = _quantity(
    units.parse_size, "a size", r"^[0-9.]+ *(B|[kK]B|[MGT]B|[KMGT]iB)$", ["512MiB", "1GiB"]
)
_MONEY = _quantity(
    units.parse_money, "money", r"^\$ *[0-9]+(\.[0-9]{1,9})?$", ["$1.50", "$0.002"], "${}"
)
_RATIO = _quantity(units.parse_ratio, "a ratio", r"^[0-9.]+ *(%|x)$", ["80%", "10x"], "{}%")


def _range(value: object, info: ValidationInfo) -> object:
    """Read `5s..5m`, or one duration for both ends."""
    if isinstance(value, str):
        low, dots, high = value.partition("..")
        first = units.parse_duration(low)
        last = units.parse_duration(high) if dots else first
        if first > last:
            raise units.Unexpected("the smaller delay first, such as 5s..5m", value)
        return (first, last)
    if info.context == READING:
        raise units.Unexpected("one or two durations such as 5s..5m", value)
    return value


def split_listen(value: str) -> tuple[str, int]:
    """Return host and port of `127.0.0.1:8700` or `[::1]:8700`. Raises Unexpected."""
    match = _LISTEN.fullmatch(value)
    if match is None or int(match["port"]) > 65_535:
        bare = re.fullmatch(r":?([0-9]{1,5})", value)
        hint = f"did you mean 127.0.0.1:{bare[1]}?" if bare else None
        raise units.Unexpected("an address and a port such as 127.0.0.1:8700", value, hint)
    return match["six"] or match["host"], int(match["port"])


_LISTEN: Final = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]{2,45})\]|(?P<host>[A-Za-z0-9.-]{1,253})):(?P<port>[0-9]{1,5})"
)


def _listen(value: object) -> object:
    if isinstance(value, str | int):
        split_listen(str(value))
    return value


def _variables(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not name or "=" in name:
            raise units.Unexpected("names of variables without '='", name)
    return value


def _target(value: str) -> str:
    if "://" not in value and not value.startswith("file:"):
        raise units.Unexpected("an apprise URL such as slack://… or mailto://…", value)
    return value


Duration = Annotated[float, *_DURATION, Field(ge=0)]
Size = Annotated[int, *_SIZE, Field(ge=1)]
Money = Annotated[int, *_MONEY, Field(ge=0)]
Ratio = Annotated[float, *_RATIO, Field(ge=0)]
Range = Annotated[
    tuple[float, float],
    BeforeValidator(_range),
    WithJsonSchema({"type": "string", "title": "a range", "examples": ["5s..5m", "10s"]}),
]

Zone = Annotated[str, AfterValidator(check_zone)]
Listen = Annotated[
    str,
    BeforeValidator(_listen),
    WithJsonSchema({"type": "string", "title": "host:port", "examples": ["127.0.0.1:8700"]}),
]
Word = Annotated[str, WithJsonSchema({"type": ["string", "number", "boolean"], "title": "text"})]
"""Text that a process is given: in the fleet file also a bare number or `yes`, kept as written."""
Target = Annotated[str, AfterValidator(_target)]

Variables = Annotated[dict[str, Word], AfterValidator(_variables)]

Liveness = Literal["heartbeat", "activity", "output", "process", "none"]


class Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Heartbeat(Model):
    """A beat is due `every`; after `missed` intervals without one the agent counts as hung."""

    every: Duration = 60.0
    """The longest time that may pass between two beats."""
    missed: Annotated[int, Field(ge=1)] = 2
    """How many beats may be missing before the agent counts as hung and is restarted."""


class Restart(Model):
    """When an ended agent is started again, and when that stops being wise."""

    when: Literal["always", "failure", "never"] = "failure"
    """`failure`: after a bad end. `always`: after a good end, too. `never`: a person does it."""
    attempts: Annotated[int, Field(ge=0)] = 3
    """Restarts in a row; when they are used up the agent is parked and a person is called."""
    backoff: Range = (5.0, 300.0)
    """The delay before a restart grows from the first value to the second, at random below it."""
    cooldown: Duration = 300.0
    """After a restart because of a hang, the next one for a hang waits so long."""
    stable_after: Duration = 600.0
    """Alive for so long, an agent counts as recovered and its attempts start anew."""


class Limits(Model):
    """What one run of an agent may use. An empty value (`~`) lifts a limit."""

    memory: Size | None = None
    """Resident memory of the agent and everything it started."""
    open_files: Annotated[int, Field(ge=16)] | None = 16_384
    """Open files of each process."""
    processes: Annotated[int, Field(ge=1)] | None = 256
    """Processes and threads that the agent may have."""
    wall: Duration | None = None
    """How long one run may last."""
    disk: Size | None = None
    """What the agent may write."""
    stop_grace: Duration = 20.0
    """Time between the request to stop and the kill."""


class Budget(Model):
    """Money in dollars. Shown beside what was spent; the gateway will refuse calls above it."""

    per_day: Money | None = None
    """A calendar day in the fleet's time zone."""
    per_hour: Money | None = None
    """Any sixty minutes."""
    per_month: Money | None = None
    """A calendar month in the fleet's time zone."""
    per_run: Money | None = None
    """One life of the agent's process."""
    per_call: Money | None = None
    """One model call."""
    total: Money | None = None
    """For ever."""
    warn_at: Ratio = 0.8
    """The share of a budget at which a warning is given."""


class Loop(Model):
    """What counts as a runaway loop, against the agent's own rolling baseline."""

    tokens_per_cycle: Ratio = 10.0
    """Tokens of one cycle, as a multiple of the usual."""
    cost_per_cycle: Ratio = 10.0
    """Cost of one cycle, as a multiple of the usual."""
    tool_calls_per_cycle: Ratio = 5.0
    """Tool calls of one cycle, as a multiple of the usual."""
    same_call: Annotated[int, Field(ge=2)] = 5
    """The same tool call with the same result, this many times in a row."""
    floor_tokens: Annotated[int, Field(ge=0)] = 5_000
    """Cycles below this many tokens never count as runaway."""
    floor_cost: Money = 50_000_000
    """Cycles cheaper than this never count as runaway."""
    action: Literal["suspend", "notify", "restart", "stop"] = "suspend"
    """What is done about it, besides telling. `suspend` holds the agent until it is resumed."""


class Schedule(Model):
    """When an agent that works and ends is started."""

    cron: Annotated[str, AfterValidator(check_cron)]
    """Five fields, as in crontab(5): minute, hour, day of month, month, day of week."""
    timezone: Zone | None = None
    """Of the schedule; the fleet's when left out."""
    missed: Literal["skip", "once"] = "once"
    """A start that was due while Midwatch was down: made up for once, or skipped."""
    overlap: Literal["skip"] = "skip"
    """A start that is due while the last run goes on is skipped."""


class Verify(Model):
    """What must be true of a file when a run has ended well."""

    file: str
    """The file, from the fleet file's directory."""
    newer_than: Literal["start"] | None = None
    """`start`: written by this run."""
    not_empty: bool = False
    """It must hold something."""


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
    liveness: Liveness | None = None
    """What counts as a sign of life. Left out: heartbeat as soon as it has beaten once, process until then."""
    heartbeat: Heartbeat = Heartbeat()
    restart: Restart = Restart()
    limits: Limits = Limits()
    budget: Budget = Budget()
    loop: Loop = Loop()
    schedule: Schedule | None = None
    verify: list[Verify] = []
    """Checks on what a run should have produced."""
    enabled: bool = True
    """False: known, shown, not started."""

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
    budget: Budget = Budget()
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


class HubListen(Model):
    """Addresses of the hub: pages, API, and OpenTelemetry."""

    listen: Listen = "127.0.0.1:8700"
    """Pages and API, host:port."""
    otlp_http: Listen | None = None
    """OTLP over HTTP at the usual address, besides the one above; 127.0.0.1:4318 for example."""
    otlp_grpc: Listen | None = None
    """OTLP over gRPC; 127.0.0.1:4317 for example."""


class GatewayListen(Model):
    """Address of the gateway that carries model calls."""

    listen: Listen = "127.0.0.1:8701"
    """host:port."""


class Fleet(Model):
    """The fleet file."""

    fleet: str = "fleet"
    """The fleet's name."""
    timezone: Zone = "UTC"
    """Of schedules, of days in budgets and of what people read; an IANA name such as Europe/Paris."""
    defaults: Defaults = Defaults()
    budget: Budget = Budget()
    groups: dict[str, Group] = {}
    """By name; an agent joins with `group`."""
    agents: dict[str, Agent]
    """By name: letters, digits, dot, dash and underscore."""
    models: dict[str, Any] = {}
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
