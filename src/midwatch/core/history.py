"""What the store gives the fleet view at start: the last known things of each agent.

The view folds committed items. After a restart of the hub it starts from these rows instead of
from every item ever stored; each field may be missing, and a missing one is shown as no data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from midwatch.wire.items import Item

KEPT_BEATS = 60
"""Beats per agent that the store hands over: the baseline's 50 and the page's strip of 60."""

GAPS = ("supervisor.lost", "hub.down", "gateway.down")
"""Events that tell of a time when a part of Midwatch was away."""


@dataclass(frozen=True, slots=True)
class DaySums:
    """Sums over one agent's beats since the start of the fleet's day. None: nothing reported it."""

    cycles: int = 0
    tokens: int | None = None
    cost_nusd: int | None = None
    """As the beats of runs say whose calls the gateway did not carry."""
    items: int | None = None
    unit: str | None = None
    """The `unit` of the last beat that named one."""
    restarts: int = 0
    """`run.started` events of the day whose `attempt` is over 1, or whose `why` tells of a restart."""
    carried_nusd: int | None = None
    """Of the calls that the gateway carried."""
    carried: Sequence[str | None] = ()
    """Runs whose calls it carried."""


@dataclass(frozen=True, slots=True)
class AgentHistory:
    """The last known things of one agent. Items are as `wire.items.read` returned them."""

    agent: str
    beats: Sequence[Item] = ()
    """The newest KEPT_BEATS beats, oldest first."""
    state: Item | None = None
    """The newest `agent.state` event."""
    started: Item | None = None
    """The newest `run.started` event."""
    ended: Item | None = None
    """The newest `run.ended` event."""
    sample: Item | None = None
    """The newest sample."""
    today: DaySums = field(default_factory=DaySums)
    """Sums since `core.times.day_start(now, zone)`."""
    sent: Sequence[tuple[int, int, tuple[int, int, int]]] = ()
    """Of the last days: how many days back, calls that were answered, tokens sent to them (`core.outlay`)."""
    gaps: Sequence[Item] = ()
    """Of Midwatch itself: its newest event of each of GAPS."""
