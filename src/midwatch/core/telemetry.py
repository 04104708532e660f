"""The fleet file's `hub`: where it listens, and on what terms telemetry is kept, sampled, sent on and stored.

The docstring under a key is its entry in the published schema and in docs/reference/fleet-file.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from midwatch.core import units
from midwatch.core.models import Header, Pattern, Url
from midwatch.core.quantities import Duration, Listen, Model, Ratio, Size, Word

_DAY_S: Final = 86_400.0

Kind = Literal["spans", "contents", "points", "logs", "beats", "events", "samples", "sums"]
"""What is kept for a time of its own."""

SAMPLED_BY: Final[dict[str, Any]] = {
    "agent": "",
    "group": "",
    "name": "",
    "session": "",
    "duration_s": 0.0,
    "spans": 0,
    "errors": 0,
    "lost": 0,
    "calls": 0,
    "tools": 0,
    "tool_errors": 0,
    "side_effects": 0,
    "turns": 0,
    "refusals": 0,
    "input_tokens": 0,
    "output_tokens": 0,
    "cost_usd": 0.0,
    "outcome": "",
    "goal_missed": False,
    "escalated": False,
    "flagged": False,
    "bad_feedback": False,
    "models": [""],
    "tool_names": [""],
    "tags": {"": ""},
}
"""The names of a sampling condition, each with a value of its type. All of one trace; "" and 0 where nothing says."""

_SECRET: Final = ("authorization", "key", "token", "secret", "password", "cookie")


def _check_env(value: str) -> bool:
    return value.startswith("env:") and bool(value[4:].strip())


def check_postgres(value: str) -> str:
    """Return the address of a PostgreSQL database, or env:NAME. Raises Unexpected."""
    if _check_env(value):
        return value
    if not value.startswith(("postgresql://", "postgres://")):
        raise units.Unexpected("postgresql://… or env:NAME", value)
    _refuse_password(value)
    return value


def _check_clickhouse(value: str) -> str:
    if _check_env(value):
        return value
    try:
        parts = urlsplit(value)
        fine = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise units.Unexpected(
            "ClickHouse's HTTP address such as http://clickhouse:8123/midwatch, or env:NAME", value
        )
    _refuse_password(value)
    return value.rstrip("/")


def _refuse_password(value: str) -> None:
    name, colon, _ = value.partition("://")[2].rpartition("@")[0].partition(":")
    if colon:
        hint = f"a password shows here: put the address of {name} into a variable, as env:NAME"
        raise units.Unexpected("an address without a password", units.HIDDEN, hint)


_HOST: Final = r"^(?:[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f.]{0,39}(?::[0-9A-Fa-f.]{0,39}){2,8})$"
"""A name, or an address without brackets: one colon alone would be that of a port, and never match."""


def _check_public(value: str) -> str:
    try:
        parts = urlsplit(value)
        fine = (
            parts.scheme in ("http", "https")
            and parts.hostname
            and parts.port != 0
            and "@" not in parts.netloc
            and value.isascii()
            and not (parts.path.strip("/") or parts.query or parts.fragment)
        )
    except ValueError:
        fine = False
    if not fine:
        hint = (
            "without a path or a name of a user; letters beyond ASCII as browsers send them, xn--…"
        )
        raise units.Unexpected("an address such as https://midwatch.example.com", value, hint)
    return value.rstrip("/").lower()


def _check_share(value: float) -> float:
    if value > 1:
        raise units.Unexpected("a share from 0% to 100%", f"{value:.0%}")
    return value


def _check_headers(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        secret = any(part in name.lower() for part in _SECRET)
        if secret and not text.startswith(("env:", "file:")):
            hint = f"what {name} holds would show here; put it into a variable or a file"
            raise units.Unexpected("env:NAME or file:PATH", units.HIDDEN, hint)
    return value


def _check_age(value: float) -> float:
    if value < 60:
        raise units.Unexpected("a minute or longer, such as 30d", value)
    return value


Age = Annotated[Duration, AfterValidator(_check_age)]
Share = Annotated[Ratio, AfterValidator(_check_share)]


class AgentKeep(Model):
    """What one agent's telemetry is kept for, instead of what `hub.keep` says for all."""

    spans: Age | None = None
    """See hub.keep; left out, that holds. So for the other ages."""
    contents: Age | None = None
    """See hub.keep."""
    points: Age | None = None
    """See hub.keep."""
    logs: Age | None = None
    """See hub.keep."""
    beats: Age | None = None
    """See hub.keep."""
    events: Age | None = None
    """See hub.keep."""
    samples: Age | None = None
    """See hub.keep."""
    size: Size | None = None
    """What its spans, contents, points and logs may take on disk; the oldest go first."""


