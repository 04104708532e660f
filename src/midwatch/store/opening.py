"""Which stores a hub has: files of its data directory, or what `hub.stores` of the fleet file names, shared by several."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import tzinfo
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from midwatch.core.counts import Counts
from midwatch.core.errors import SetupError, StoreError
from midwatch.core.ports import Bus, Lease
from midwatch.core.spans.form import Signal
from midwatch.core.spans.questions import Questions, Window
from midwatch.core.spans.store import Selector, SpanStore
from midwatch.core.telemetry import Stores as Wanted
from midwatch.store import exporting, spending
from midwatch.store.exporting import Exported, Format
from midwatch.store.leases import StateLease
from midwatch.store.questions.embedded import EmbeddedQuestions
from midwatch.store.questions.recorded import Fetch, recorded
from midwatch.store.small import SmallStore
from midwatch.store.spans.embedded import EmbeddedSpans
from midwatch.store.spans.manifest import StateManifest
from midwatch.store.spans.memory import MemorySpans
from midwatch.store.spans.sealing import Settling
from midwatch.store.spans.selecting import saying
from midwatch.store.state import StateDb
from midwatch.store.telemetry import Telemetry
from midwatch.wire.ids import new_id

SCRATCH: Final = "scratch"
"""What of the hub's folder is emptied at each start: files that one answer needs."""

STATE: Final = "state.db"
"""The file of the hub's folder where state is, when no address is named."""

CHOOSE_S: Final = 600.0
"""How long finding the traces of an order to delete may take: as long as deleting them."""

Groups = Callable[[], Mapping[str, str]]
Windows = Callable[[], Mapping[str, int]]
ModelWindows = Callable[[Collection[str]], Mapping[str, int]]
Tags = Callable[[], Collection[str]]


class OpenedSpans(SpanStore, Protocol):
    """A store of spans that a hub opens."""

    async def open(self) -> None:
        """Open or create it. Raises SetupError."""
        ...


@dataclass(frozen=True, slots=True)
class Shared:
    """What hubs of one fleet have in common."""

    bus: Bus
    lease: Lease
    stop: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Beside:
    """What SQL may read beside telemetry: agents, runs and incidents as the API shows them."""

    agents: Fetch
    runs: Fetch
    incidents: Fetch


class HubStores:
    """The stores of one hub. Raises SetupError for an address that cannot be one. `folder` is the hub's own."""

    def __init__(
        self, folder: Path, wanted: Wanted, counts: Counts, clock: Callable[[], float]
    ) -> None:
        state = state_address(wanted)
        self._clickhouse = _secret(wanted.telemetry, "hub.stores.telemetry")
        if state is not None and self._clickhouse is None:
            raise SetupError(
                "hub.stores has a state and no telemetry: hubs that share PostgreSQL share a ClickHouse, too; name both"
            )
        self._folder, self._counts, self._clock = folder, counts, clock
        self.state = StateDb(state if state is not None else folder / STATE)
        self.small = self._small()
        self.shared = None if state is None else _shared(state, self.state)

    def _small(self) -> SmallStore:
        if self._clickhouse is None:
            return Telemetry(self._folder / "telemetry.duckdb", self._counts, self._clock)
        # only here: hubs with files have no use for any of it
        from midwatch.store.clickhouse.client import ClickHouse
        from midwatch.store.clickhouse.items import ClickHouseItems

        return ClickHouseItems(ClickHouse(self._clickhouse), self._counts, self._clock)

    def spans(self, settling: Settling, windows: ModelWindows, tags: Tags) -> OpenedSpans:
        """Return the store of spans. `settling` is for the embedded one; the other one settles by `windows`, the tokens
        of models' contexts, and the names of `tags`."""
        if self._clickhouse is None:
            manifest = StateManifest(self.state)
            return EmbeddedSpans(
                self._folder / "spans", manifest, self._counts, settling=settling, clock=self._clock
            )
        from midwatch.store.clickhouse.client import ClickHouse
        from midwatch.store.clickhouse.settling import Terms
        from midwatch.store.clickhouse.spans import ClickHouseSpans

        terms = Terms(windows, tags)
        return ClickHouseSpans(ClickHouse(self._clickhouse), self._counts, terms=terms)

    def questions(
        self, spans: SpanStore, groups: Groups, windows: Windows, beside: Beside
    ) -> Questions:
        """Return what answers about the spans of `spans`."""
        if isinstance(spans, EmbeddedSpans):
            assert isinstance(self.small, Telemetry)
            also = recorded(self.small, beside.agents, beside.runs, beside.incidents)
            return EmbeddedQuestions(spans, groups, windows, also, self._folder / SCRATCH)
        from midwatch.store.clickhouse.questions import ClickHouseQuestions
        from midwatch.store.clickhouse.spans import ClickHouseSpans

        assert isinstance(spans, ClickHouseSpans)
        return ClickHouseQuestions(spans, groups, windows)

    async def cost(
        self, spans: SpanStore, by: str, since: float | None, zone: tzinfo
    ) -> dict[str, Any]:
        """Return what agents cost; see `spending.cost`. Raises StoreError."""
        if isinstance(spans, EmbeddedSpans) and isinstance(self.small, Telemetry):
            carried = partial(spending.carried, by=by, since=since, zone=zone)
            called = await spans.read(carried)
            return await self.small.read(lambda c: spending.cost(c, called, by, since, zone))
        from midwatch.store.clickhouse.items import ClickHouseItems

        assert isinstance(self.small, ClickHouseItems)
        return await self.small.cost(by, since, zone)


