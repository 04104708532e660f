"""Spans, metrics and log records in one hub: where they come in, where they lie, and what ends with a run.

hub's own address ─┐
4318, 4317 ────────┴▶ admission ▶ rows ▶ store ▶ watch ▶ answer        ⇒ settled, closed as lost
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from itertools import islice
from pathlib import Path
from typing import Final

from midwatch.core.access import Caller
from midwatch.core.counts import Counts
from midwatch.core.errors import SetupError
from midwatch.core.fleet import Fleet
from midwatch.core.ports import Marks
from midwatch.core.spans.digest import SpanObserver
from midwatch.core.telemetry import HubListen
from midwatch.core.view import FleetView
from midwatch.hub.keeping.guarding import Tell
from midwatch.hub.keeping.keeper import Small
from midwatch.hub.keeping.life import Life
from midwatch.hub.keeping.trusting import TellClock
from midwatch.hub.listeners import Listeners
from midwatch.hub.losing import Find, Losing
from midwatch.hub.prices import pricer, set_prices, written_at
from midwatch.ingest.admission import Admission
from midwatch.ingest.otlp.http import OtlpHttp
from midwatch.ingest.otlp.intake import OtlpIntake, Registry
from midwatch.store.opening import HubStores
from midwatch.store.spans.settled import Books, Terms

SETTLE_EVERY_S: Final = 30.0
"""How often the store is asked to seal, count, sum and compact what is due, and to let go what is too old."""

MAX_MODELS: Final = 1_000
"""Models whose windows are at hand; names come from agents."""

log = logging.getLogger(__name__)


class SpanRoom:
    """Everything of telemetry but beats, events and samples. `start` before `http` is called, `stop` last."""

    def __init__(
        self,
        stores: HubStores,
        roster: Registry,
        observer: SpanObserver,
        view: FleetView,
        find_run: Find,
        by_token: Callable[[str], Awaitable[Caller | None]],
        fleet: Fleet,
        data: Path,
        counts: Counts,
        clock: Callable[[], float],
        *,
        small: Small | None = None,
        tell: Tell | None = None,
        tell_clock: TellClock | None = None,
        mine: Callable[[], Awaitable[bool]] | None = None,
        marks: Marks | None = None,
    ) -> None:
        """`small` keeps beats, events and samples; `tell` hears how the disk is, `tell_clock` when the clock jumps."""
        self._clock = clock
        self._counts = counts
        self._view = view
        self._models: set[str] = set()
        self._books = Books(Terms(self.groups, self.windows, lambda: self._fleet.hub.tags))
        self.store = stores.spans(self._books, self.windows, lambda: self._fleet.hub.tags)
        self.losing = Losing(self.store, view, find_run, counts, clock)
        self.life = Life(
            self.store,
            data / "hub",
            fleet,
            counts,
            clock,
            small=small,
            tell=tell,
            tell_clock=tell_clock,
            mine=mine,
            marks=marks,
        )
        door = Admission(closed=self.life.closed)
        intake = OtlpIntake(self.life, roster, observer, door, counts, clock)
        self._intake = intake
        self.http = OtlpHttp(intake)
        self._listeners = Listeners(intake, by_token)
        self._working: list[asyncio.Task[None]] = []
        self.reload(fleet, data)

    async def start(self) -> None:
        """Open the store and begin to take. Raises SetupError, StoreError."""
        await self.store.open()
        await self.life.start()
        self._working = [
            asyncio.create_task(self._settle_on(), name="spans settling"),
            asyncio.create_task(self.losing.run(), name="spans losing"),
        ]

    def reload(self, fleet: Fleet, data: Path) -> None:
        """Take a new fleet file: its prices, what is kept, where telemetry goes on to."""
        self._fleet, self._data = fleet, data
        self.life.reload(fleet)
        self._price()

    def _price(self) -> None:
        self._priced_at = written_at(set_prices(self._data))
        self._pricer = self._intake.pricing = pricer(self._fleet, self._data)

    def groups(self) -> dict[str, str]:
        """Return the group of each agent that has one; sub-agents have their parent's."""
        known = [self._view.look(name) for name in self._view.names()]
        return {a.name: a.config.group for a in known if a is not None and a.config.group}

    def windows(self, models: Collection[str]) -> dict[str, int]:
        """Return the tokens of context of those of these models of which they are known."""
        about = self._fleet.models.about
        own = {m: w for m in models if m in about and (w := about[m].context) is not None}
        self._models.update(islice(models, max(0, MAX_MODELS - len(self._models))))
        return {**self._pricer.windows(models), **own}

    def known_windows(self) -> dict[str, int]:
        """Return the same of all models that were settled or priced of late."""
        return self.windows(self._models | self._pricer.models)

    async def listen(self, wanted: HubListen) -> list[str]:
        """Open the addresses that the fleet file asks for; return them in words. Raises SetupError."""
        said: list[str] = []
        try:
            if wanted.otlp_http is not None:
                port = await self._listeners.open_http(wanted.otlp_http)
                said.append(f"OTLP over HTTP on {_host(wanted.otlp_http)}:{port}")
            if wanted.otlp_grpc is not None:
                port = await self._listeners.open_grpc(wanted.otlp_grpc)
                said.append(f"OTLP over gRPC on {_host(wanted.otlp_grpc)}:{port}")
        except SetupError:
            await self._listeners.close()
            raise
        return said

    async def deafen(self) -> None:
        """Take no more at the addresses of telemetry alone; end what is left there."""
        await self._listeners.close()

    async def stop(self) -> None:
        """Write what waits, and close."""
        for task in self._working:
            task.cancel()
        if self._working:
            await asyncio.wait(self._working)
        await self.life.stop()
        await self.store.stop()

    async def _settle_on(self) -> None:
        while True:
            await asyncio.sleep(SETTLE_EVERY_S)
            if written_at(set_prices(self._data)) != self._priced_at:
                self._price()
            await self.life.round()
            for reason, n in self._books.taken():
                self._counts.add("uncounted", reason, n)
            for by, n in self._books.folded():
                self._counts.add("values_folded", by, n)


def _host(address: str) -> str:
    return address.rpartition(":")[0]
