"""Which part of the gateway answers a request: its health, its control, what an agent asks of itself, or a model."""

from __future__ import annotations

import ipaddress
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from midwatch.core import access
from midwatch.core.access import Scope
from midwatch.gateway import metrics
from midwatch.gateway.app import App
from midwatch.gateway.control import Control
from midwatch.gateway.http.port import BodyRefused, ClientGone, Incoming, Outgoing
from midwatch.gateway.http.server import Server
from midwatch.gateway.routes import problem, send
from midwatch.gateway.self_routes import SelfRoutes

TEXT: Final = (("content-type", metrics.MEDIA_TYPE), ("cache-control", "no-store"))


class Router:
    """The handler of one gateway."""

    def __init__(self, app: App) -> None:
        self.server: Server | None = None
        """Set once it serves, for its figures."""
        self._app = app
        self._control = Control(app)
        self._self = SelfRoutes(app)

    async def handle(self, incoming: Incoming, out: Outgoing) -> None:
        """Answer one request."""
        path = incoming.path
        # what is asked thousands of times a second comes first
        if path.startswith(("/v1", "/openai/")):
            await self._app.gateway.handle(incoming, out)
            return
        try:
            if path == "/self" or path.startswith("/self/"):
                await self._self.handle(incoming, out)
            elif path.startswith("/control/"):
                await self._control.handle(incoming, out)
            elif path in ("/healthz", "/readyz", "/metrics"):
                self._look(incoming, out)
            else:
                await self._app.gateway.handle(incoming, out)
        except BodyRefused as refused:
            if not out.begun:
                send(out, refused.status, problem(str(refused)))
        except ClientGone:
            self._app.house.counts["client.gone_early"] += 1

    def _look(self, incoming: Incoming, out: Outgoing) -> None:
        path = incoming.path
        if incoming.method not in ("GET", "HEAD"):
            send(out, 405, problem(f"expected GET here, got {incoming.method[:10]}"))
        elif path == "/healthz":
            send(out, 200, {"status": "ok"})
        elif path == "/readyz":
            why = self._app.not_ready()
            ready = {"status": "ok"} if why is None else {"status": "unavailable", "why": why}
            send(out, 200 if why is None else 503, ready)
        elif not self._may_measure(incoming):
            send(out, 401, problem("metrics are for this machine, or with the supervisor's token"))
        else:
            out.answer(200, TEXT, self._metrics().encode())

    def _may_measure(self, incoming: Incoming) -> bool:
        try:
            if ipaddress.ip_address(incoming.client).is_loopback:
                return True
        except ValueError:
            if incoming.client == "":
                return True
        scheme, _, token = (incoming.header("authorization") or "").partition(" ")
        caller = (
            access.verify(self._app.secret, token.strip()) if scheme.lower() == "bearer" else None
        )
        return caller is not None and Scope.NODE in caller.scopes

    def _metrics(self) -> str:
        app, server = self._app, self.server
        house = app.house
        holds = Counter(hold.kind.value for hold in app.holds.all())
        keys = Counter(str(key["state"]) for key in app.keys.all())
        gauges: dict[str, float | Sequence[metrics.Sample]] = {
            "up_seconds": round(time.monotonic() - app.began, 3),
            "ready": int(app.not_ready() is None),
            "calls_under_way": sum(len(calls) for calls in app.gateway.under_way.values()),
            "reservations_open": app.ledger.in_flight,
            "held_agents": [({"kind": kind}, count) for kind, count in sorted(holds.items())],
            "keys": [({"state": state}, count) for state, count in sorted(keys.items())],
            "documents_unsaved": sum(1 for one in app.documents if one.problem is not None),
            "hub_in_contact": int(app.in_contact()),
            "untold_total": [({"reason": r}, n) for r, n in sorted(app.untold().items())],
            **metrics.places(house.health, house.now()),
        }
        if server is not None:
            gauges["connections"] = server.connections
            gauges["requests_under_way"] = server.under_way
            gauges["held_bytes"] = server.held_bytes
            gauges["requests_total"] = server.requests
        for name in ("dialled", "repeated"):
            value = getattr(house.upstream, name, None)
            if isinstance(value, int):
                gauges[f"upstream_{name}_total"] = value
        lost = server.lost if server is not None else {}
        return metrics.render(house.counts, dict(app.ledger.counts), lost, gauges)
