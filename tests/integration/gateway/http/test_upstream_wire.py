"""Requests to a provider that does what it likes with bytes and connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from midwatch.gateway.upstream import reply
from midwatch.gateway.upstream.port import Phase, Request, UpstreamError
from midwatch.gateway.upstream.reply import AHEAD_BYTES
from midwatch.gateway.upstream.wire import WireUpstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Talk:
    """One connection of the provider's: `read` returns a whole request."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int

    async def read(self) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return head + await self.reader.readexactly(length)

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


@dataclass
class Stage:
    upstream: WireUpstream
    port: int
    requests: list[bytes] = field(default_factory=list)
    left: int = 0
    """Connections that are over."""

    def request(self, **changes: Any) -> Request:
        given = {"method": "POST", "url": f"http://127.0.0.1:{self.port}/v1?a=1", "headers": [], "body": b"{}", "connect_s": 20.0, "head_s": 20.0}  # fmt: skip
        return Request(**{**given, **changes})

    async def whole(self, **changes: Any) -> bytes:
        reply = await self.upstream.open(self.request(**changes))
        try:
            return await reply.whole(20.0, 1 << 20)
        finally:
            await reply.close()


@pytest.fixture(name="provider")
def _provider(listening: Any) -> Callable[..., Any]:
    @contextlib.asynccontextmanager
    async def provider(talk: Callable[[Talk], Awaitable[None]]) -> AsyncIterator[Stage]:
        numbers = iter(range(1_000))

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await talk(Talk(reader, writer, next(numbers)))
            finally:
                stage.left += 1

        async with listening(serve) as port:
            stage = Stage(WireUpstream(), port)
            try:
                yield stage
            finally:
                await stage.upstream.close()
                assert stage.upstream.connections == 0

    return provider


def says(data: bytes, *, close: bool = False) -> Callable[[Talk], Awaitable[None]]:
    async def talk(on: Talk) -> None:
        while True:
            await on.read()
            await on.say(data)
            if close:
                return

    return talk


# -- connections -----------------------------------------------------------------------------------


async def test_one_connection_carries_one_request_after_the_other(provider: Any) -> None:
    async with provider(says(OK)) as on:
        for _ in range(5):
            assert await on.whole() == b"ok"
        assert (on.upstream.dialled, on.upstream.connections, on.upstream.resting) == (1, 1, 1)
        assert await asyncio.gather(*(on.whole() for _ in range(4))) == [b"ok"] * 4
        assert on.upstream.dialled == 4


@pytest.mark.parametrize("headers", [b"Connection: close\r\n", b"Keep-Alive: timeout=1\r\n"])
async def test_a_connection_that_will_be_closed_is_not_used_again(
    provider: Any, headers: bytes
) -> None:
    async with provider(says(OK.replace(b"\r\n", b"\r\n" + headers, 1))) as on:
        assert [await on.whole(), await on.whole()] == [b"ok", b"ok"]
        assert on.upstream.dialled == 2


async def test_a_resting_connection_that_was_closed_is_replaced_without_a_word(
    provider: Any, until: Any
) -> None:
    async with provider(says(OK, close=True)) as on:
        assert await on.whole() == b"ok"
        await until(lambda: on.upstream.connections == 0)
        assert await on.whole() == b"ok"
        assert on.upstream.repeated == 0


@pytest.mark.parametrize(("found_s", "times"), [(60.0, 1), (0.0, 0)])
async def test_a_request_that_met_a_closing_connection_is_sent_once_more_if_that_shows_at_once(
    provider: Any, found_s: float, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply, "STALE_S", found_s)

    async def talk(on: Talk) -> None:
        stage.requests.append(await on.read())
        await on.say(OK)
        if on.number == 0:
            stage.requests.append(await on.read())  # taken, and closed without a byte of an answer

    async with provider(talk) as stage:
        assert await stage.whole() == b"ok"
        if times:
            assert await stage.whole() == b"ok"
        else:  # the answer may have been made, and billed
            with pytest.raises(UpstreamError, match="closed before an answer came"):
                await stage.whole()
        assert (len(stage.requests), stage.upstream.repeated) == (2 + times, times)


