"""What a handler may rely on: with the real server and a socket, and with the client by script."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from midwatch.gateway.http.played import PlayedIncoming, PlayedOutgoing
from midwatch.gateway.http.port import BodyRefused, ClientGone, Handler, Incoming, Outgoing
from midwatch.gateway.http.server import bind, serve


@dataclass
class Seen:
    """What the client has of the answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    well: bool
    """It ended as answers do."""


async def real(handler: Handler, body: bytes, *, leaves: bool) -> Seen | None:
    done = asyncio.Event()

    async def noted(incoming: Incoming, outgoing: Outgoing) -> None:
        try:
            await handler(incoming, outgoing)
        finally:
            done.set()

    server = await serve(noted, bind("127.0.0.1", 0))
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = f"POST /v1/x?y=1 HTTP/1.1\r\nHost: localhost\r\nX-A: 1\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    try:
        async with asyncio.timeout(20):
            if leaves:
                await writer.drain()
                writer.transport.abort()
                await done.wait()
                return None
            answer = await reader.read()
            await done.wait()
    finally:
        writer.close()
        await server.stop(5)
    return _understood(answer)


def _understood(answer: bytes) -> Seen:
    head, _, rest = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    status = int(first.split()[1])
    if "content-length" in headers:
        return Seen(status, headers, rest, len(rest) == int(headers["content-length"]))
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        if int(size, 16) == 0:
            return Seen(status, headers, body, well=True)
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return Seen(status, headers, body, well=False)


async def played(handler: Handler, body: bytes, *, leaves: bool) -> Seen | None:
    incoming = PlayedIncoming("POST", "/v1/x", "y=1", [("x-a", "1")], body)
    outgoing = PlayedOutgoing(leaves_after=0 if leaves else None)
    await handler(incoming, outgoing)
    if leaves:
        return None
    assert outgoing.status is not None
    return Seen(outgoing.status, dict(outgoing.headed), outgoing.whole, outgoing.ended)


Play = Callable[..., Awaitable[Any]]


@pytest.fixture(params=[real, played], ids=["wire", "played"])
def play(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_a_whole_answer_arrives(play: Play) -> None:
    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        assert (incoming.method, incoming.path, incoming.query) == ("POST", "/v1/x", "y=1")
        assert (incoming.header("x-a"), incoming.header("x-b")) == ("1", None)
        assert not outgoing.begun
        outgoing.answer(201, [("x-b", "2")], await incoming.body(10) + b"!")
        assert outgoing.begun

    seen = await play(handler, b"body", leaves=False)
    assert (seen.status, seen.headers["x-b"], seen.body, seen.well) == (201, "2", b"body!", True)


async def test_an_answer_in_pieces_arrives(play: Play) -> None:
    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        outgoing.begin(200, [("content-type", "text/event-stream")])
        for piece in (b"one", b"", b"two"):
            await outgoing.send(piece)
        assert not outgoing.gone.done()
        outgoing.end()
        outgoing.abort()  # silent: it has ended

    seen = await play(handler, b"", leaves=False)
    assert (seen.body, seen.well) == (b"onetwo", True)


async def test_an_answer_that_is_aborted_is_not_taken_for_whole(play: Play) -> None:
    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        outgoing.begin(200, [])
        await outgoing.send(b"half")
        outgoing.abort()
        assert outgoing.gone.done()
        with pytest.raises(ClientGone):
            await outgoing.send(b"more")
        outgoing.end()  # silent
        outgoing.abort()

    seen = await play(handler, b"", leaves=False)
    assert (seen.body, seen.well) == (b"half", False)


async def test_a_body_that_is_too_long_is_refused_by_its_reader(play: Play) -> None:
    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        with pytest.raises(BodyRefused, match="longer than 3 bytes") as caught:
            await incoming.body(3)
        outgoing.answer(caught.value.status, [], caught.value.reason.encode())

    seen = await play(handler, b"four", leaves=False)
    assert (seen.status, seen.body, seen.well) == (413, b"too_long", True)


async def test_who_left_is_told_and_nothing_else_fails(play: Play) -> None:
    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        await asyncio.wait([outgoing.gone], timeout=10)
        assert outgoing.gone.done()
        outgoing.begin(200, [])
        with pytest.raises(ClientGone):
            await outgoing.send(b"x")
        outgoing.end()
        outgoing.abort()
        told.append(True)

    told: list[bool] = []
    await play(handler, b"", leaves=True)
    assert told == [True]


async def test_what_is_out_of_order_is_a_fault_of_the_handler(play: Play) -> None:
    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        with pytest.raises(RuntimeError):
            await outgoing.send(b"x")
        with pytest.raises(RuntimeError):
            outgoing.end()
        outgoing.answer(200, [], b"")
        with pytest.raises(RuntimeError):
            outgoing.answer(200, [], b"")
        with pytest.raises(RuntimeError):
            outgoing.begin(200, [])
        with pytest.raises(RuntimeError):
            outgoing.end()
        with pytest.raises(RuntimeError):
            await outgoing.send(b"x")

    seen = await play(handler, b"", leaves=False)
    assert (seen.status, seen.body) == (200, b"")