class Keep(Model):
    """How long telemetry is kept, and how much of it. An empty age (`~`) keeps for ever."""

    spans: Age | None = 30 * _DAY_S
    """Spans, with everything but their contents."""
    contents: Age | None = 30 * _DAY_S
    """Prompts, answers, arguments and results; never longer than their spans."""
    points: Age | None = 30 * _DAY_S
    """Points of OpenTelemetry metrics."""
    logs: Age | None = 30 * _DAY_S
    """Log records of OpenTelemetry."""
    beats: Age | None = 90 * _DAY_S
    """Beats of agents."""
    events: Age | None = 90 * _DAY_S
    """Events; of each agent the newest of each kind stays."""
    samples: Age | None = 30 * _DAY_S
    """What processes used."""
    sums: Age | None = 400 * _DAY_S
    """Sums by hour and day; those by minute go with the spans."""
    size: Size | None = None
    """What all telemetry may take on disk; the oldest goes first."""
    free: Size = 1024**3
    """Space of the disk that is left alone: below twice as much it is warned of, below it telemetry is refused,
    and all else goes on."""
    agents: dict[str, AgentKeep] = {}
    """By agent, what is different there."""

    def age_s(self, agent: str, kind: Kind) -> float | None:
        """Return how long a kind is kept of an agent, in seconds; None is for ever."""
        own = self.agents.get(agent)
        of_agent = None if own is None or kind == "sums" else getattr(own, kind)
        age: float | None = getattr(self, kind) if of_agent is None else of_agent
        if kind != "contents":
            return age
        longest = self.age_s(agent, "spans")
        return age if longest is None else longest if age is None else min(age, longest)


class SampleRule(Model):
    """Which traces are kept once they are over. Sums are of all of them, by weight."""

    name: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """How the rule is called where it is counted; its place in the list when left out."""
    when: str = "true"
    """A condition (CEL) on a whole trace. Names: agent, group, name, session, duration_s, spans, errors, lost,
    calls, tools, tool_errors, side_effects, turns, refusals, input_tokens, output_tokens, cost_usd, outcome,
    goal_missed, escalated, flagged, bad_feedback, models, tool_names, tags."""
    keep: Share
    """The share of such traces that is kept."""


class ForwardTarget(Model):
    """Another back-end that is sent what the hub keeps, by OTLP over HTTP. What it cannot take waits on disk."""

    url: Url
    """Where /v1/traces, /v1/metrics and /v1/logs are below, such as http://tempo:4318."""
    headers: Annotated[dict[Header, Word], AfterValidator(_check_headers)] = {}
    """Sent with each request. `env:NAME` of the environment that `midwatch up` is started in, or `file:PATH`;
    anything that is no secret may stand here as it is."""
    signals: Annotated[list[Literal["spans", "points", "logs"]], Field(min_length=1)] = [
        "spans",
        "points",
        "logs",
    ]
    """What it is sent."""
    contents: bool = True
    """False: without prompts, answers, arguments and results."""
    agents: list[Pattern] = []
    """Only of these agents, with * and ?; of all when left out."""
    queue: Size = 1024**3
    """What may wait on disk while the target is down; beyond, the oldest is dropped and counted."""
    timeout: Annotated[Duration, Field(ge=0.1, le=300)] = 10.0
    """How long one request may take."""
    compression: Literal["gzip", "zstd", "none"] = "gzip"
    """How requests are packed."""


class Stores(Model):
    """Where hubs of several machines keep what they share. Left out: files of the data directory."""

    state: Annotated[str, AfterValidator(check_postgres)] | None = None
    """Agents, runs, incidents: a PostgreSQL database, as postgresql://…, or env:NAME when its address holds a
    password."""
    telemetry: Annotated[str, AfterValidator(_check_clickhouse)] | None = None
    """Spans, beats, logs: a ClickHouse database by its HTTP address, as http://clickhouse:8123/midwatch, or
    env:NAME when that holds a password."""


class HubListen(Model):
    """The hub: addresses of its pages, its API and OpenTelemetry, and what it does with telemetry."""

    listen: Listen = "127.0.0.1:8700"
    """Pages and API, host:port."""
    otlp_http: Listen | None = None
    """OTLP over HTTP at the usual address, besides the one above; 127.0.0.1:4318 for example."""
    otlp_grpc: Listen | None = None
    """OTLP over gRPC; 127.0.0.1:4317 for example."""
    public_url: Annotated[str, AfterValidator(_check_public)] | None = None
    """The address by which people reach the pages, where it is another one: https://midwatch.example.com behind a load
    balancer. Forms of its pages are taken, its name is one of the hub's, and login links lead there."""
    hosts: Annotated[list[Annotated[str, Field(pattern=_HOST)]], Field(max_length=50)] = []
    """Further names by which programs call the hub (Host header, without the port), besides those of this machine and
    of `public_url`."""
    keep: Keep = Keep()
    sample: Annotated[list[SampleRule], Field(max_length=50)] = []
    """Rules, in order, for traces that are over: the first whose condition holds decides. Without any that holds
    a trace is kept."""
    forward: dict[str, ForwardTarget] = {}
    """Other back-ends, by name."""
    stores: Stores = Stores()
    tags: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]],
        Field(max_length=16),
    ] = ["customer", "task", "version", "environment"]
    """Tags that sums are split by. Of each an agent's first 200 values of a day are told apart, the others are `other`."""

    @field_validator("tags")
    @classmethod
    def _each_once(cls, tags: list[str], _info: ValidationInfo) -> list[str]:
        twice = next((tag for at, tag in enumerate(tags) if tag in tags[:at]), None)
        if twice is not None:
            raise units.Unexpected("each tag once", twice)
        return tags