async def test_a_request_is_sent_once_more_at_the_most_and_never_from_a_fresh_connection(
    provider: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply, "STALE_S", 60.0)

    async def talk(on: Talk) -> None:
        stage.requests.append(await on.read())
        if on.number == 0:
            await on.say(OK)
            stage.requests.append(await on.read())

    async with provider(talk) as stage:
        assert await stage.whole() == b"ok"
        with pytest.raises(UpstreamError, match="closed before an answer came") as caught:
            await stage.whole()
        assert caught.value.phase is Phase.HEAD
        assert len(stage.requests) == 3
        with pytest.raises(UpstreamError):
            await stage.whole()
        assert (len(stage.requests), stage.upstream.repeated) == (4, 1)


async def test_a_request_whose_answer_began_is_never_sent_again(provider: Any) -> None:
    async def talk(on: Talk) -> None:
        stage.requests.append(await on.read())
        await on.say(OK)
        stage.requests.append(await on.read())
        await on.say(b"HTTP/1.1 2")

    async with provider(talk) as stage:
        assert await stage.whole() == b"ok"
        with pytest.raises(UpstreamError) as caught:
            await stage.whole()
        assert (caught.value.phase, len(stage.requests)) == (Phase.HEAD, 2)


async def test_what_nobody_asked_for_is_never_taken_for_an_answer(
    provider: Any, until: Any
) -> None:
    async def talk(on: Talk) -> None:
        await on.read()
        await on.say(OK)
        if on.number == 0:
            go.set()
            await more.wait()
            await on.say(OK.replace(b"ok", b"no"))
        await on.read()

    go, more = asyncio.Event(), asyncio.Event()
    async with provider(talk) as on:
        assert await on.whole() == b"ok"
        await go.wait()
        more.set()
        await until(lambda: on.upstream.connections == 0)
        assert await on.whole() == b"ok"
        assert on.upstream.dialled == 2


@pytest.mark.parametrize("when", ["waiting for the head", "reading"])
@pytest.mark.parametrize("how", ["cancelled", "too late", "closed"])
async def test_who_gives_up_has_closed_the_connection(
    provider: Any, until: Any, when: str, how: str
) -> None:
    got = asyncio.Event()

    async def talk(on: Talk) -> None:
        await on.read()
        got.set()
        if when == "reading":
            await on.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        await on.reader.read()  # returns when the other side closes

    async def call() -> None:
        reply = await on.upstream.open(on.request(head_s=0.2 if how == "too late" else 60.0))
        try:
            assert await reply.chunk(20.0) == b"ab"
            if how != "closed":
                await reply.chunk(0.2 if how == "too late" else 60.0)
        finally:
            await reply.close()

    async with provider(talk) as on:
        calling = asyncio.create_task(call())
        async with asyncio.timeout(30):
            await got.wait()
        if how == "cancelled" or when != "reading":
            await asyncio.sleep(0.05 if when == "reading" else 0)
            if how != "too late":
                calling.cancel()
        await asyncio.wait([calling], timeout=30)
        assert calling.done()
        if not calling.cancelled():
            calling.exception()
        await until(lambda: on.left == 1)
        assert on.upstream.connections == 0


async def test_a_closed_upstream_tells_who_waits(provider: Any) -> None:
    async def talk(on: Talk) -> None:
        await on.read()
        await on.say(b"HTTP/1.1 200 OK\r\n\r\nno length")
        await on.reader.read()

    async with provider(talk) as on:
        reply = await on.upstream.open(on.request())
        waiting = asyncio.create_task(reply.whole(60.0, 100))
        await asyncio.sleep(0)
        await on.upstream.close()
        with pytest.raises(UpstreamError, match="the gateway stops"):
            await waiting


# -- sending ---------------------------------------------------------------------------------------


async def test_a_request_is_written_with_what_is_ours_and_nothing_of_one_hop(provider: Any) -> None:
    async def talk(on: Talk) -> None:
        stage.requests.append(await on.read())
        await on.say(OK)

    async with provider(talk) as stage:
        headers = [("host", "evil"), ("content-length", "99"), ("transfer-encoding", "chunked"), ("connection", "x"), ("expect", "100-continue"), ("x-a", "1"), ("x-a", "é\r\nx-evil: 1")]  # fmt: skip
        await stage.whole(headers=headers, body=b'{"a" :1}')
        await stage.whole(method="GET", headers=[], body=b"")
        await stage.whole(body=b"")
    host = f"host: 127.0.0.1:{stage.port}\r\n".encode()
    long = b"x-a: 1\r\nx-a: \xe9  x-evil: 1\r\ncontent-length: 8\r\n\r\n"
    assert stage.requests == [
        b"POST /v1?a=1 HTTP/1.1\r\n" + host + long + b'{"a" :1}',
        b"GET /v1?a=1 HTTP/1.1\r\n" + host + b"\r\n",
        b"POST /v1?a=1 HTTP/1.1\r\n" + host + b"content-length: 0\r\n\r\n",
    ]


