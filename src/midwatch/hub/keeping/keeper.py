"""A round of keeping: seal and settle what is due, let samples go, expire by age and by size.

Each may fail and is tried again with the next round; nothing here keeps telemetry from being taken.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from midwatch.core.counts import Counts
from midwatch.core.spans.form import Signal
from midwatch.core.spans.keeping import Expires, Expiry, Sampling, due
from midwatch.core.spans.store import Proof, Selector, Settled, SpanStore
from midwatch.core.telemetry import Keep
from midwatch.hub.keeping.trusting import ClockTrust

SELDOM_S: Final = 3_600.0
"""Distance of what is dear and can wait: rows of `telemetry.duckdb`, and stores that can only drop."""


class Small(Protocol):
    """Who keeps beats, events and samples."""

    async def expire(self, kind: str, before: float, agents: Mapping[str, float]) -> int:
        """Remove what is older than `before`, of `agents` what is older than theirs (Unix seconds; -inf: nothing);
        return how many rows went. Raises StoreError."""
        ...


@dataclass(slots=True)
class Kept:
    """What the rounds did so far, for `/metrics`."""

    rounds: int = 0
    sealed: int = 0
    sampled: int = 0
    freed_bytes: int = 0
    expired: dict[str, int] = field(default_factory=dict[str, int])


class Keeper:
    """Keeps telemetry within what the fleet file says. `keep` returns that at the time."""

    def __init__(
        self,
        store: SpanStore,
        keep: Callable[[], Keep],
        counts: Counts,
        clock: Callable[[], float],
        *,
        small: Small | None = None,
        sampling: Sampling | None = None,
        mine: Callable[[], Awaitable[bool]] | None = None,
        trust: ClockTrust | None = None,
    ) -> None:
        """`mine` tells whether this hub is the one that does it, where several share a store; by `trust` ages are
        reckoned, without it by the time of each round."""
        self.done = Kept()
        self._store = store
        self._keep = keep
        self._counts = counts
        self._clock = clock
        self._small = small
        self._sampling = sampling
        self._mine = mine
        self._trust = trust
        self._seldom_at = float("-inf")

    async def round(self, now: float) -> None:
        """Do all that is due at `now` (Unix seconds). Raises StoreError."""
        if self._mine is not None and not await self._mine():
            return
        # before anything is let go: settling may expire by itself
        aged = now if self._trust is None else await self._trust.aged(self.newest)
        self._note(await self._store.settle(aged))
        if self._sampling is not None:
            self._let_go(await self._sampling.round(aged))
        keep = self._keep()
        expiry = due(keep, await self._store.footprint(), aged)
        # at the first round, and when the clock was set back, too
        seldom = not self._seldom_at <= now < self._seldom_at + SELDOM_S
        if isinstance(self._store, Expires):
            self._note(await self._store.expire(expiry))
        elif seldom:
            await self._drop(expiry)
        if self._small is not None and seldom:
            await self._expire_small(self._small, keep, aged)
        if seldom:
            self._seldom_at = now
        self.done.rounds += 1

    async def newest(self) -> float | None:
        """Return the time of the newest that is stored (Unix seconds), if anything is. Raises StoreError."""
        held = await self._store.footprint()
        return max((piece.to_ns / 1e9 for piece in held.pieces), default=None)

    def _note(self, settled: Settled) -> None:
        self.done.sealed += settled.sealed
        self.done.freed_bytes += settled.freed_bytes
        self._let_go(settled.sampled)
        for signal, rows in settled.expired.items():
            self._expired(signal.value, rows)

    def _let_go(self, spans: int) -> None:
        if spans:
            self.done.sampled += spans
            self._counts.add("sampled", "span", spans)

    def _expired(self, kind: str, rows: int) -> None:
        if rows:
            self.done.expired[kind] = self.done.expired.get(kind, 0) + rows
            self._counts.add("expired", kind, rows)

    async def _drop(self, expiry: Expiry) -> None:
        """Let a store go that knows only selectors: by agent where agents differ, else all at once."""
        held = await self._store.footprint()
        if not expiry.agents:
            whose = [("", frozenset[str]())]
        else:
            whose = [(agent, frozenset({agent})) for agent in sorted(held.agents)]
        for agent, agents in whose:
            for signal in Signal:
                before_ns = expiry.before_ns(signal, agent)
                of = held.agents.get(agent, {}) if agent else held.signals
                oldest = of[signal].oldest_ns if signal in of else None
                if oldest is None or oldest >= before_ns:
                    continue
                what = Selector(frozenset({signal}), agents=agents, before_ns=before_ns)
                proof: Proof = await self._store.drop(what)
                self.done.freed_bytes += proof.freed_bytes
                self._expired(signal.value, proof.before.get(signal, 0))

    async def _expire_small(self, small: Small, keep: Keep, now: float) -> None:
        for kind in ("beats", "events", "samples"):
            age_s = keep.age_s("", kind)
            before = float("-inf") if age_s is None else now - age_s
            agents: dict[str, float] = {}
            for agent in keep.agents:
                own = keep.age_s(agent, kind)
                agents[agent] = float("-inf") if own is None else now - own
            with contextlib.suppress(KeyError):
                self._expired(kind, await small.expire(kind, before, agents))
