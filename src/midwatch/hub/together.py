"""Several hubs, one fleet: each takes telemetry, all know the same, one watches.

What a hub committed it tells on the bus, and every hub folds it into its view. One of them holds the lease `watch`:
there detectors judge, incidents are told, and orders go out; the others fold and wait. When the holder dies, the next
one has the lease within LEASE_S and begins as a hub begins that was started anew: from the incident book. Orders go
to the hub that the node asks.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import asdict
from typing import Any, Final

from midwatch.api.node import Nodes
from midwatch.core.counts import Counts
from midwatch.core.errors import LinkError, MidwatchError, StoreError, UnknownIncident
from midwatch.core.fleet import Fleet
from midwatch.core.incident import Incident
from midwatch.core.ports import IncidentBook, Publisher, Reply
from midwatch.core.spans.digest import Digest, Seen
from midwatch.core.view import FleetView
from midwatch.store.opening import Shared
from midwatch.watch.engine import Watch
from midwatch.watch.updates import Updates
from midwatch.wire.ids import new_id
from midwatch.wire.items import Item, Kind

LEASE_S: Final = 6.0
"""How long a hub holds the watch without saying so again; a dead one is followed by then."""

RENEW_S: Final = 2.0
"""How often it says so."""

MAX_UNTOLD: Final = 2_000
"""Messages that wait to be told; with more, the other hubs are told to read anew instead."""

PIECE: Final = 400
"""Items of one message: 400 of the largest that are allowed still fit in most cases; others are told one by one."""

AGAIN_S: Final = 1.0
"""How soon the bus is tried again."""

FACTS, ORDERS, REPLIES = "facts", "orders", "replies"

HUB: Final = "hub:"
"""What leases begin with that say no more than that a hub is there."""

Take = Callable[[dict[str, Any]], Awaitable[None]]

log = logging.getLogger(__name__)


class Together:
    """Stands where the watch of one hub stands: `observe`, `see`, `ack`, `reload`, `start`, `stop`."""

    def __init__(
        self,
        shared: Shared,
        *,
        view: FleetView,
        book: IncidentBook,
        nodes: Nodes,
        publisher: Publisher,
        make_watch: Callable[[], Watch],
        read_anew: Callable[[], Awaitable[None]],
        counts: Counts,
        clock: Callable[[], float],
        lease_s: float = LEASE_S,
        name: str | None = None,
    ) -> None:
        """`name` is this hub's among all that share these stores: node:port."""
        self._shared = shared
        self._view = view
        self._book = book
        self._nodes = nodes
        self._make_watch = make_watch
        self._read_anew = read_anew
        self._counts = counts
        self._clock = clock
        self._lease_s = lease_s
        self._me = new_id()
        self._presence = f"{HUB}{name or self._me}"
        self._there_at = time.monotonic()
        self._also: list[tuple[str, Take]] = []
        self._watch: Watch | None = None
        self._held_until = 0.0
        self._number = 0
        self._turn = asyncio.Lock()
        self._untold: asyncio.Queue[bytes] = asyncio.Queue(MAX_UNTOLD)
        self._missed_by_others = False
        self._asked: dict[str, asyncio.Future[Reply]] = {}
        self._updates = Updates(publisher, lambda name: view.agent(name, clock()))
        self._tasks: set[asyncio.Task[None]] = set()
        nodes.elsewhere = self._order

    # -- life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to tell, to hear, and to ask for the watch. Raises StoreError."""
        self._updates.start()
        await self._renew()
        await self._be_there()
        for work in (self._tell_on, self._keep_asking, self._keep_there):
            self.spawn(work())
        mine = ((FACTS, self._take_fact), (ORDERS, self._take_order), (REPLIES, self._take_reply))
        for topic, take in (*mine, *self._also):
            self.spawn(self._hear_on(topic, take))

    async def stop(self) -> None:
        """End the watch here, give the lease back, and close."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._end_watch()
        await self._updates.stop()
        try:
            await self._shared.lease.release("watch")
            await self._shared.lease.release(self._presence)
        except StoreError:
            log.warning(
                "the watch could not be given back; another hub has it in %.0f s", self._lease_s
            )
        await self._shared.stop()

    def reload(self, fleet: Fleet) -> None:
        """Take a new fleet file."""
        if self._watch is not None:
            self._watch.reload(fleet)
        else:
            self._view.reload(fleet)

    @property
    def watches(self) -> bool:
        """Tell whether this is the hub that watches."""
        return self._watch is not None

    def statistics(self) -> dict[str, int | float]:
        """Return counters for /metrics: those of the watch where it is."""
        return {"held": 0} if self._watch is None else self._watch.statistics()

    # -- all hubs ----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Return what `others` of another hub calls this one."""
        return self._presence

    async def others(self) -> frozenset[str]:
        """Return the names of the other hubs that run now. Raises StoreError."""
        return await self._shared.lease.held(HUB) - {self._presence}

    async def nodes(self) -> frozenset[str]:
        """Return the nodes on which the other hubs run. Raises StoreError."""
        return frozenset(name.removeprefix(HUB).rpartition(":")[0] for name in await self.others())

    async def tell(self, topic: str, what: dict[str, Any]) -> None:
        """Tell the other hubs. Raises StoreError."""
        data = json.dumps({"from": self._me, **what}, default=str).encode(errors="replace")
        await self._shared.bus.tell(topic, data)

    def hear(self, topic: str, take: Take) -> None:
        """Have what the others tell taken, too. Before `start`."""
        self._also.append((topic, take))

    # -- the watch ---------------------------------------------------------------------------

    async def _keep_asking(self) -> None:
        while True:
            await asyncio.sleep(min(RENEW_S, self._lease_s / 3))
            try:
                await self._renew()
            except (
                Exception
            ):  # the top of a long-lived loop: without it this hub would watch on, and another, too
                log.exception("the watch could not be asked for")

    async def _renew(self) -> None:
        asked_at = time.monotonic()
        # whatever keeps the answer back: by then another hub may have it
        until = self._held_until - self._lease_s / 6
        try:
            async with asyncio.timeout(None if self._watch is None else max(0.0, until - asked_at)):
                number = await self._shared.lease.hold("watch", self._lease_s)
        except (StoreError, TimeoutError) as error:
            # perhaps still ours, until the time that we know of is over
            if self._watch is not None and time.monotonic() >= until - self._lease_s / 3:
                log.warning("the watch is given up: %s", error or "no answer in time")
                await self._end_watch()
            return
        if number is None:
            await self._end_watch()
            return
        self._held_until = asked_at + self._lease_s
        if self._watch is not None and number != self._number:
            # it lapsed, and another hub may have watched meanwhile: begin from the book
            await self._end_watch()
        self._number = number
        if self._watch is None:
            await self._begin_watch(number)

    async def _keep_there(self) -> None:
        while True:
            await asyncio.sleep(min(RENEW_S, self._lease_s / 3))
            try:
                await self._be_there()
            except (
                Exception
            ):  # the top of a long-lived loop: without it no order would reach this hub any more
                log.exception("that this hub is there is not told")

    async def _be_there(self) -> None:
        """Say that this hub runs. Apart from the watch, which nothing may delay."""
        try:
            number = await self._shared.lease.hold(self._presence, self._lease_s)
        except StoreError as error:
            log.debug("that this hub is there is not told: %s", error)
            return
        now = time.monotonic()
        if number is not None:
            self._there_at = now
            return
        if now - self._there_at > self._lease_s:
            # what this hub left when it was killed would be over: another one is called so, and an order would reach
            # but one of the two
            log.warning("another hub is called %r, too; name its node (--node)", self._presence)
            self._presence, self._there_at = f"{self._presence} {self._me}", now

    async def _begin_watch(self, number: int) -> None:
        async with self._turn:
            made = self._make_watch()
            try:
                await made.start()
            except MidwatchError as error:
                log.warning("the watch cannot begin: %s", error)
                await made.stop()
                return
            self._watch = made
        log.info("this hub watches (%d)", number)

    async def _end_watch(self) -> None:
        async with self._turn:
            watch, self._watch = self._watch, None
            if watch is not None:
                await watch.stop()
                log.info("another hub watches")

    # -- what was committed --------------------------------------------------------------------

    async def observe(self, kind: Kind, items: Sequence[Item]) -> None:
        """Take items that this hub committed, and tell the others."""
        for at in range(0, len(items), PIECE):
            self._say({"kind": kind.value, "items": list(items[at : at + PIECE])})
        await self._fold(kind, items)

    async def see(self, digest: Digest) -> None:
        """Take what committed spans of this hub come to, and tell the others."""
        said = {
            name: {k: v for k, v in asdict(seen).items() if k != "noted"}
            for name, seen in digest.items()
        }
        if said:
            self._say({"spans": said})
        await self._see(digest)

    async def _fold(self, kind: Kind, items: Sequence[Item]) -> None:
        if self._watch is not None:
            await self._watch.observe(kind, items)
            return
        now = self._clock()
        for item in items:
            change = self._view.apply(kind, item, now)
            if change is not None:
                self._updates.changed(change.agent.name)

    async def _see(self, digest: Digest) -> None:
        if self._watch is not None:
            await self._watch.see(digest)
            return
        for name, seen in digest.items():
            if self._view.see(name, seen, self._clock()):
                self._updates.changed(name)

    def _say(self, what: dict[str, Any]) -> None:
        data = json.dumps({"from": self._me, **what}, default=str).encode(errors="replace")
        try:
            self._untold.put_nowait(data)
        except asyncio.QueueFull:
            self._missed_by_others = True
            self._counts.add("hub_messages_lost", "too many")

    async def _tell_on(self) -> None:
        while True:
            data = await self._untold.get()
            try:
                if self._missed_by_others:
                    await self._shared.bus.tell(FACTS, json.dumps({"from": self._me, "anew": True}).encode())  # fmt: skip
                    self._missed_by_others = False
                await self._shared.bus.tell(FACTS, data)
            except StoreError as error:
                self._missed_by_others = True
                self._counts.add("hub_messages_lost", "too large" if error.permanent else "away")
                if not error.permanent:
                    await asyncio.sleep(AGAIN_S)

    async def _take_fact(self, said: dict[str, Any]) -> None:
        if said.get("anew"):
            await self._read_anew()
        elif "spans" in said:
            await self._see({name: Seen(**seen) for name, seen in said["spans"].items()})
        else:
            await self._fold(Kind(said["kind"]), said["items"])

    # -- orders and answers ----------------------------------------------------------------------

    async def _order(
        self, agent: str, do: str, timeout_s: float, by: str | None, data: dict[str, Any] | None
    ) -> Reply:
        """Give an order to the hub that the agent's node asks. Raises LinkError."""
        order = new_id()
        self._asked[order] = asyncio.get_running_loop().create_future()
        message = {"from": self._me, "id": order, "agent": agent, "do": do, "timeout_s": timeout_s, "by": by, "data": data}  # fmt: skip
        try:
            await self._shared.bus.tell(ORDERS, json.dumps(message).encode())
            async with asyncio.timeout(timeout_s):
                return await self._asked[order]
        except StoreError as error:
            raise LinkError(f"the other hubs cannot be told: {error}") from None
        except TimeoutError:
            raise LinkError(
                f"no hub had an answer of {agent!r}'s node to {do!r} within {timeout_s:.0f} s; is its supervisor running?"
            ) from None
        finally:
            del self._asked[order]

    async def _take_order(self, said: dict[str, Any]) -> None:
        if said["do"] == "ack" and said["agent"] == "":
            if self._watch is not None:
                await self._watch.ack(said["data"]["incident"], said["by"])
        elif self._nodes.is_here(said["agent"]):
            self.spawn(self._carry(said))

    async def _carry(self, said: dict[str, Any]) -> None:
        try:
            reply = await self._nodes.send_here(
                said["agent"], said["do"], said["timeout_s"], by=said["by"], data=said["data"]
            )
            message = {"from": self._me, "id": said["id"], **asdict(reply)}
            await self._shared.bus.tell(REPLIES, json.dumps(message, default=str).encode())
        except (LinkError, StoreError) as error:
            log.warning("an order of another hub was not carried out: %s", error)

    async def _take_reply(self, said: dict[str, Any]) -> None:
        asked = self._asked.get(said["id"])
        if asked is not None and not asked.done():
            asked.set_result(Reply(said["result"], said["state"], said["data"]))

    async def ack(self, incident_id: str, by: str) -> Incident:
        """Acknowledge an incident, wherever it is watched. Raises UnknownIncident or StoreError."""
        if self._watch is not None:
            return await self._watch.ack(incident_id, by)
        if await self._book.get(incident_id) is None:
            raise UnknownIncident(incident_id)
        message = {"from": self._me, "id": new_id(), "agent": "", "do": "ack", "by": by, "data": {"incident": incident_id}}  # fmt: skip
        await self._shared.bus.tell(ORDERS, json.dumps(message).encode())
        deadline = time.monotonic() + self._lease_s
        while time.monotonic() < deadline:
            found = await self._book.get(incident_id)
            if found is not None and (found.acked_at is not None or found.resolved_at is not None):
                return found
            await asyncio.sleep(0.1)
        raise StoreError("the hub that watches has not answered; ask again in a moment")

    # -- hearing -----------------------------------------------------------------------------

    async def _hear_on(self, topic: str, take: Take) -> None:
        missed = False
        while True:
            try:
                heard = await self._shared.bus.hear(topic)
                if missed and topic == FACTS:
                    await self._read_anew()
                missed = False
                async for data in heard:
                    await self._taken(take, data)
            except (LinkError, StoreError) as error:
                missed = True
                self._counts.add("hub_messages_lost", "missed")
                log.warning("something other hubs told was missed: %s", error)
                await asyncio.sleep(AGAIN_S)

    async def _taken(self, take: Take, data: bytes) -> None:
        try:
            said = json.loads(data)
            if said["from"] != self._me:
                await take(said)
        except MidwatchError as error:
            log.warning("what another hub told was not taken: %s", error)
        except Exception:
            # hubs of several versions meet while they are renewed; one message must not end the hearing of all others
            self._counts.add("hub_messages_lost", "not understood")
            log.exception("what another hub told was not understood")

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside all else; what it dies of is in the log."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task between hubs died", exc_info=task.exception())
