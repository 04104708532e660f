"""From a parsed body to stored items: who may report what, what is refused and why.

A list is accepted in part: what is good is stored, what is not is named by index, path and reason.
Items are answered only when they are committed and the watch has seen them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from midwatch.core.access import Caller, Scope
from midwatch.core.calls import news
from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.ports import Observer
from midwatch.ingest.bodies import busy
from midwatch.ingest.roster import Roster
from midwatch.store.runs import Merged, RunStore
from midwatch.store.small import SmallStore
from midwatch.store.telemetry import Stored
from midwatch.wire import items as wire
from midwatch.wire.items import BadItem, Item, Kind
from midwatch.wire.limits import MAX_DATA_BYTES, MAX_ITEMS, MAX_TEXT
from midwatch.wire.problem import Refusal

SUPERVISOR_KINDS: Final = frozenset(
    {
        "agent.state",
        "agent.recovered",
        "agent.drift",
        "agent.duplicate",
        "agent.rolled_back",
        "agent.unwalled",
        "run.started",
        "run.revision",
        "run.ended",
        "run.hung",
        "run.unmeasured",
        "hub.down",
        "gateway.down",
        "supervisor.lost",
        "fleet.loaded",
        "node.stopping",
        "disk.low",
        "disk.full",
        "disk.fine",
        "clock.jumped",
        "clock.steady",
        *news.ALL,
    }
)
"""Events that decide about an agent, the supervisor's and the gateway's; a run token may not send them about
itself."""

TEXT_FIELDS: Final[dict[Kind, tuple[str, ...]]] = {
    Kind.BEAT: ("error",),
    Kind.EVENT: (),
    Kind.RUN: ("reason",),
    Kind.SAMPLE: (),
}

MAX_ERRORS: Final = 100
"""Refused items that an answer lists one by one; the rest are counted in it."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Taken:
    """What became of a request: an answer in the making."""

    accepted: int = 0
    duplicates: int = 0
    rejected: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    more_rejected: int = 0
    worst: int = 422
    indexes: list[int | None] = field(default_factory=list[int | None])
    """Where each item that was read stood in the body; None for a single one."""

    def refuse(self, index: int | None, error: BadItem, status: int = 422) -> None:
        """Note a refused item; 403 and 404 are the answer's status when nothing was accepted."""
        if len(self.rejected) >= MAX_ERRORS:
            self.more_rejected += 1
            return
        if not self.rejected or status == self.worst:
            self.worst = status
        else:
            self.worst = 422
        entry = {"path": error.path, "reason": error.reason, "message": str(error)}
        self.rejected.append(entry if index is None else {"index": index, **entry})


