"""The terms on which an agent runs: what is expected of it, what it may use, when it starts again.

The docstring under a key is its entry in the published schema and in docs/reference/fleet-file.md.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from midwatch.core.cron import check_at, check_between, check_cron, check_meets
from midwatch.core.quantities import Duration, Model, Money, Range, Rate, Ratio, Size, Zone
from midwatch.core.units import Unexpected


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
    """What one run of an agent may use. An empty value (`~`) lifts a limit.

    By cgroup where one is delegated to Midwatch, otherwise by resource limits of the processes and by
    looking at them each second; `midwatch doctor` says which is in force.
    """

    memory: Size | None = None
    """Resident memory of the agent and everything it started."""
    open_files: Annotated[int, Field(ge=16)] | None = 16_384
    """Open files of each process."""
    processes: Annotated[int, Field(ge=1)] | None = 256
    """Processes that the agent may have, itself included; and 16 times as many threads."""
    cpu_weight: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Share of the processor when there is not enough for all, as systemd's CPUWeight; 100 is usual."""
    wall: Duration | None = None
    """How long one run may last."""
    disk: Size | None = None
    """How large a file of the agent, and what lies in its own directory, may become."""
    output: Rate | None = 1024 * 1024
    """What it may print for long; much more than that is dropped, counted and told."""
    warn_at: Ratio = 0.8
    """The share of a limit at which a warning is given."""
    restart_at: Ratio = 0.9
    """The soft limit: the share of memory or open files at which an agent that grows steadily, or stays there for
    `restart_after`, is restarted as planned: between two cycles, with its time to finish."""
    restart_after: Annotated[Duration, Field(ge=1)] | None = 600.0
    """An agent that was at `restart_at` or above for so long is restarted as planned, also when it grows no more.
    After two such restarts that led there again as quickly, it is told that the limit is below what the agent
    needs, and left alone. An empty value (`~`): only one that grows."""
    leak_after: Annotated[Duration, Field(ge=1)] = 600.0
    """Memory or open files that grow steadily for so long, and will reach their limit within as long again,
    are a leak. What an agent loads in the first half of this time does not count."""
    stop_grace: Duration = 20.0
    """Time between the request to stop and the kill."""


class Children(Model):
    """What an agent may start, and for how long."""

    max: Annotated[int, Field(ge=0)] | None = None
    """Processes below it at one time; more are told, none is killed for it."""
    ttl: Duration | None = None
    """How old a process below it may become; older ones are killed and told. Sub-agents with a time of
    their own have that."""


def _check_place(value: str) -> str:
    if not value.strip() or "\0" in value:
        raise Unexpected("a path", value)
    return value


Place = Annotated[str, AfterValidator(_check_place)]
"""A path from an agent's working directory; `~` is the home directory."""


def _read_switch(value: object) -> object:
    """YAML reads a bare on and off as true and false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class Sandbox(Model):
    """Walls around an agent, built by bubblewrap: it sees a read-only file system and writes where it may.

    The deeper of two paths holds for its part; `hide` wins over `write`, and `write` over `read`.
    """

    enabled: bool = True
    """False: no walls, whatever `defaults` say."""
    write: list[Place] = ["."]
    """Paths that it may write, from its working directory. All else is read-only. What is missing inside that
    directory is made."""
    read: list[Place] = []
    """Paths that it may read although they lie in what is hidden, such as ~/.aws, or not write although they
    lie in what it may write, such as .git."""
    hide: list[Place] = []
    """Paths that it cannot see, besides what is hidden by default: Midwatch's data, keys and tokens in the home
    directory, /run, and /tmp, of which it has an empty one."""
    network: Annotated[Literal["on", "off", "proxy"], BeforeValidator(_read_switch)] = "on"
    """`off`: no network, not even this machine's, so neither hub nor gateway; beats still arrive. `proxy`: only
    through the guard's egress proxy, which this version does not have yet."""
    env: list[str] | None = None
    """Names of inherited variables that it is given, such as HF_* or EDITOR; all when left out. PATH, HOME,
    language and time zone are always given, and what Midwatch and the fleet file set."""
    tmp: Annotated[Size, Field(ge=65_536)] = 512 * 1024 * 1024
    """Size of its private /tmp, and of /var/tmp and /dev/shm, each. They live in memory."""
    require: bool = False
    """True: where the walls cannot be built the agent is not started. False: it is started without, and that
    is told."""


def _check_exhausted(value: str) -> str:
    provider, slash, model = value.partition("/")
    if value not in ("refuse", "park") and not (slash and provider and model):
        raise Unexpected(
            "refuse, park, or PROVIDER/MODEL such as openai/gpt-4o-mini to fall to", value
        )
    return value


class Budget(Model):
    """Money in dollars. The gateway refuses a call that could pass any of them, before it is made."""

    per_day: Money | None = None
    """A calendar day in the fleet's time zone."""
    per_hour: Money | None = None
    """Any sixty minutes."""
    per_month: Money | None = None
    """A calendar month in the fleet's time zone."""
    per_run: Money | None = None
    """One life of the agent's process; in a group or fleet, of any agent in it."""
    per_session: Money | None = None
    """One session, as the SDK or the header x-midwatch-session names it, with all sub-agents; it does not renew. Calls
    that name none are those of the session that is their run, or for a lasting key the day."""
    per_call: Money | None = None
    """One model call."""
    total: Money | None = None
    """For ever."""
    warn_at: Ratio = 0.8
    """The share of a budget at which a warning is given."""
    on_exhausted: Annotated[str, AfterValidator(_check_exhausted)] = "refuse"
    """What is done with a call that does not fit. `refuse`: it is refused, and told when there is room again.
    `park`: it is refused, and the agent is held until a person resumes it. PROVIDER/MODEL: that cheaper model
    is asked instead, if it fits. When several budgets refuse, park goes before refuse, and refuse before a model."""