async def export(
    spans: SpanStore,
    signal: Signal,
    to: Path,
    how: Format,
    window: Window | None = None,
    what: Selector | None = None,
) -> Exported:
    """Write one signal's rows to a file; see `exporting.export`: the file is the same from either store.

    Raises StoreError, also of a store that keeps nothing on a disk.
    """
    if isinstance(spans, EmbeddedSpans):
        return await exporting.export(spans, signal, to, how, window, what)
    from midwatch.store.clickhouse import exporting as of_clickhouse
    from midwatch.store.clickhouse.spans import ClickHouseSpans

    if isinstance(spans, ClickHouseSpans):
        return await of_clickhouse.export(spans, signal, to, how, window, what)
    raise StoreError(f"{type(spans).__name__} writes no files", permanent=True)


async def traces_of(spans: SpanStore, what: Selector) -> frozenset[bytes]:
    """Return the traces that `drop` would choose by what only spans say: those in which one span says the session, the
    user and the tags that are asked for, all of them. None where nothing of it is asked for. Raises StoreError."""
    if not what.by_trace:
        return frozenset()
    if isinstance(spans, EmbeddedSpans):
        return await spans.read(lambda view: saying(view, what), CHOOSE_S)
    if isinstance(spans, MemorySpans):
        return spans.saying(what)
    from midwatch.store.clickhouse.selecting import Selection
    from midwatch.store.clickhouse.spans import ClickHouseSpans

    assert isinstance(spans, ClickHouseSpans)
    chosen = Selection(what)
    told = await spans.with_client(
        lambda client: client.ask(chosen.saying(), chosen.values, timeout_s=CHOOSE_S)
    )
    return frozenset(bytes.fromhex(trace) for (trace,) in told.rows)


def _shared(address: str, state: StateDb) -> Shared:
    from midwatch.store.telling import PostgresBus

    bus = PostgresBus(address)
    return Shared(bus, StateLease(state, new_id()), bus.stop)


def state_address(wanted: Wanted) -> str | None:
    """Return the address of the state database, or None for a file. Raises SetupError."""
    return _secret(wanted.state, "hub.stores.state")


def _secret(value: str | None, setting: str) -> str | None:
    """Return an address; `env:NAME` is looked up. Raises SetupError."""
    if value is None or not value.startswith("env:"):
        return value
    name = value[4:].strip()
    found = os.environ.get(name, "").strip()
    if not found:
        raise SetupError(f"{setting} is {value!r}, and the variable {name} is not set; set it where midwatch up is started")  # fmt: skip
    return found
