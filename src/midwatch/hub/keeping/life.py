"""The life of telemetry in one hub: how long it stays, what of it goes on elsewhere, and when no more may come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.fleet import Fleet
from midwatch.core.ports import Marks, Space
from midwatch.core.spans.form import Batch
from midwatch.core.spans.keeping import Guarded, Samples
from midwatch.core.spans.store import Kept, Proof, Selector, SpanStore
from midwatch.hub.forwarding.forgetting import Forgetting
from midwatch.hub.forwarding.forwarding import Forwarding
from midwatch.hub.forwarding.forwarding import State as Target
from midwatch.hub.keeping.guarding import DiskGuard, Tell
from midwatch.hub.keeping.keeper import Keeper, Small
from midwatch.hub.keeping.trusting import ClockTrust, TellClock
from midwatch.store.opening import traces_of
from midwatch.store.space import DiskSpace

UNDER_WAY_S: Final = 60.0
"""How long an order to delete waits for posts that came before it: a disk that hangs must not hold it for ever."""

log = logging.getLogger(__name__)


class Life:
    """Keeper, guard and forwarding by the fleet file's `hub`. `start` once the store is open."""

    def __init__(
        self,
        store: SpanStore,
        folder: Path,
        fleet: Fleet,
        counts: Counts,
        clock: Callable[[], float],
        *,
        small: Small | None = None,
        tell: Tell | None = None,
        tell_clock: TellClock | None = None,
        space: Space | None = None,
        mine: Callable[[], Awaitable[bool]] | None = None,
        marks: Marks | None = None,
    ) -> None:
        """`folder` is on the disk that is guarded; queues of other back-ends lie in it. `small` keeps beats, events
        and samples; `tell` hears how the disk is, `tell_clock` when the clock jumps; `mine` tells whether
        this hub settles and lets go, where several share a store; by `marks` they hear that a clock was confirmed."""
        self._store = store
        self._fleet = fleet
        self._counts = counts
        self._clock = clock
        letting = None
        if isinstance(store, Samples):
            letting = store.letting(lambda: self._fleet.hub.sample, self._group_of)
        self.trust = ClockTrust(folder / "clock.json", counts, clock, tell_clock, marks=marks)
        self.keeper = Keeper(
            store,
            lambda: self._fleet.hub.keep,
            counts,
            clock,
            small=small,
            sampling=letting,
            mine=mine,
            trust=self.trust,
        )
        self.guard = DiskGuard(
            folder,
            space if space is not None else DiskSpace(),
            lambda: self._fleet.hub.keep.free,
            tell if tell is not None else _untold,
            counts,
        )
        self._forwarding = Forwarding(folder / "forward", counts, clock)
        self._under_way = set[asyncio.Future[None]]()
        self._orders: list[Forgetting] = []
        self._setting: asyncio.Task[None] | None = None
        self._started = False

    def _group_of(self, agent: str) -> str | None:
        known = self._fleet.agents.get(agent)
        return known.group if known is not None else None

    @property
    def targets(self) -> list[Target]:
        """How it stands with each back-end that telemetry goes on to."""
        return self._forwarding.states

    def closed(self) -> str | None:
        """Return why no telemetry may come in, or None when it may: for `ingest.admission`."""
        return self.guard.closed()

    async def append(self, batch: Batch) -> Kept:
        """Keep a batch; what of it is new is queued for other back-ends when this returns. Raises StoreError: then
        nothing was kept."""
        under_way = asyncio.get_running_loop().create_future()
        self._under_way.add(under_way)
        try:
            kept = await self._store.append(batch)
            for order in self._orders:
                order.see(kept.fresh.spans)
            await self._forwarding.see(kept.fresh)
        finally:
            self._under_way.discard(under_way)
            under_way.set_result(None)
        return kept

    async def forget(self, what: Selector) -> tuple[Proof, int]:
        """Delete what is selected from the store and from what waits for other back-ends; return the store's proof,
        and how many items no longer wait. Raises StoreError."""
        order = await self.begin(what)
        try:
            proof = await self._store.drop(what)
            await self.end(order)
        finally:
            self.leave(order)
        return proof, order.removed

    async def begin(self, what: Selector) -> Forgetting:
        """Delete what is selected from what waits for other back-ends, before the store drops it: what that no longer
        knows could choose nothing here, should the hub be killed in between. Raises StoreError."""
        order = Forgetting(what)
        self._orders.append(order)
        try:
            order.know(await traces_of(self._store, what))
            if self._forwarding.waits:
                await self._forwarding.forget(order)
        except BaseException:
            self.leave(order)
            raise
        return order

    async def end(self, order: Forgetting) -> None:
        """Do so once more, when the store has dropped it: what that kept before may have been on its way to a queue.
        Raises StoreError."""
        if self._under_way:
            _, left = await asyncio.wait(tuple(self._under_way), timeout=UNDER_WAY_S)
            if left:
                raise StoreError(
                    f"{len(left)} posts that came before were not kept within {UNDER_WAY_S:.0f} s, and may bring more of it;"
                    " look at the disk, then repeat the order"
                )
        if self._forwarding.waits:
            await self._forwarding.forget(order)

    def leave(self, order: Forgetting) -> None:
        """Look no more for what an order chooses."""
        if order in self._orders:
            self._orders.remove(order)

    async def start(self) -> None:
        """Look at the disk, and begin to forward."""
        self._started = True
        await self._forwarding.set(self._fleet.hub.forward)
        await self.guard.start()

    def reload(self, fleet: Fleet) -> None:
        """Take a new fleet file."""
        self._fleet = fleet
        if self._started:
            before = self._setting
            self._setting = asyncio.create_task(self._set(before), name="forwarding set")

    async def _set(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        await self._forwarding.set(self._fleet.hub.forward)

    async def round(self) -> None:
        """Do all that is due now. A round that fails is counted and tried again with the next."""
        try:
            await self.keeper.round(self._clock())
            # asked again: a hub that does not settle has not looked at its clocks yet
            await self._forwarding.sweep(await self.trust.aged(self.keeper.newest))
        except StoreError as error:
            self._counts.add("keeping_failures", "store")
            log.warning("telemetry is settled later: %s", error)
        except (
            Exception
        ):  # its caller is a loop that must outlive its faults, or nothing would be sealed
            self._counts.add("keeping_failures", "fault")
            log.exception("telemetry is settled later")

    async def stop(self) -> None:
        """Look no more and send no more. What waits stays."""
        await self.guard.stop()
        if self._setting is not None:
            await asyncio.wait([self._setting])
        await self._forwarding.stop()


async def _untold(_: Guarded) -> None:
    """Tell nobody."""
