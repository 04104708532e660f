"""The pages over fixed data: fakes of the hub's rooms, and a server for a real browser.

`Demo` holds a fleet and may be changed while it is served: `demo.put(agent)` publishes on the stream
what a hub would publish.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from midwatch import web
from midwatch.core.incident import Incident, IncidentState
from midwatch.watch.memory import MemoryDeliveries

NOW = 1_768_440_480.0  # 2026-01-15 02:28 in Paris: the middle watch


def _sum(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) if known else None


class FakeReader:
    """The read model of the fleet, held in a dict."""

    def __init__(self, name: str = "night-shift") -> None:
        self.name = name
        self.by_name: dict[str, dict[str, Any]] = {}
        self.lost: dict[str, int] = {}

    def fleet(self, now: float) -> dict[str, Any]:
        agents = list(self.by_name.values())
        return {
            "fleet": self.name,
            "timezone": "Europe/Paris",
            "node": "lighthouse",
            "agents": len(agents),
            "working": sum(a["state"] == "running" for a in agents),
            "open_incidents": sum(len(a["incidents"]) for a in agents),
            "today": {
                name: _sum(a["today"][name] for a in agents) for name in ("cost_usd", "cycles")
            },
            "since": now - 12_600,
            "lost": self.lost,
        }

    def agents(self, now: float) -> list[dict[str, Any]]:
        return [self.by_name[name] for name in sorted(self.by_name)]

    def agent(self, name: str, now: float) -> dict[str, Any] | None:
        return self.by_name.get(name)

    def names(self) -> Sequence[str]:
        return sorted(self.by_name)


class FakeBook:
    """Incidents in a list, newest first."""

    def __init__(self) -> None:
        self.incidents: list[Incident] = []

    async def open_incidents(self) -> list[Incident]:
        return [i for i in self.incidents if i.state is not IncidentState.RESOLVED]

    async def save(self, incident: Incident) -> None:
        self.keep(incident)

    def keep(self, incident: Incident) -> None:
        self.incidents = [i for i in self.incidents if i.id != incident.id]
        self.incidents.append(incident)
        self.incidents.sort(key=lambda i: -i.opened_at)

    async def get(self, incident_id: str) -> Incident | None:
        return next((i for i in self.incidents if i.id == incident_id), None)

    async def page(
        self, *, state: str | None, agent: str | None, after: str | None, limit: int
    ) -> list[Incident]:
        found = [
            i
            for i in self.incidents
            if (state is None or i.state == state) and (agent is None or i.agent == agent)
        ]
        if after is not None:
            ids = [i.id for i in found]
            found = found[ids.index(after) + 1 :] if after in ids else []
        return found[:limit]


class Stream:
    """Server-sent events to whoever follows; safe to publish to from any thread."""

    def __init__(self) -> None:
        self.followers: set[asyncio.Queue[bytes | None]] = set()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.refusing = False

    def publish(self, topic: str, data: dict[str, Any]) -> None:
        self._send(f"event: {topic}\ndata: {json.dumps(data)}\n\n".encode())

    def cut(self) -> None:
        self._send(None)

    def _send(self, message: bytes | None) -> None:
        if self.loop is not None:
            self.loop.call_soon_threadsafe(lambda: [q.put_nowait(message) for q in self.followers])

    async def follow(self) -> AsyncIterator[bytes]:
        self.loop = asyncio.get_running_loop()
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.followers.add(queue)
        try:
            yield b"retry: 200\n: hello\n\n"
            while (message := await queue.get()) is not None:
                yield message
        finally:
            self.followers.discard(queue)


class Demo:
    """A fleet, its incidents, and the app that shows them."""

    def __init__(self, clock: Callable[[], float] = lambda: NOW) -> None:
        self.clock = clock
        self.reader = FakeReader()
        self.book = FakeBook()
        self.deliveries = MemoryDeliveries()
        self.stream = Stream()
        self.runs: dict[str, list[dict[str, Any]]] = {}
        self.posted: list[str] = []
        self.output = (
            "02:27:40 mail 31 of 40: newsletter, filed\n02:27:52 mail 32 of 40: invoice, drafted\n"
        )

    def put(self, agent: dict[str, Any]) -> None:
        self.reader.by_name[agent["agent"]] = agent
        self.stream.publish("fleet", agent)

    def tell(self, incident: Incident) -> None:
        self.book.keep(incident)
        self.stream.publish(
            "incident",
            {
                "id": incident.id,
                "agent": incident.agent,
                "severity": incident.severity,
                "state": incident.state.value,
                "sentence": incident.sentence,
            },
        )

    def app(self) -> FastAPI:
        app = FastAPI()

        async def runs(agent: str, limit: int) -> Sequence[dict[str, Any]]:
            return self.runs.get(agent, [])[:limit]

        pages = web.build(
            self.reader, self.book, clock=self.clock, runs=runs, deliveries=self.deliveries
        )
        app.include_router(pages)

        @app.get("/api/stream")
        async def stream() -> Response:
            if self.stream.refusing:
                return PlainTextResponse("not now", 503)
            return StreamingResponse(self.stream.follow(), media_type="text/event-stream")

        @app.get("/api/agents/{agent}/logs")
        async def logs(agent: str) -> Response:
            return PlainTextResponse(self.output)

        @app.post("/api/agents/{agent}/{do}")
        async def act(agent: str, do: str) -> Response:
            self.posted.append(f"{do} {agent}")
            state = {"stop": "stopped", "suspend": "suspended", "kill": "stopped"}.get(
                do, "running"
            )
            self.put({**self.reader.by_name[agent], "state": state, "since": self.clock()})
            return JSONResponse([{"agent": agent, "action": do, "result": state, "state": state}])

        @app.post("/api/incidents/{incident_id}/ack")
        async def ack(incident_id: str) -> Response:
            found = await self.book.get(incident_id)
            assert found is not None
            self.posted.append(f"ack {incident_id}")
            await self.book.save(replace(found, state=IncidentState.ACKED, acked_at=self.clock()))
            return JSONResponse({"id": incident_id, "state": "acked"})

        @app.exception_handler(404)
        async def missing(request: Request, _: Exception) -> Response:
            return web.problem_page(404)

        return app


class Served:
    """A demo behind a real server, in a thread of its own. Use as a context manager."""

    def __init__(self, demo: Demo, port: int = 0) -> None:
        self.demo = demo
        self.port = port or _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._stop: Callable[[], None] = lambda: None

    def _run(self) -> None:
        from granian.constants import Interfaces
        from granian.server.embed import Server

        async def serve() -> None:
            server = Server(
                self.demo.app(),
                address="127.0.0.1",
                port=self.port,
                interface=Interfaces.ASGI,
                log_enabled=False,
            )
            self._stop = server.stop
            await server.serve()

        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(serve())
        finally:
            self._loop.close()

    def __enter__(self) -> Served:
        self._thread.start()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
            except OSError:
                time.sleep(0.02)
            else:
                return self
        raise AssertionError(f"the demo does not answer at {self.url}")

    def __exit__(self, *_: object) -> None:
        self.demo.stream.cut()
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the demo's server did not stop"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