async def test_a_long_body_arrives_whole(provider: Any) -> None:
    body = bytes(range(256)) * 20_000

    async def talk(on: Talk) -> None:
        assert (await on.read()).endswith(body)
        await on.say(OK)

    async with provider(talk) as on:
        assert await on.whole(body=body) == b"ok"


async def test_an_answer_that_comes_before_the_body_was_sent_is_the_answer(provider: Any) -> None:
    async def talk(on: Talk) -> None:
        await on.reader.readuntil(b"\r\n\r\n")
        await on.say(b"HTTP/1.1 413 X\r\nContent-Length: 3\r\n\r\nbig")
        await done.wait()

    done = asyncio.Event()
    async with provider(talk) as on:
        reply = await on.upstream.open(on.request(body=b"x" * 30_000_000))
        assert (reply.status, await reply.whole(20.0, 100)) == (413, b"big")
        await reply.close()
        assert on.upstream.resting == 0, "half a request is still on its way"
        done.set()


async def test_a_provider_that_takes_nothing_of_a_long_body_is_given_up(provider: Any) -> None:
    async def talk(on: Talk) -> None:
        on.writer.transport.pause_reading()
        await done.wait()

    done = asyncio.Event()
    async with provider(talk) as on:
        with pytest.raises(UpstreamError, match="nothing of the request was taken") as caught:
            await on.whole(body=b"x" * 30_000_000, head_s=0.3)
        assert caught.value.phase is Phase.HEAD
        done.set()


# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "status", "body", "ends_by_close"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b"", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nab\r\n1;x=y\r\nc\r\n0\r\nX-T: 1\r\n\r\n", 200, b"abc", False),
        (b"HTTP/1.1 200 OK\r\n\r\nall there is", 200, b"all there is", True),
        (b"HTTP/1.0 200 OK\r\n\r\nold", 200, b"old", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", False),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b"", False),
        (b"HTTP/1.1 599\r\nContent-Length: 1\r\n\r\nx", 599, b"x", False),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\n" + OK, 200, b"ok", False),
        (b"HTTP/1.1 307 Away\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n", 307, b"", False),
    ],
)  # fmt: skip
async def test_an_answer_is_read_as_it_is_framed(
    provider: Any, said: bytes, status: int, body: bytes, ends_by_close: bool
) -> None:
    async with provider(says(said, close=True)) as on:
        reply = await on.upstream.open(on.request())
        assert (reply.status, reply.ends_by_close) == (status, ends_by_close)
        assert "link" not in dict(reply.headers)
        assert await reply.whole(20.0, 100) == body
        assert await reply.chunk(20.0) is None
        await reply.close()


