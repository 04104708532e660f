"""Delivers what is in the delivery book: at least once, retried with back-off, one at a time per target.

The loop holds no decision: `core.notify` writes the text and says when the next attempt is. A target
that hangs delays only itself. The first message goes at once; what comes within PACE_S of it follows as
one, so that a fleet that fails for one cause is not a message for each agent on somebody's phone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import tzinfo
from pathlib import Path
from typing import Final

from midwatch.core.errors import DeliveryError, StoreError
from midwatch.core.fleet import Fleet
from midwatch.core.incident import Incident
from midwatch.core.notify import (
    CONSOLE,
    Delivery,
    DeliveryState,
    Routes,
    after_attempt,
    digest,
    gravity,
    notices,
    write,
)
from midwatch.core.ports import DeliveryBook
from midwatch.core.times import zone_of
from midwatch.watch.sender import AppriseSender, Console
from midwatch.wire.ids import new_id

BATCH: Final = 1_000
"""Deliveries looked at in one round; many, so that a dead target's backlog does not hide the others."""

PACE_S: Final = 5.0
"""Between two messages to one target; the console takes every line at once."""

LONGEST_SLEEP_S: Final = 30.0
"""The loop looks at the book at least so often: clocks jump, and stores come back."""

log = logging.getLogger(__name__)


class Notifier:
    """Turns incidents into deliveries, and sends them."""

    def __init__(
        self,
        *,
        deliveries: DeliveryBook,
        fleet: Fleet,
        clock: Callable[[], float],
        incident_of: Callable[[str], Awaitable[Incident | None]],
        console: Console,
    ) -> None:
        self._deliveries = deliveries
        self._clock = clock
        self._incident_of = incident_of
        self._console = console
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._paced: dict[str, float] = {}
        """When a target takes its next message, by the loop's own clock."""
        self.delivered = 0
        self.failed_attempts = 0
        self.given_up = 0
        self.store_failures = 0
        self.reload(fleet)

    def reload(self, fleet: Fleet) -> None:
        """Take new routes and targets."""
        self._fleet = fleet.fleet
        self._zone: tzinfo = zone_of(fleet.timezone)
        self.routes = Routes(fleet)
        for problem in self.routes.bad:
            log.warning("a route applies always: %s", problem)
        self._sender = AppriseSender(Path(fleet.root), fleet.notify)
        self._wake.set()

    async def tell(self, incident: Incident) -> None:
        """Write down what is to be told of an incident now; raises StoreError."""
        now = self._clock()
        fresh: set[str] = set()
        for notice in notices(incident, self.routes.targets(incident), now):
            if notice.target in fresh:
                continue
            title, body = write(notice.why, incident, self._fleet, now, self._zone)
            delivery = Delivery(
                id=new_id(),
                key=notice.key,
                incident_id=incident.id,
                target=notice.target,
                why=notice.why,
                title=title,
                body=body,
                created_at=now,
                next_at=notice.next_at,
            )
            if await self._deliveries.add(delivery):
                fresh.add(notice.target)
        if fresh:
            self._wake.set()

    def start(self) -> None:
        """Start the loop; what was pending before is due as it was."""
        self._loop = asyncio.get_running_loop().create_task(self._run(), name="notifier")

    async def stop(self) -> None:
        """End the loop and what is being sent; it stays pending in the book."""
        tasks = [t for t in (self._loop, *self._busy.values()) if t is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loop = None
        self._busy.clear()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            wait = LONGEST_SLEEP_S
            try:
                wait = await self._round()
            except StoreError as error:
                self.store_failures += 1
                log.warning("cannot read the delivery book, trying again: %s", error)
                wait = 1.0
            # not wait_for: on Python 3.11 it can swallow a cancellation that comes with the event
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    async def _round(self) -> float:
        """Start what is due; return how long to sleep when nothing wakes the loop."""
        now = self._clock()
        due: dict[str, list[Delivery]] = {}
        for delivery in await self._deliveries.due(now, BATCH):
            due.setdefault(delivery.target, []).append(delivery)
        loop = asyncio.get_running_loop()
        # whoever ends wakes the loop; what becomes due meanwhile must not wait for that
        wait = 1.0
        for target, batch in due.items():
            if target in self._busy:
                continue
            pause = self._paced.get(target, 0.0) - loop.time()
            if pause > 0:
                wait = min(wait, pause)
                continue
            self._busy[target] = loop.create_task(self._deliver(target, batch))
        if due:
            return wait
        following = await self._deliveries.next_at()
        return (
            LONGEST_SLEEP_S
            if following is None
            else min(max(0.0, following - now), LONGEST_SLEEP_S)
        )

    async def _deliver(self, target: str, batch: list[Delivery]) -> None:
        try:
            if target == CONSOLE:
                for delivery in batch:
                    await self._attempt(target, [delivery])
            else:
                await self._attempt(target, batch)
        except StoreError as error:
            # it stays as it was, and is sent once more: at least once
            self.store_failures += 1
            log.warning("cannot write to the delivery book, trying again: %s", error)
            await asyncio.sleep(1.0)
        finally:
            self._paced[target] = asyncio.get_running_loop().time() + (
                0.0 if target == CONSOLE else PACE_S
            )
            self._busy.pop(target, None)
            self._wake.set()

    async def _attempt(self, target: str, batch: list[Delivery]) -> None:
        """Send deliveries to one target as one message; what becomes of it holds for each of them."""
        incidents = [await self._incident_of(d.incident_id) for d in batch]
        for delivery, incident in zip(batch, incidents, strict=True):
            if incident is not None:
                # the incident as it is now: what was done since may be said
                delivery.title, delivery.body = write(
                    delivery.why, incident, self._fleet, self._clock(), self._zone
                )
        error, permanent = None, False
        try:
            await self._send(target, batch, [i for i in incidents if i is not None])
        except DeliveryError as problem:
            error, permanent = str(problem), problem.permanent
        except Exception as problem:  # noqa: BLE001  whatever fails is a failed attempt, counted below
            # its text may hold parts of a URL
            error = f"{target}: {type(problem).__name__} while sending"
        for delivery in batch:
            after_attempt(delivery, error, self._clock(), permanent=permanent)
            self._count(delivery)
            await self._deliveries.save(delivery)

    async def _send(self, target: str, batch: list[Delivery], about: list[Incident]) -> None:
        first = batch[0]
        if target == CONSOLE:
            self._console(f"{first.title}: {first.body.partition(chr(10))[0]}")
            return
        title, body = (first.title, first.body) if len(batch) == 1 else digest(batch, self._fleet)
        severity, over = gravity(about)
        await self._sender.send(target, title, body, severity, over)

    def _count(self, delivery: Delivery) -> None:
        if delivery.state is DeliveryState.DELIVERED:
            self.delivered += 1
            return
        self.failed_attempts += 1
        if delivery.state is DeliveryState.FAILED:
            self.given_up += 1
            log.error("gave up telling %s: %s", delivery.target, delivery.error)
        elif delivery.attempts == 1:
            log.warning("could not tell %s, trying again: %s", delivery.target, delivery.error)