class SharedBudget(Budget):
    """A budget of what cuts across agents: exactly one of `tag`, `agent` and `key` says of what."""

    tag: str | None = None
    """`customer`: each value of this tag has a budget of its own. `customer=acme`: this value alone."""
    agent: str | None = None
    """A sub-agent and all below it, such as inbox:search; `inbox:*` is each sub-agent of inbox."""
    key: str | None = None
    """The name of a long-lived key; see `midwatch key create`."""

    @model_validator(mode="after")
    def _one_subject(self) -> SharedBudget:
        given = [name for name in ("tag", "agent", "key") if getattr(self, name)]
        if len(given) != 1:
            hint = f"{' and '.join(given)} are given: write one entry for each" if given else None
            raise Unexpected("exactly one of tag, agent and key", None, hint)
        return self


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
    """Cycles below this many tokens never count as runaway, nor do calls that add less (`calls.growth`)."""
    floor_cost: Money = 50_000_000
    """Cycles cheaper than this never count as runaway."""
    idle: Annotated[Duration, Field(ge=1)] = 900.0
    """An agent that says what it gets done, and spends more than `floor_cost` for so long while nothing gets
    done, is told of."""
    prompt_growth: Annotated[Ratio, Field(gt=1)] = 3.0
    """Tokens sent with each call, as a multiple of what was usual, from which on it is told which part grew."""
    action: Literal["suspend", "notify", "restart", "stop"] = "suspend"
    """What is done about it, besides telling. `suspend` holds the agent until it is resumed, `restart` until its next
    run has begun, which is at once (after three within an hour it is suspended), `stop` until a person starts it. A sub-agent's calls are refused until it is
    resumed, or its agent restarted."""


def _apart(every: float) -> float:
    if every < 1:
        raise Unexpected("at least 1s from one start to the next", every)
    return every


class Schedule(Model):
    """When an agent that works and ends is started: one of `cron`, `every` and `at`."""

    cron: Annotated[str, AfterValidator(check_cron)] | None = None
    """Five fields, as in crontab(5): minute, hour, day of month, month, day of week. When clocks change, fixed
    times run once a day; those with `*` as minute or hour follow the clock."""
    every: Annotated[Duration, AfterValidator(_apart)] | None = None
    """From one start to the next, counted from a midnight of the schedule's time zone: `15m`. When clocks
    change, the distance stays and the time of day moves."""
    at: Annotated[str, AfterValidator(check_at)] | None = None
    """Once, at this time: `2026-11-30 06:00`, in the schedule's time zone unless it ends in an offset such as
    `+01:00` or `Z`."""
    timezone: Zone | None = None
    """Of the schedule; the fleet's when left out."""
    between: Annotated[str, AfterValidator(check_between)] | None = None
    """Hours in which it may start, such as `22:00..06:00`; what is due outside them is left out."""
    jitter: Duration = 0.0
    """Each start is put off by up to so long, by a share that is the agent's own, so that agents of
    one schedule do not start together."""
    window: Duration = 60.0
    """A start that is later than this counts as missed, and is told."""
    missed: Literal["skip", "once", "all"] = "once"
    """What is done about missed starts: nothing, one run for all of them, or one run for each, of at most the
    newest 100."""
    overlap: Literal["skip", "queue", "replace"] = "skip"
    """A start that is due while the last run goes on: left out, put off until that one ends (one waits, no
    more), or that one is stopped for it."""

    @field_validator("between")
    @classmethod
    def _meets_the_rule(cls, between: str | None, info: ValidationInfo) -> str | None:
        if between is not None:
            if info.data.get("at") is not None:
                raise Unexpected(
                    "between beside cron or every only",
                    between,
                    "at names the time itself: take it out",
                )
            check_meets(info.data.get("cron"), info.data.get("every"), between)
        return between

    @field_validator("jitter")
    @classmethod
    def _in_turn(cls, jitter: float, info: ValidationInfo) -> float:
        every = info.data.get("every")
        if every is not None and jitter >= every:
            raise Unexpected(
                "a jitter shorter than every", jitter, "starts would overtake each other"
            )
        return jitter

    @model_validator(mode="after")
    def _one_rule(self) -> Schedule:
        given = [rule for rule in ("cron", "every", "at") if getattr(self, rule) is not None]
        if len(given) != 1:
            hint = f"{' and '.join(given)} are given: take out what you do not mean"
            raise Unexpected("exactly one of cron, every and at", None, hint if given else None)
        return self


class Verify(Model):
    """What must be true of a file when a run has ended well."""

    file: str
    """The file, from the fleet file's directory."""
    newer_than: Literal["start"] | None = None
    """`start`: written by this run."""
    not_empty: bool = False
    """It must hold something."""
