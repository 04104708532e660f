"""A server of ours with a raw client on its socket, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop

from midwatch.gateway.http.limits import Limits
from midwatch.gateway.http.port import Handler, Incoming, Outgoing
from midwatch.gateway.http.server import Server, bind, serve


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Any]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


async def until(true: Callable[[], bool], within_s: float = 30.0) -> None:
    """Return when it is true; fail when it is not in time."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.01)


@dataclass
class Raw:
    """A client that sends what it is told, byte for byte."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(30):
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = text.rstrip().split("\r\n")
        pairs = (line.partition(": ") for line in lines)
        return int(first.split()[1]), {name: value for name, _, value in pairs}

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Return one whole answer; IncompleteReadError when it is broken."""
        status, headers = await self.head()
        async with asyncio.timeout(30):
            if "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
                return status, headers, body
            body = b""
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
        return status, headers, body

    async def rest(self) -> bytes:
        """Return all that comes until the server closes."""
        async with asyncio.timeout(30):
            return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):  # the server may have been first
            await self.writer.wait_closed()


@dataclass
class Stage:
    server: Server
    clients: list[Raw] = field(default_factory=list)

    @property
    def lost(self) -> dict[str, int]:
        return {reason: count for reason, count in self.server.lost.items() if count}

    async def connect(self, **more: Any) -> Raw:
        raw = Raw(*await asyncio.open_connection("127.0.0.1", self.server.port, **more))
        self.clients.append(raw)
        return raw

    async def send(self, data: bytes) -> Raw:
        raw = await self.connect()
        await raw.send(data)
        return raw


Serving = Callable[..., Any]


async def echo(incoming: Incoming, outgoing: Outgoing) -> None:
    """Answers with what it understood."""
    body = await incoming.body(1_000)
    text = f"{incoming.method} {incoming.path} {incoming.query} {len(body)}".encode()
    outgoing.answer(200, [("content-type", "text/plain")], text)


@contextlib.asynccontextmanager
async def _serving(handler: Handler = echo, **limits: Any) -> AsyncIterator[Stage]:
    server = await serve(handler, bind("127.0.0.1", 0), limits=Limits(**limits))
    stage = Stage(server)
    try:
        yield stage
    finally:
        for raw in stage.clients:
            await raw.close()
        await server.stop(5)
        assert server.held_bytes == 0, "bodies that are over still count"
        assert server.connections == 0


@pytest.fixture
def serving() -> Serving:
    return _serving


@pytest.fixture(name="until")
def _until() -> Callable[..., Awaitable[None]]:
    return until


@contextlib.asynccontextmanager
async def _listening(talk: Callable[..., Awaitable[None]], **more: Any) -> AsyncIterator[int]:
    """Serve `talk(reader, writer)` on a port; leave when all talks are over."""
    talks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await talk(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20, **more)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if talks:
            _, stuck = await asyncio.wait(talks, timeout=30)
            assert not stuck


@pytest.fixture
def listening() -> Callable[..., Any]:
    return _listening
