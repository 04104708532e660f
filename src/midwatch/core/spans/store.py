"""The seam to whatever keeps telemetry: DuckDB and Parquet, ClickHouse, or memory. One suite holds for all.

What `append` returned is on disk: no crash, no `settle` and no restart takes it back but retention, sampling and
`drop`. Everything may be asked again at any time, from any number of tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from midwatch.core.spans.form import SESSION, TAGS, USER, Batch, Row, Signal
from midwatch.core.spans.values import load_all


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of one batch."""

    fresh: Batch
    """Its rows that were not there before, and those that replaced a lower rank, each span once: for the watch and
    for forwarding."""
    new: int
    """Spans, points and log records among them."""
    replaced: int
    """Spans that took the place of an open or lost one."""
    duplicates: int
    """The other spans, points and log records: stored already, or twice in the batch."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What one round of settling did."""

    sealed: int = 0
    """Spans that were moved to where they stay, counted once and summed."""
    sampled: int = 0
    """Spans that sampling let go; their sums stay, by weight."""
    expired: Mapping[Signal, int] = field(default_factory=dict[Signal, int])
    """Rows that retention let go."""
    freed_bytes: int = 0
    left: int = 0
    """Spans that are not settled yet: too young, or of a trace that is still going on."""


@dataclass(frozen=True, slots=True)
class Selector:
    """What to drop. All that is given must hold; of several values one must. Raises ValueError when nothing is.

    `sessions`, `users` and `tags` select whole traces, those in which one span says so, all of what is given: what
    stands beside it in its trace belongs to it. Contents and log records go with their spans; points know none of these.
    """

    signals: frozenset[Signal] = frozenset(Signal)
    agents: frozenset[str] = frozenset()
    runs: frozenset[str] = frozenset()
    sessions: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    traces: frozenset[bytes] = frozenset()
    before_ns: int | None = None
    """Only what began before."""

    def __post_init__(self) -> None:
        if not self.signals:
            raise ValueError("nothing is selected: name one of spans, contents, points, logs")
        if self.before_ns is None and not (
            self.agents or self.runs or self.sessions or self.users or self.tags or self.traces
        ):
            raise ValueError(
                "everything would be selected: name an agent, run, session, user, tag, trace, or a time"
            )

    @property
    def by_trace(self) -> bool:
        """Tell whether it goes by what only spans know, so that it selects whole traces."""
        return bool(self.sessions or self.users or self.tags)

    def chosen_by(self, span: Row) -> bool:
        """Tell whether a span says what chooses its trace: session, user and tags, all that are asked for."""
        said = load_all(span[TAGS]) if self.tags else {}
        return (
            (not self.sessions or span[SESSION] in self.sessions)
            and (not self.users or span[USER] in self.users)
            and all(said.get(name) == value for name, value in self.tags.items())
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """That it is gone: what the selector found before, and what it finds after."""

    before: Mapping[Signal, int]
    after: Mapping[Signal, int]
    freed_bytes: int = 0
    """What the store gave back to the disk."""

    @property
    def complete(self) -> bool:
        """Tell whether nothing is left."""
        return not any(self.after.values())


@dataclass(frozen=True, slots=True)
class Held:
    """How much there is of something."""

    rows: int = 0
    size_bytes: int = 0
    oldest_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of what is held that can be given back to the disk as it is."""

    from_ns: int
    to_ns: int
    """The last time of any of its rows."""
    size_bytes: int
    agents: Mapping[str, int] = field(default_factory=dict[str, int])
    """Rows, by agent."""

    def of(self, agent: str) -> Piece | None:
        """Return an agent's share of it by rows, or None when it has none."""
        rows = self.agents.get(agent)
        if not rows:
            return None
        share = rows * self.size_bytes // sum(self.agents.values())
        return Piece(self.from_ns, self.to_ns, share, {agent: rows})


@dataclass(frozen=True, slots=True)
class Footprint:
    """What the store holds. Sizes are on its disk; of what is not written apart, an estimate by rows."""

    size_bytes: int
    """All of it, with logs and indexes."""
    signals: Mapping[Signal, Held]
    agents: Mapping[str, Mapping[Signal, Held]]
    hot: int = 0
    """Spans that are not settled yet."""
    open: int = 0
    """Spans that are open."""
    pieces: Sequence[Piece] = ()
    """What could be given back as a whole; empty where a store cannot tell."""


class SpanStore(Protocol):
    """Where telemetry is kept. Every method raises StoreError; `permanent` says that the same would fail again."""

    async def append(self, batch: Batch) -> Kept:
        """Keep what is new; it is durable when this returns. All of the batch is kept or, raising, none.

        A span that is there already stays, unless its new row has a higher rank. Points and log records are one
        by their ids, contents by `content_key`. Contents that come with a duplicate are not kept again: they may
        have been dropped. Those of a log record are kept before their span as well.
        """
        ...

    async def settle(self, now: float) -> Settled:
        """Seal, count once, sample, sum and expire what is due at `now` (Unix seconds). May end early: call again."""
        ...

    async def close_lost(self, run_id: str, at: float, *, final: bool = True) -> int:
        """Mark the open spans of a run as lost at this time (Unix seconds); return how many there were.

        Spans of the run that are announced later are lost at once, unless it is not `final`: a run on a node that has
        fallen silent may live. A late end still replaces a lost one.
        """
        ...

    async def close_silent(self, before: float, at: float) -> int:
        """Mark open spans that belong to no run and began before this time as lost; return how many there were."""
        ...

    async def open_runs(self) -> Mapping[str, int]:
        """Return how many spans are open of each run: what a hub that starts compares with the runs that live."""
        ...

    async def newest(self, since_ns: int) -> Mapping[str, int]:
        """Return the latest start of each agent's spans, of those that began from then on: who was there before the
        hub started."""
        ...

    async def drop(self, what: Selector) -> Proof:
        """Remove what is selected from disk, wherever it lies: durable, and not to be found in any file after."""
        ...

    async def footprint(self) -> Footprint:
        """Return what is held now."""
        ...

    async def probe(self) -> None:
        """Write and read for real. Raises StoreError when either fails: it is what `/readyz` asks."""
        ...

    async def stop(self) -> None:
        """Write what waits and let go of everything. What follows raises StoreError."""
        ...
