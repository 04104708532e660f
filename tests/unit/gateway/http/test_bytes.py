"""However a peer's bytes are cut into packets, they mean the same: on both sides of the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from midwatch.gateway.http.connection import Connection
from midwatch.gateway.http.limits import Limits
from midwatch.gateway.http.port import BodyRefused, ClientGone, Incoming, Outgoing
from midwatch.gateway.http.service import Service
from midwatch.gateway.upstream.address import Place
from midwatch.gateway.upstream.line import Line
from midwatch.gateway.upstream.port import UpstreamError
from midwatch.gateway.upstream.reply import WireReply

HOST = b"Host: localhost\r\n"
CUTS = st.lists(st.integers(0, 2_000), max_size=12)


class Wire:
    """A transport that keeps what is written to it, and is never full."""

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.written = b""
        self.closed = False
        protocol.connection_made(self)

    def write(self, data: bytes) -> None:
        if not self.closed:
            self.written += bytes(data)

    def get_extra_info(self, name: str) -> Any:
        return ("192.0.2.1", 1) if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    resume_reading = write_eof = pause_reading

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.protocol.connection_lost(None)

    abort = close


def cut(data: bytes, at: Sequence[int]) -> Iterator[bytes]:
    """Yield `data` in pieces that begin at the places in `at`."""
    places = [0, *sorted(p % (len(data) + 1) for p in at), len(data)]
    for start, end in pairwise(places):
        if start < end:
            yield data[start:end]


async def _serve(pieces: Iterator[bytes]) -> tuple[list[Any], bytes]:
    """Return what the handler was asked, and what the client was answered."""
    asked: list[Any] = []

    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        try:
            body: Any = await incoming.body(50)
        except BodyRefused as refused:
            body = refused.reason
        except ClientGone:
            return
        asked.append((incoming.method, incoming.path, incoming.query, list(incoming.headers), body))
        outgoing.answer(200, [], str(body).encode())

    service = Service(handler, frozenset(), Limits())
    service.date = "today"
    connection = Connection(service)
    wire = Wire(connection)
    for piece in pieces:
        if not wire.closed:
            connection.data_received(piece)
        await _settle()
    wire.close()
    await _settle()
    assert service.held == 0
    return asked, wire.written


async def _settle() -> None:
    """Let tasks go as far as they can: a request takes one turn of the loop, or two."""
    for _ in range(12):
        await asyncio.sleep(0)


REQUESTS = st.sampled_from(
    [
        b"GET /a?b=c HTTP/1.1\r\n" + HOST + b"X-One:  1 \r\nX-TWO: caf\xe9\r\n\r\n",
        b"POST /p HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello",
        b"POST /c HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=1\r\nde\r\n0\r\nT: 1\r\n\r\n",
        b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n",
        b"POST /up HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi",
        b"POST /long HTTP/1.1\r\n" + HOST + b"Content-Length: 90\r\n\r\n" + b"x" * 90,
        b"POST /bad HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"\r\nGET /blank HTTP/1.1\r\n" + HOST + b"\r\n",
        b"NONSENSE\r\n\r\n",
    ]
)  # fmt: skip


@given(st.lists(REQUESTS, min_size=1, max_size=4), CUTS)
def test_requests_mean_the_same_however_they_are_cut(requests: list[bytes], at: list[int]) -> None:
    data = b"".join(requests)
    whole, cut_up = asyncio.run(_both(_serve, data, at))
    assert cut_up[0] == whole[0]
    assert cut_up[1] == whole[1]


async def _both(play: Any, data: bytes, at: list[int]) -> tuple[Any, Any]:
    return await play(iter([data])), await play(cut(data, at))


class Nobody:
    """Keeps no lines."""

    def __init__(self) -> None:
        self.rested = False

    def stands(self, line: Line) -> None:
        pass

    gone = stands

    def rest(self, line: Line, for_s: float) -> None:
        self.rested = True
        line.drop()


async def _hear(pieces: Iterator[bytes], method: str = "POST") -> Any:
    """Return what an answer is: status, headers, body, how it ended, and whether its line may rest."""
    owner = Nobody()
    line = Line(owner, Place("x", 1, secure=False))
    wire = Wire(line)
    reply = WireReply(line, float("inf"), bodiless=method == "HEAD")
    for piece in pieces:
        if not wire.closed:
            line.data_received(piece)
    wire.close()
    body, end = b"", "well"
    try:
        while piece := await reply.chunk(1.0):
            body += piece
    except UpstreamError as error:
        end = str(error)
    return reply.status, list(reply.headers), body, end, reply.ends_by_close, owner.rested


ANSWERS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\nX-One:  1 \r\nx-two: caf\xe9\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=1 \r\nde\r\n0\r\nT: 1\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 201 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 204 No\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
        b"<html>",
        b"HTTP/1.1 200",
    ]
)  # fmt: skip


@given(ANSWERS, CUTS)
def test_an_answer_means_the_same_however_it_is_cut(answer: bytes, at: list[int]) -> None:
    whole, cut_up = asyncio.run(_both(_hear, answer, at))
    assert cut_up == whole


@given(st.binary(max_size=300), CUTS)
def test_no_bytes_make_either_side_fail_in_another_way(data: bytes, at: list[int]) -> None:
    asyncio.run(_serve(cut(data, at)))
    asyncio.run(_hear(cut(data, at)))


@given(
    st.sampled_from([b"Content-Length", b"Transfer-Encoding", b"Host", b"X"]),
    st.binary(min_size=1, max_size=20),
    CUTS,
)
def test_a_head_with_strange_values_is_refused_or_framed_in_one_way(
    name: bytes, value: bytes, at: list[int]
) -> None:
    data = b"POST / HTTP/1.1\r\n" + HOST + name + b": " + value + b"\r\n\r\n" + b"GET /second HTTP/1.1\r\n" + HOST + b"\r\n"  # fmt: skip
    whole, cut_up = asyncio.run(_both(_serve, data, at))
    assert cut_up == whole
    if b" 400 " in whole[1][:16]:
        assert whole[0] == [], "who is refused is not served"
