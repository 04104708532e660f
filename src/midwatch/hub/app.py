"""The composition root of the hub: settings → stores → rooms → one ASGI application.

Order of start: stores, fleet view (restored from the store), watch, ingest, then the socket. Order of
stop: streams and polls, the socket, what waits to be written, watch, stores. So nothing is answered
that the view has not seen, and nothing that was answered is lost.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from pydantic import ValidationError

from midwatch import web
from midwatch.api import app as api
from midwatch.api.answers import Room
from midwatch.api.callers import Callers
from midwatch.api.gate import Gate
from midwatch.api.health import Health
from midwatch.api.login import Login
from midwatch.api.names import Names, is_loopback
from midwatch.api.node import Nodes
from midwatch.api.stream import Stream
from midwatch.core.counts import Counts
from midwatch.core.errors import LinkError, SetupError
from midwatch.core.fleet import Fleet
from midwatch.core.spans.digest import Seen
from midwatch.core.spans.questions import Questions
from midwatch.core.spans.store import Proof, Selector
from midwatch.core.times import day_start, zone_of
from midwatch.core.view import FORGET_AFTER_S, FleetView
from midwatch.hub.everywhere import Everywhere
from midwatch.hub.keeping.telling import Teller
from midwatch.hub.settings import Settings
from midwatch.hub.spans import SpanRoom
from midwatch.hub.together import Together
from midwatch.ingest.app import IngestApp, takes
from midwatch.ingest.intake import Intake
from midwatch.ingest.otlp.http import PATHS as OTLP
from midwatch.ingest.roster import SELF, Roster
from midwatch.store.agents import AgentStore
from midwatch.store.deliveries import DeliveryStore
from midwatch.store.incidents import IncidentStore
from midwatch.store.marks import StateMarks
from midwatch.store.opening import SCRATCH, Beside, HubStores
from midwatch.store.questions.recorded import MAX_ROWS
from midwatch.store.runs import RunStore
from midwatch.store.tokens import LoginStore, TokenStore
from midwatch.watch.engine import Watch
from midwatch.wire.items import Item, Kind
from midwatch.wire.problem import MEDIA_TYPE

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

log = logging.getLogger(__name__)


class Hub:
    """One hub over one data directory. Call it as an ASGI application between `start` and `stop`."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.clock = clock
        self.counts = Counts()
        self._folder = _folder(settings.data)
        fleet = load_fleet(settings.data)
        self._fleet = fleet
        self._stores = HubStores(self._folder, fleet.hub.stores, self.counts, clock)
        self._state, self._telemetry = self._stores.state, self._stores.small
        self._runs = RunStore(self._state, self.counts)
        self._incidents = IncidentStore(self._state)
        self._roster = Roster(AgentStore(self._state), clock)
        self._tokens, logins = TokenStore(self._state), LoginStore(self._state)
        token = _secret(settings.data / "token").decode().strip()
        secret = _secret(settings.data / "secret")
        self.login = Login(logins, self._folder / "link", clock)
        self._names = Names(settings.allow_hosts)
        self._call()
        self._callers = Callers(token, secret, self._tokens, logins, clock)
        self._stream = Stream(self.counts)
        self._nodes = Nodes(self._node_of, self.counts)
        self._view = FleetView(fleet, node=settings.node, now=clock(), lost=self.counts.lost)
        deliveries = DeliveryStore(self._state)
        self._watch = self._watching(deliveries)
        self._intake = Intake(self._telemetry, self._runs, self._roster, self, self.counts, clock)
        self._spans = self._span_room()
        self._ingest = IngestApp(self._intake, self._seen)
        room = self._room(deliveries)
        pages = web.build(
            self._view,
            self._incidents,
            clock=clock,
            runs=self._runs_of,
            deliveries=deliveries,
            questions=room.questions,
        )
        self._api = api.build(room, [pages])
        self.asgi = Gate(
            self._route,
            self._callers,
            self.login,
            self.counts,
            loopback=is_loopback(settings.host),
            names=self._names,
            error_page=_error_page,
        )

    def _span_room(self) -> SpanRoom:
        """Return where telemetry comes in and lies."""
        several = self._watch if isinstance(self._watch, Together) else None
        node, others = (self.settings.node, several.nodes) if several is not None else ("", None)
        teller = Teller(self._note, self._incidents, self.clock, SELF, node=node, others=others)
        return SpanRoom(
            self._stores,
            self._roster,
            self._watch,
            self._view,
            self._runs.get,
            self._callers.by_token,
            self._fleet,
            self.settings.data,
            self.counts,
            self.clock,
            small=self._telemetry,
            tell=teller.of_disk,
            tell_clock=teller.of_clock,
            mine=self._watches,
            marks=StateMarks(self._state),
        )

    def _watching(self, deliveries: DeliveryStore) -> Watch | Together:
        """Return who watches: this hub, or one of several that share their stores."""

        def make() -> Watch:
            return Watch(
                view=self._view,
                book=self._incidents,
                deliveries=deliveries,
                link=self._nodes,
                publisher=self._stream,
                fleet=self._fleet,
                clock=self.clock,
            )

        if self._stores.shared is None:
            return make()
        return Together(
            self._stores.shared,
            view=self._view,
            book=self._incidents,
            nodes=self._nodes,
            publisher=self._stream,
            make_watch=make,
            read_anew=self._restore_all,
            counts=self.counts,
            clock=self.clock,
            name=f"{self.settings.node}:{self.settings.port}",
        )

    def _forgetting(self) -> Callable[[Selector], Awaitable[tuple[Proof, int]]]:
        """Return what deletes telemetry: here, and in the queues of the other hubs that share its store."""
        life = self._spans.life
        return (
            Everywhere(self._watch, life).forget
            if isinstance(self._watch, Together)
            else life.forget
        )

    def _room(self, deliveries: DeliveryStore) -> api.Room:
        """Return what the API needs of its neighbours."""
        questions = self._questions()
        return Room(
            reader=self._view,
            book=self._incidents,
            acknowledge=self._watch.ack,
            deliveries=deliveries,
            runs=self._runs,
            telemetry=self._telemetry,
            spans=self._spans.store,
            cost=partial(self._stores.cost, self._spans.store),
            questions=questions,
            forget=self._forgetting(),
            tokens=self._tokens,
            callers=self._callers,
            login=self.login,
            nodes=self._nodes,
            stream=self._stream,
            health=Health(
                {
                    "state": self._probe_state,
                    "telemetry": self._telemetry.probe,
                    "spans": self._spans.store.probe,
                }
            ),
            counts=self.counts,
            statistics=self._watch.statistics,
            logs=self.settings.data / "logs",
            scratch=_emptied(self._folder / SCRATCH),
            clock=self.clock,
            trust_clock=self._spans.life.trust.confirm,
            version=version("midwatch"),
            error_page=_error_page,
        )

    def _questions(self) -> Questions:
        """Return what answers about telemetry, and what SQL reads beside it."""

        async def agents() -> Sequence[dict[str, Any]]:
            return self._view.agents(self.clock())

        async def incidents() -> Sequence[dict[str, Any]]:
            found = await self._incidents.page(state=None, agent=None, after=None, limit=MAX_ROWS)
            return [incident.to_json() for incident in found]

        runs = partial(self._runs.page, agent=None, after=None, limit=MAX_ROWS)
        room = self._spans
        return self._stores.questions(
            room.store, room.groups, room.known_windows, Beside(agents, runs, incidents)
        )

    # -- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the stores and bring the rooms up. Raises SetupError; then nothing was changed."""
        self._state.open()
        self._telemetry.open()
        await self._roster.load(self._fleet)
        await self._restore()
        self._intake.start()
        await self._spans.start()
        await self._recall()
        await self._watch.start()

    async def _restore(self) -> None:
        """Let the view know what the store knows. Raises StoreError."""
        now = self.clock()
        start = day_start(now, zone_of(self._fleet.timezone))
        self._view.restore(await self._telemetry.histories(now, start), now)

    async def _recall(self) -> None:
        """Let the view know of agents that send spans alone. Raises StoreError."""
        now = self.clock()
        newest = await self._spans.store.newest(round((now - FORGET_AFTER_S) * 1e9))
        for agent, at_ns in newest.items():
            self._view.see(agent, Seen(newest_ns=at_ns), now)

    async def _restore_all(self) -> None:
        await self._restore()
        await self._recall()

    async def listen(self) -> list[str]:
        """Open the addresses for telemetry alone, after `start`; return them in words. Raises SetupError."""
        return await self._spans.listen(self._fleet.hub)

    def end_waiting(self) -> None:
        """End streams and long polls, which would keep the server from stopping."""
        self._stream.close()
        self._nodes.close()

    async def stop(self) -> None:
        """Write what waits, then close everything."""
        await self._spans.deafen()
        await self._runs.stop()
        await self._telemetry.finish()
        await self._watch.stop()
        await self._spans.stop()
        await self._telemetry.stop()
        await self._state.stop()

    # -- requests ----------------------------------------------------------------------------------

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        room = self._spans.http if scope["path"] in OTLP else self._ingest
        if room is self._ingest and not takes(scope["method"], scope["path"]):
            await self._ask_api(scope, receive, send)
            return
        try:
            await room(scope, receive, send)
        except Exception:  # noqa: BLE001  the top of every request: a fault is answered, counted, logged
            await self._fail(scope, send)

    async def _ask_api(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched_send(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._api(scope, receive, watched_send)
        except Exception:  # noqa: BLE001  the same, unless FastAPI has answered, counted and logged it
            if not started:
                await self._fail(scope, send)

    async def _fail(self, scope: Scope, send: Send) -> None:
        body = api.fault(self.counts, scope["path"])
        headers = [(b"content-type", MEDIA_TYPE.encode())]
        await send({"type": "http.response.start", "status": 500, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    # -- seams between the rooms -------------------------------------------------------------------

    async def observe(self, kind: Kind, items: Sequence[Item]) -> None:
        """Hand committed items to the watch; a new fleet file is read between what it stands between."""
        self._spans.losing.observe(kind, items)
        begun = 0
        for index, item in enumerate(items):
            if kind is Kind.EVENT and item["kind"] == "fleet.loaded" and item["agent"] == SELF:
                if index > begun:
                    await self._watch.observe(kind, items[begun:index])
                self._reload()
                begun = index
        await self._watch.observe(kind, items[begun:])

    def _reload(self) -> None:
        try:
            fleet = load_fleet(self.settings.data)
        except SetupError as error:
            log.error("the new fleet file is not used: %s", error)  # noqa: TRY400  its words suffice
            return
        self._fleet = fleet
        self._call()
        self._roster.set_fleet(fleet)
        self._watch.reload(fleet)
        self._spans.reload(fleet, self.settings.data)

    def _call(self) -> None:
        """Take from the fleet file how the hub is called."""
        hub = self._fleet.hub
        self._names.set(hub.public_url, hub.hosts)
        self.login.public_url = hub.public_url

    def _node_of(self, agent: str) -> str:
        known = self._view.look(agent)
        return (known.node if known is not None else None) or self.settings.node

    def _seen(self, agent: str) -> None:
        try:
            self._nodes.seen(agent)
        except LinkError:
            self.counts.add("commands", "dropped")

    async def _runs_of(self, agent: str, limit: int) -> Sequence[dict[str, Any]]:
        return await self._runs.page(agent=agent, after=None, limit=limit)

    async def _note(self, event: Item) -> None:
        """Keep an event of the hub itself; the watch sees it like any other. Raises StoreError."""
        await self._telemetry.append(Kind.EVENT, [event])

    async def _watches(self) -> bool:
        """Tell whether this hub does what only one of several may do."""
        return not isinstance(self._watch, Together) or self._watch.watches

    async def _probe_state(self) -> None:
        await self._state.probe(self.clock())


def load_fleet(data: Path) -> Fleet:
    """Return the fleet of `fleet.json`, or an empty one when there is none yet."""
    file = data / "fleet.json"
    try:
        return Fleet.model_validate(json.loads(file.read_bytes()))
    except FileNotFoundError:
        return Fleet(agents={})
    except (OSError, ValueError) as error:
        lines = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise SetupError(
            f"{file} cannot be read: {lines}; midwatch reload writes it anew"
        ) from None


def _folder(data: Path) -> Path:
    folder = data / "hub"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"cannot use {folder}: {error.strerror}; choose another directory with --data"
        ) from None
    return folder


def _emptied(folder: Path) -> Path:
    """Return a folder without what a hub that was killed left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _secret(file: Path) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SetupError(
            f"cannot read {file}: {error.strerror}; midwatch up writes it at its first start"
        ) from None
    if len(content.strip()) < 16:
        raise SetupError(f"{file} holds less than 16 bytes; remove it and start midwatch up again")
    return content


def _error_page(request: Request, status: int, detail: str) -> Response | None:
    return web.problem_page(status, detail or None) if web.wants_page(request) else None
