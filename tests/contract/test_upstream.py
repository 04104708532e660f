"""What every `Upstream` promises: the real one against a raw server, and the scripted one."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from midwatch.gateway.upstream.port import Phase, Request, Upstream, UpstreamError
from midwatch.gateway.upstream.scripted import Answer, Break, Refuse, ScriptedUpstream, Silence
from midwatch.gateway.upstream.wire import WireUpstream

JSON = (("content-type", "application/json"), ("x-request-id", "req_1"))
SOON_S = 0.25


@dataclass
class RawServer:
    """Plays a script of answers over a socket, byte for byte."""

    script: list[Answer | Refuse]
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0)  # fmt: skip
                self.bodies.append(await reader.readexactly(length))
                if not await self._answer(self.script.pop(0), writer):
                    await reader.read()
                    return
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            self.gone.set()
            writer.close()

    async def _answer(self, said: Answer | Refuse, writer: asyncio.StreamWriter) -> bool:
        if isinstance(said, Refuse):
            if said.phase is Phase.CONNECT:
                raise ConnectionError
            return False  # no head, for ever
        lines = [f"HTTP/1.1 {said.status} X", *(f"{k}: {v}" for k, v in said.headers), *([] if said.ends_by_close else ["transfer-encoding: chunked"])]  # fmt: skip
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
        for piece in said.chunks:
            if isinstance(piece, Silence):
                await writer.drain()
                return False
            if isinstance(piece, Break):
                await writer.drain()
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)  # fmt: skip
                raise ConnectionError
            if said.ends_by_close:
                writer.write(piece)
            else:
                writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)
        if said.ends_by_close:
            raise ConnectionError
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


@dataclass
class Stage:
    upstream: Upstream
    url: str
    raw: RawServer | None = None

    def request(self, **changes: Any) -> Request:
        given = {"method": "POST", "url": f"{self.url}/v1/x?y=1", "headers": [("content-type", "application/json")], "body": b'{"a": 1}', "connect_s": 20.0, "head_s": 20.0}  # fmt: skip
        return Request(**{**given, **changes})


@asynccontextmanager
async def real(script: Sequence[Answer | Refuse]) -> AsyncIterator[Stage]:
    raw = RawServer(list(script))
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    if any(isinstance(said, Refuse) and said.phase is Phase.CONNECT for said in script):
        server.close()  # the port is free, and nobody answers there
        await server.wait_closed()
    upstream = WireUpstream()
    try:
        yield Stage(upstream, f"http://127.0.0.1:{port}", raw)
    finally:
        await upstream.close()
        server.close()


@asynccontextmanager
async def scripted(script: Sequence[Answer | Refuse]) -> AsyncIterator[Stage]:
    yield Stage(ScriptedUpstream(script), "http://provider.test")


@pytest.fixture(params=[real, scripted], ids=["wire", "scripted"])
def stage(request: pytest.FixtureRequest) -> Any:
    return request.param


async def test_an_answer_comes_in_pieces_as_they_are_sent(stage: Any) -> None:
    async with stage([Answer(201, [b"one", b"two", b"three"], JSON)]) as on:
        reply = await on.upstream.open(on.request())
        assert reply.status == 201
        assert dict(reply.headers)["x-request-id"] == "req_1"
        pieces = [await reply.chunk(20.0) for _ in range(4)]
        assert pieces == [b"one", b"two", b"three", None]
        await reply.close()


async def test_a_whole_answer_is_bounded(stage: Any) -> None:
    async with stage([Answer(200, [b"x" * 600, b"y" * 600], JSON)] * 2) as on:
        reply = await on.upstream.open(on.request())
        assert len(await reply.whole(20.0, 1200)) == 1200
        await reply.close()
        reply = await on.upstream.open(on.request())
        with pytest.raises(UpstreamError, match="longer than 1,000 bytes") as caught:
            await reply.whole(20.0, 1000)
        assert caught.value.phase is Phase.BODY
        await reply.close()


async def test_an_answer_that_ends_with_its_connection_says_so(stage: Any) -> None:
    async with stage(
        [Answer(200, [b"one"], JSON, ends_by_close=True), Answer(200, [b"two"])]
    ) as on:
        for body, ends_by_close in ((b"one", True), (b"two", False)):
            reply = await on.upstream.open(on.request())
            assert reply.ends_by_close is ends_by_close
            assert await reply.whole(20.0, 100) == body
            await reply.close()


async def test_the_end_is_told_again_and_closing_twice_is_fine(stage: Any) -> None:
    async with stage([Answer(200, [b"one"])]) as on:
        reply = await on.upstream.open(on.request())
        assert [await reply.chunk(20.0) for _ in range(3)] == [b"one", None, None]
        assert await reply.whole(20.0, 10) == b""
        await reply.close()
        await reply.close()


async def test_nobody_there_is_told_as_not_connected(stage: Any) -> None:
    async with stage([Refuse()]) as on:
        with pytest.raises(UpstreamError, match="refused") as caught:
            await on.upstream.open(on.request())
        assert caught.value.phase is Phase.CONNECT


async def test_an_answer_that_does_not_begin_is_given_up(stage: Any) -> None:
    async with stage([Refuse(Phase.HEAD, "no answer within 0.25 s")]) as on:
        with pytest.raises(UpstreamError, match=r"no answer within 0\.25 s") as caught:
            await on.upstream.open(on.request(head_s=SOON_S))
        assert caught.value.phase is Phase.HEAD


async def test_a_stream_that_stops_and_one_that_breaks_are_told_apart(stage: Any) -> None:
    script = [Answer(200, [b"one", Silence()], JSON), Answer(200, [b"one", Break()], JSON)]
    async with stage(script) as on:
        for phase in (Phase.BETWEEN, Phase.BODY):
            reply = await on.upstream.open(on.request())
            assert await reply.chunk(20.0) == b"one"
            with pytest.raises(UpstreamError) as caught:
                await reply.chunk(SOON_S)
            assert caught.value.phase is phase
            await reply.close()


async def test_a_whole_answer_that_stops_is_over_in_time(stage: Any) -> None:
    async with stage([Answer(200, [b"one", Silence()], JSON)]) as on:
        reply = await on.upstream.open(on.request())
        with pytest.raises(UpstreamError, match="not whole") as caught:
            await reply.whole(SOON_S, 1000)
        assert caught.value.phase is Phase.TOTAL
        await reply.close()


async def test_what_is_sent_arrives_byte_for_byte_and_no_address_is_in_an_error() -> None:
    async with real([Answer(200, [b"\x1f\x8b raw"], (("content-encoding", "gzip"),))]) as on:
        assert on.raw is not None
        body = b'{"b" :2,\xc3\xa9"a":[1, 2]}'
        reply = await on.upstream.open(on.request(body=body, headers=[("x-api-key", "k"), ("accept-encoding", "identity")]))  # fmt: skip
        assert await reply.whole(20.0, 100) == b"\x1f\x8b raw"
        await reply.close()
        assert on.raw.bodies == [body]
        head = on.raw.heads[0].decode()
        assert head.startswith("POST /v1/x?y=1 HTTP/1.1\r\n")
        assert "x-api-key: k" in head.lower()
        assert head.lower().count("accept-encoding") == 1
    refused = WireUpstream()
    with pytest.raises(UpstreamError) as caught:
        await refused.open(on.request(url="http://127.0.0.1:9/v1?key=secret"))
    assert "secret" not in str(caught.value)
    await refused.close()


async def test_a_redirect_is_not_followed_with_the_key() -> None:
    async with real([Answer(307, [], (("location", "http://127.0.0.1:9/"),))]) as on:
        reply = await on.upstream.open(on.request())
        assert reply.status == 307
        await reply.close()


async def test_an_answer_that_is_let_go_closes_its_connection() -> None:
    async with real([Answer(200, [b"one", Silence()])]) as on:
        assert on.raw is not None
        reply = await on.upstream.open(on.request())
        await reply.chunk(20.0)
        await reply.close()
        async with asyncio.timeout(30):
            await on.raw.gone.wait()