async def test_the_answer_to_head_has_no_body(provider: Any) -> None:
    async with provider(says(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")) as on:
        for _ in range(2):
            assert await on.whole(method="HEAD", body=b"") == b""


async def test_headers_come_in_order_in_lower_case_and_with_any_byte(provider: Any) -> None:
    said = OK.replace(b"\r\n", b"\r\nX-B: caf\xe9 \r\nSet-Cookie: 1\r\nset-cookie:2\r\n", 1)
    async with provider(says(said)) as on:
        reply = await on.upstream.open(on.request())
        assert list(reply.headers) == [("x-b", "café"), ("set-cookie", "1"), ("set-cookie", "2"), ("content-length", "2")]  # fmt: skip
        await reply.close()


@pytest.mark.parametrize(
    ("said", "phase", "words"),
    [
        (b"<html>Bad gateway</html>", Phase.HEAD, "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", Phase.HEAD, "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", Phase.HEAD, "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Phase.HEAD, "'gzip, chunked' was not asked for"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx", Phase.HEAD, "'gzip' was not asked for"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", Phase.HEAD, "another protocol"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n", Phase.HEAD, "head is longer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 900_000, Phase.HEAD, "head is longer"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 40_000, Phase.HEAD, "head is longer"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", Phase.HEAD, "closed before an answer came"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc", Phase.BODY, "after 3 of 1,000 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef", Phase.BODY, "longer than its content-length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc" + OK, Phase.BODY, "longer than its content-length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", Phase.BODY, "closed in the midst of the answer, after 3 bytes"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n", Phase.BODY, "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n", Phase.BODY, "longer than 1,048,576 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2_000_000, Phase.BODY, "longer than 1,048,576 bytes"),
    ],
    ids=range(17),
)  # fmt: skip
async def test_an_answer_that_is_not_what_it_says_is_an_error(
    provider: Any, said: bytes, phase: Phase, words: str
) -> None:
    async with provider(says(said, close=True)) as on:
        with pytest.raises(UpstreamError, match=words) as caught:
            await on.whole()
        assert caught.value.phase is phase


async def test_what_came_before_a_fault_is_given_before_it_is_told(provider: Any) -> None:
    said = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n"
    async with provider(says(said)) as on:
        reply = await on.upstream.open(on.request())
        assert await reply.chunk(20.0) == b"abc"
        for _ in range(2):
            with pytest.raises(UpstreamError):
                await reply.chunk(20.0)
        await reply.close()


async def test_an_answer_that_nobody_reads_waits_at_the_provider(provider: Any, until: Any) -> None:
    said = 0

    async def talk(on: Talk) -> None:
        nonlocal said
        await on.read()
        await on.say(b"HTTP/1.1 200 OK\r\nContent-Length: 65536000\r\n\r\n")
        for _ in range(1_000):
            await on.say(b"x" * 65_536)
            said += 1

    async with provider(talk) as on:
        reply = await on.upstream.open(on.request())
        await until(lambda: said > 0)
        calm = 0
        while calm < 20:
            before = said
            await asyncio.sleep(0.02)
            calm = calm + 1 if said == before else 0
        assert said < 400, "kernels keep some megabytes; the rest is not read"
        got = len(await reply.chunk(20.0) or b"")
        assert got <= AHEAD_BYTES + 262_144
        while piece := await reply.chunk(10.0):
            got += len(piece)
        assert got == 65_536_000
        await reply.close()
        assert on.upstream.resting == 1


async def test_the_time_for_the_whole_call_ends_it_in_any_phase(provider: Any) -> None:
    async def talk(on: Talk) -> None:
        await on.read()
        if on.number:
            await on.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                await on.say(b"1\r\nx\r\n")
                await asyncio.sleep(0.01)
        await on.reader.read()

    async with provider(talk) as on:
        with pytest.raises(UpstreamError) as caught:
            await on.whole(total_s=0.2)
        assert caught.value.phase is Phase.TOTAL
        reply = await on.upstream.open(on.request(total_s=0.8))
        with pytest.raises(UpstreamError) as caught:  # noqa: PT012
            while True:
                await reply.chunk(60.0)
        assert caught.value.phase is Phase.TOTAL
        await reply.close()


async def test_a_wait_that_is_shorter_than_the_one_before_ends_in_its_own_time(
    provider: Any,
) -> None:
    async def talk(on: Talk) -> None:
        await on.read()
        await on.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await on.reader.read()

    async with provider(talk) as on:
        reply = await on.upstream.open(on.request(head_s=60.0))
        assert await reply.chunk(60.0) == b"x"
        async with asyncio.timeout(30):
            for within_s in (0.05, 0.1):
                with pytest.raises(UpstreamError, match=f"nothing came for {within_s:g} s"):
                    await reply.chunk(within_s)
        await reply.close()


async def test_the_second_address_of_a_name_is_tried(provider: Any) -> None:
    # localhost is ::1 as well, where nobody listens
    async with provider(says(OK)) as on:
        assert await on.whole(url=f"http://localhost:{on.port}/") == b"ok"


@pytest.mark.parametrize(
    "url",
    ["ftp://x/", "http:///v1", "http://u:secret@x/", "http://x:y/", "http://x/a b?key=secret", "http://[::1/"],
)  # fmt: skip
async def test_an_address_that_cannot_be_is_told_without_its_keys(provider: Any, url: str) -> None:
    async with provider(says(OK)) as on:
        with pytest.raises(UpstreamError, match="base_url is not usable") as caught:
            await on.whole(url=url)
        assert caught.value.phase is Phase.CONNECT
        assert "secret" not in str(caught.value)
