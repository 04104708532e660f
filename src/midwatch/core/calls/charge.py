"""What the ledger is told of a call, and what it remembers: the reservation, the charge, the call's row.

Each row keeps the usage and the version of the prices, so that its cost can be computed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from midwatch.core.calls.account import Payer
from midwatch.core.calls.budget import Limit
from midwatch.core.sealed import sealed

MAX_NUSD: Final = 10**18
"""A thousand million dollars: more is no price, and sums of it would not fit into 64 bits."""

Json = Mapping[str, Any]


@sealed
class Reservation:
    """A call that is about to be made."""

    call_id: str
    payer: Payer
    worst_nusd: int
    """The most that it can cost."""
    at: float
    """Unix seconds; decides to which day, month and hour the call belongs."""
    deadline_at: float
    """After this, a reservation that nobody settled is counted at its worst case."""
    limits: tuple[Limit, ...] = ()
    model_asked: str = ""
    task: str | None = None
    gateway: str = ""
    """The process that carries the call."""
    provider: str = ""
    """Who is asked, for which model, with which of its keys: by that the call can be looked up there later."""
    model: str = ""
    sent_key: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.worst_nusd <= MAX_NUSD:
            raise ValueError(
                f"a call's worst case is 0 to {MAX_NUSD} nano-dollars, got {self.worst_nusd!r};"
                " bound its output"
            )


@sealed
class Charge:
    """What a call came to."""

    cost_nusd: int
    """What is counted: the higher one where sources of prices differ."""
    at: float
    model: str = ""
    """The model that served."""
    provider: str = ""
    usage: Json = field(default_factory=dict[str, Any])
    """As read from the answer; what the cost is computed from."""
    input_tokens: int = 0
    output_tokens: int = 0
    price_version: str = ""
    costs: Mapping[str, int] = field(default_factory=dict[str, int])
    """Nano-dollars by source: each table of prices, and `provider` where it reports its own."""
    disputed: bool = False
    estimated: bool = False
    """True when usage or price was not known and had to be estimated."""
    saved_nusd: int = 0
    """What an answer from the cache would have cost."""
    attempts: Sequence[Json] = ()
    outcome: str = "ok"
    """How the exchange ended, in a word."""

    def __post_init__(self) -> None:
        if not 0 <= self.cost_nusd <= MAX_NUSD or not 0 <= self.saved_nusd <= MAX_NUSD:
            raise ValueError(
                f"a call costs 0 to {MAX_NUSD} nano-dollars, got {self.cost_nusd!r}"
                f" and saved {self.saved_nusd!r}"
            )


class CallState(StrEnum):
    """Where a call's money stands."""

    OPEN = "open"
    """Reserved at its worst case."""
    SETTLED = "settled"
    RELEASED = "released"
    """Nothing was sent upstream: it costs nothing."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call as the ledger remembers it."""

    call_id: str
    state: CallState
    agent: str
    group: str | None
    run: str | None
    session: str | None
    key: str | None
    task: str | None
    tags: Mapping[str, str]
    accounts: tuple[str, ...]
    """What it is charged to."""
    day: str
    """`2026-03-29`, in the fleet's time zone when it was reserved."""
    reserved_at: float
    deadline_at: float
    settled_at: float | None
    reserved_nusd: int
    cost_nusd: int
    """0 while it is open."""
    saved_nusd: int
    model_asked: str
    model: str
    provider: str
    usage: Json
    input_tokens: int
    output_tokens: int
    price_version: str
    costs: Mapping[str, int]
    disputed: bool
    estimated: bool
    attempts: tuple[Json, ...]
    outcome: str
    gateway: str
    sent_key: str = ""
    """Name of the provider's key that it was made with."""
    response: str = ""
    """The provider's id of the answer, where calls can be looked up by it."""

    @property
    def charged_nusd(self) -> int:
        """Return what counts against budgets now."""
        return self.reserved_nusd if self.state is CallState.OPEN else self.cost_nusd


@dataclass(frozen=True, slots=True)
class Correction:
    """A call's cost that was put right by exact figures."""

    call_id: str
    at: float
    by: str
    """Who had them: `openrouter`, or the person who brought them."""
    was_nusd: int
    """What had counted until then."""
    cost_nusd: int


class By(StrEnum):
    """What cost is summed by."""

    AGENT = "agent"
    GROUP = "group"
    MODEL = "model"
    PROVIDER = "provider"
    SESSION = "session"
    RUN = "run"
    TASK = "task"
    KEY = "key"
    SENT_KEY = "sent_key"
    """The provider's key that it was made with, `openai/main`."""
    DAY = "day"
    TAG = "tag"


@dataclass(frozen=True, slots=True)
class CallQuery:
    """Which calls: every field that is given must match. Times are Unix seconds of the reservation."""

    agent: str | None = None
    """With its sub-agents."""
    group: str | None = None
    run: str | None = None
    session: str | None = None
    key: str | None = None
    tag: str | None = None
    """`customer=acme`, or `customer` for any value."""
    model: str | None = None
    state: CallState | None = None
    since: float | None = None
    until: float | None = None
    """Exclusive."""
    before: str | None = None
    """A call id: older calls than this one; for paging."""
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Cost:
    """One row of a sum."""

    name: str
    """Of the agent, model, …; empty for calls that have none."""
    calls: int
    cost_nusd: int
    saved_nusd: int
    input_tokens: int
    output_tokens: int
    disputed: int
    """Calls whose sources of prices differ."""
    estimated: int
    """Calls that had to be estimated."""