class Intake:
    """Where items enter the hub. `observer` sees what was committed."""

    def __init__(
        self,
        telemetry: SmallStore,
        runs: RunStore,
        roster: Roster,
        observer: Observer,
        counts: Counts,
        clock: Callable[[], float],
    ) -> None:
        self.roster = roster
        self.counts = counts
        self.clock = clock
        self._telemetry = telemetry
        self._runs = runs
        self._observer = observer

    def start(self) -> None:
        """Begin to take items; call inside the running loop."""
        self._telemetry.start(self._telemetry_stored)
        self._runs.start(self._runs_merged)

    # -- reading -----------------------------------------------------------------------------

    def read(self, kind: Kind, value: Any, caller: Caller, taken: Taken) -> list[Item]:
        """Return the items of a body that may be stored; notes the others in `taken`."""
        many: list[Any] = value if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownVariableType]
        if len(many) > MAX_ITEMS:
            raise Refusal(
                413, f"{len(many)} items, at most {MAX_ITEMS}; send several lists", reason="items"
            )
        single = not isinstance(value, list)
        now = self.clock()
        good: list[Item] = []
        for index, raw in enumerate(many):
            path = "$." if single else f"$[{index}]."
            try:
                good.append(self._one(kind, raw, caller, now, path))
                taken.indexes.append(None if single else index)
            except BadItem as error:
                status = {"foreign": 403, "reserved": 403, "unknown_agent": 404}.get(
                    error.reason, 422
                )
                self.counts.add("rejected", error.reason)
                taken.refuse(None if single else index, error, status)
        return good

    def _one(self, kind: Kind, raw: Any, caller: Caller, now: float, path: str) -> Item:
        if not isinstance(raw, dict):
            raise BadItem(path.rstrip("."), "type", f"{path.rstrip('.')}: expected an object")
        fields: dict[str, Any] = raw  # pyright: ignore[reportUnknownVariableType]
        if kind is not Kind.EVENT and "kind" in fields:
            # detectors tell events by it: a beat must not pass for one
            raise BadItem(
                path + "kind",
                "reserved",
                f"{path}kind: only an event has a kind, not a {kind.value}",
            )
        for name in TEXT_FIELDS[kind]:
            self._measure(fields.get(name), path + name, name)
        try:
            item = wire.read(kind, raw, now, agent=caller.agent, path=path)
        except OverflowError:
            raise BadItem(
                path.rstrip("."), "range", f"{path}* holds a number out of range"
            ) from None
        # the store keeps microseconds: what is folded now and what is read back must be equal
        item["at"] = round(item["at"], 6)
        agent = item["agent"]
        if caller.agent is not None:
            if not caller.speaks_for(agent):
                raise BadItem(
                    path + "agent",
                    "foreign",
                    f"{path}agent: this token writes for {caller.agent!r} only, not for {agent!r}",
                )
            if kind is Kind.SAMPLE:
                raise BadItem(
                    path.rstrip("."),
                    "reserved",
                    "samples are the supervisor's to send: they tell the agent's state",
                )
            if kind is Kind.EVENT and item["kind"] in SUPERVISOR_KINDS:
                raise BadItem(
                    path + "kind",
                    "reserved",
                    f"{path}kind: {item['kind']!r} is Midwatch's own to say; choose another kind",
                )
            if caller.run_id is not None and agent == caller.agent:
                item.setdefault("run_id", caller.run_id)
        elif not self.roster.knows(agent) and not caller.may(Scope.NODE):
            stranger = self.roster.stranger(agent)
            raise BadItem(path + "agent", "unknown_agent", f"{path}agent: {stranger.detail}")
        return item

    def _measure(self, value: Any, path: str, name: str) -> None:
        if isinstance(value, str) and len(value) > MAX_TEXT:
            if len(value) > MAX_DATA_BYTES:
                raise BadItem(
                    path,
                    "size",
                    f"{path}: {len(value)} characters, at most {MAX_DATA_BYTES}; send the end of it",
                )
            self.counts.add("clipped", name)

    async def register_strangers(self, value: Any, caller: Caller) -> None:
        """Register the agents that a body names (`?create=1`)."""
        many: list[Any] = value if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownVariableType]
        for raw in many[:MAX_ITEMS]:
            fields: dict[str, Any] = raw if isinstance(raw, dict) else {}  # pyright: ignore[reportUnknownVariableType]
            name = fields.get("agent")
            if isinstance(name, str) and not self.roster.knows(name):
                await self.roster.register(name, caller.name)

    # -- keeping -----------------------------------------------------------------------------

    async def keep(self, kind: Kind, items: Sequence[Item], size: int, taken: Taken) -> None:
        """Store the items and note it. Raises Refusal 503 when the store cannot take them now."""
        if not items:
            return
        try:
            if kind is Kind.RUN:
                merged = await self._runs.merge(items, size)
                for index in merged.foreign:
                    run_id = items[index]["run_id"]
                    error = BadItem("run_id", "foreign", f"run {run_id!r} belongs to another agent")
                    self.counts.add("rejected", "foreign")
                    taken.refuse(taken.indexes[index], error, 403)
                taken.accepted += len(merged.items)
            else:
                stored = await self._telemetry.append(kind, items, size)
                taken.accepted += len(items)
                taken.duplicates += stored.duplicates
        except StoreError as error:
            raise store_refusal(error) from None

    async def _telemetry_stored(self, group: list[Stored]) -> None:
        pending: list[tuple[str, list[Item]]] = []
        for stored in group:
            if stored.duplicates:
                self.counts.add("duplicates", stored.kind, stored.duplicates)
            if not stored.items:
                continue
            self.counts.add("accepted", stored.kind, len(stored.items))
            if pending and pending[-1][0] == stored.kind:
                pending[-1][1].extend(stored.items)
            else:
                pending.append((stored.kind, list(stored.items)))
        for kind, items in pending:
            await self._observe(Kind(kind), items)

    async def _runs_merged(self, group: list[Merged]) -> None:
        items = [item for merged in group for item in merged.items]
        self.counts.add("accepted", Kind.RUN, len(items))
        if items:
            await self._observe(Kind.RUN, items)

    async def _observe(self, kind: Kind, items: list[Item]) -> None:
        try:
            await self._observer.observe(kind, items)
        except Exception:  # a fault of a detector must not refuse facts that are stored
            self.counts.add("watch_failures", kind, len(items))
            log.exception(
                "the watch failed on %d items of kind %s; they are stored", len(items), kind
            )


def store_refusal(error: StoreError) -> Refusal:
    """Return the answer to what the store refused."""
    if error.permanent:
        return Refusal(422, str(error), reason="store")
    return busy(str(error))
