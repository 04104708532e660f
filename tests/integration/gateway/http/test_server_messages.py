"""What the gateway's server makes of a client's bytes, and the bytes that it answers with."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from midwatch.gateway.http.port import BodyRefused, ClientGone, Incoming, Outgoing

HOST = b"Host: localhost\r\n"


async def test_a_request_arrives_as_it_was_sent(serving: Any) -> None:
    asked: list[Incoming] = []

    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        asked.append(incoming)
        assert await incoming.body(100) == b"\x00\xff{}"
        assert await incoming.body(100) == b"\x00\xff{}"
        outgoing.answer(200, [], b"")

    async with serving(handler) as on:
        client = await on.send(
            b"POST /v1/models/a%2Fb:generate?x=1&y=%20? HTTP/1.1\r\n" + HOST + b"X-Twice: 1\r\n"
            b"x-TWICE: caf\xe9  \r\nContent-Length: 4\r\n\r\n\x00\xff{}"
        )
        assert (await client.answer())[0] == 200
    one = asked[0]
    assert (one.method, one.path, one.query) == ("POST", "/v1/models/a%2Fb:generate", "x=1&y=%20?")
    assert list(one.headers) == [("host", "localhost"), ("x-twice", "1"), ("x-twice", "café"), ("content-length", "4")]  # fmt: skip
    assert one.header("x-twice") == "1"
    assert one.header("y") is None
    assert one.client == "127.0.0.1"


async def test_an_answer_is_written_with_its_length_and_without_what_is_ours(serving: Any) -> None:
    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        headers = [("content-type", "a/b"), ("connection", "x"), ("content-length", "99"), ("transfer-encoding", "chunked"), ("x-mine", "line\r\nset-cookie: evil"), ("set-cookie", "a"), ("set-cookie", "b")]  # fmt: skip
        outgoing.answer(201, headers, b"body")

    async with serving(handler) as on:
        client = await on.send(b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")
    assert body == b"body"
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 201 Created"
    assert [line for line in lines[1:] if not line.startswith("date: ")] == [
        "content-type: a/b",
        "x-mine: line  set-cookie: evil",
        "set-cookie: a",
        "set-cookie: b",
        "content-length: 4",
        "connection: close",
    ]


async def test_requests_sent_ahead_are_answered_in_their_order(serving: Any) -> None:
    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        body = await incoming.body(100)
        # the first takes longest: were they served side by side, it would come last
        await asyncio.sleep(0.05 if incoming.path == "/0" else 0)
        outgoing.answer(200, [], incoming.path.encode() + body)

    async with serving(handler) as on:
        one = b"POST /%d HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\n%d"
        client = await on.send(b"".join(one % (n, n) for n in range(8)))
        assert [(await client.answer())[2] for _ in range(8)] == [b"/%d%d" % (n, n) for n in range(8)]  # fmt: skip
        assert (on.server.requests, on.lost) == (8, {})


async def test_a_chunked_body_with_extensions_and_trailers_is_read(serving: Any) -> None:
    async with serving() as on:
        client = await on.send(
            b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for piece in (b"3;a=b\r\nab", b"c\r\n", b"1\r\nd\r\n0\r\nX-T: 1\r\n", b"\r\n"):
            await client.send(piece)
        assert (await client.answer())[2] == b"POST /  4"
        await client.send(b"GET /again HTTP/1.1\r\n" + HOST + b"\r\n")
        assert (await client.answer())[2] == b"GET /again  0"


async def test_a_client_that_asks_first_is_told_to_go_on(serving: Any) -> None:
    async with serving() as on:
        head = b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        client = await on.send(head % 3)
        assert await client.head() == (100, {})
        await client.send(b"abc")
        assert (await client.answer())[2] == b"POST /  3"
        client = await on.send(head % 5_000)
        assert (await client.answer())[0] == 413, "refused before it was sent"


async def test_head_has_the_headers_and_no_body(serving: Any) -> None:
    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        if incoming.path == "/whole":
            outgoing.answer(200, [], b"body")
        else:
            outgoing.begin(200, [])
            await outgoing.send(b"body")
            outgoing.end()

    async with serving(handler) as on:
        client = await on.send(b"HEAD /whole HTTP/1.1\r\n" + HOST + b"\r\n")
        assert (await client.head())[1]["content-length"] == "4"
        await client.send(b"HEAD /pieces HTTP/1.1\r\n" + HOST + b"\r\nGET /whole HTTP/1.1\r\n" + HOST + b"\r\n")  # fmt: skip
        assert (await client.head())[0] == 200
        assert (await client.answer())[2] == b"body"


async def test_a_client_of_http_1_0_is_served_to_the_end_of_the_connection(serving: Any) -> None:
    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        outgoing.begin(200, [])
        await outgoing.send(b"one")
        await outgoing.send(b"two")
        outgoing.end()

    async with serving(handler) as on:
        client = await on.send(
            b"GET / HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n"
        )
        _, headers = await client.head()
        assert "transfer-encoding" not in headers
        assert headers["connection"] == "close"
        assert await client.rest() == b"onetwo"
    async with serving() as on:
        client = await on.send(
            b"GET /a HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n"
        )
        assert (await client.answer())[1]["connection"] == "keep-alive"
        await client.send(b"GET /b HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert (await client.answer())[2] == b"GET /b  0"
        assert await client.rest() == b""


async def test_an_offer_of_http_2_is_ignored_and_the_body_still_read(serving: Any) -> None:
    offer = (
        HOST
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    )
    async with serving() as on:
        client = await on.connect()
        for body in (b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"):  # fmt: skip
            await client.send(b"POST /up HTTP/1.1\r\n" + offer + body)
            assert (await client.answer())[2] == b"POST /up  3"
        await client.send(b"GET /up HTTP/1.1\r\n" + offer + b"\r\n")
        assert (await client.answer())[2] == b"GET /up  0"


@pytest.mark.parametrize(
    ("request_line", "headers"),
    [
        (b"POST / HTTP/1.1", b"Host: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked"),
        (b"POST / HTTP/1.1", b"Host: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked"),
        (b"POST / HTTP/1.1", b"Host: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 3"),
        (b"POST / HTTP/1.1", b"Host: localhost\r\nContent-Length: 3\r\nContent-Length: 4"),
        (b"POST / HTTP/1.1", b"Host: localhost\r\nContent-Length: +3"),
        (b"POST / HTTP/1.1", b"Host: localhost\r\nContent-Length: 3, 3"),
        (b"POST / HTTP/1.1", b"Host: localhost\r\nContent-Length: 0x3"),
        (b"POST / HTTP/1.1", b"Host: localhost\r\nContent-Length: 99999999999999999999"),
        (b"POST / HTTP/1.1", b"Host: localhost\r\nContent-Length : 3"),
        (b"POST / HTTP/1.1", b"Host: localhost\r\nTransfer-Encoding: gzip, chunked"),
        (b"POST / HTTP/1.1", b"Host: localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        (b"POST / HTTP/1.1", b"Host: localhost\r\nTransfer-Encoding: xchunked"),
        (b"POST / HTTP/1.0", b"Host: localhost\r\nTransfer-Encoding: chunked"),
        (b"GET / HTTP/1.1", b"Host: localhost\r\nX: folded\r\n over"),
        (b"GET / HTTP/1.1", b"Host: localhost\r\nX: nul\0"),
        (b"GET / HTTP/1.1", b"Host: localhost\nX: bare line feed"),
        (b"GET / HTTP/1.1", b"Host: localhost\r\nHost: localhost"),
        (b"GET / HTTP/1.1", b"X: no host"),
        (b"GET / HTTP/2.0", b"Host: localhost"),
        (b"GET / HTTP/1.7", b"Host: localhost"),
        (b"CONNECT localhost:1 HTTP/1.1", b"Host: localhost"),
        (b"get / HTTP/1.1", b"Host: localhost"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b""),
    ],
)  # fmt: skip
async def test_what_could_be_read_in_two_ways_is_refused_and_the_connection_closed(
    serving: Any, request_line: bytes, headers: bytes
) -> None:
    seen: list[str] = []

    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        seen.append(incoming.path)
        outgoing.answer(200, [], b"")

    async with serving(handler) as on:
        hidden = b"GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"
        client = await on.send(request_line + b"\r\n" + headers + b"\r\n\r\n" + hidden)
        status, answered, body = await client.answer()
        assert (status, answered["connection"], answered["content-type"]) == (400, "close", "application/json")  # fmt: skip
        assert json.loads(body)["error"]["code"] == "malformed"
        assert await client.rest() == b""
        assert (seen, on.lost) == ([], {"malformed": 1})


async def test_a_bad_request_is_told_after_the_good_ones_before_it(serving: Any) -> None:
    async with serving() as on:
        good = b"GET /good HTTP/1.1\r\n" + HOST + b"\r\n"
        client = await on.send(good + good + b"GET / HTTP/1.1\r\nX Y: z\r\n\r\n")
        assert [(await client.answer())[0] for _ in range(3)] == [200, 200, 400]
        assert await client.rest() == b""


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"0x3\r\nabc\r\n", b"3 \r\nabc\r\n", b"3\r\nabcX\r\n", b"fffffffffffffffff\r\n"])  # fmt: skip
async def test_a_bad_chunk_is_told_by_the_handler(serving: Any, chunk: bytes) -> None:
    told: list[BodyRefused] = []

    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        try:
            await incoming.body(100)
        except BodyRefused as refused:
            told.append(refused)
            outgoing.answer(refused.status, [], b"in the dialect")

    async with serving(handler) as on:
        client = await on.send(b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)  # fmt: skip
        status, headers, body = await client.answer()
        assert (status, headers["connection"], body) == (400, "close", b"in the dialect")
        assert await client.rest() == b""
        assert [one.reason for one in told] == ["malformed"]
        assert on.lost == {"malformed": 1}


@pytest.mark.parametrize("host", [b"evil.example", b"localhost.evil.example", b"127.0.0.1@evil.example", b"", b"localhost:x"])  # fmt: skip
async def test_another_hosts_name_is_not_answered(serving: Any, host: bytes) -> None:
    async with serving() as on:
        client = await on.send(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        assert (await client.answer())[0] == 421
        assert on.lost == {"host": 1}
        client = await on.send(b"GET http://" + (host or b"x.y") + b"/ HTTP/1.1\r\nHost: localhost\r\n\r\n")  # fmt: skip
        assert (await client.answer())[0] in (400, 421), (
            "an absolute target is the host that counts"
        )


@pytest.mark.parametrize("host", [b"localhost:8701", b"127.0.0.1", b"[::1]:80", b"LOCALHOST", b"127.8.8.8"])  # fmt: skip
async def test_this_machines_names_are_answered(serving: Any, host: bytes) -> None:
    async with serving() as on:
        for _ in range(2):
            client = await on.send(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
            assert (await client.answer())[0] == 200


async def test_a_handler_that_fails_is_answered_for_and_counted(serving: Any, caplog: Any) -> None:
    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        if incoming.path == "/raises":
            raise ValueError("secret detail")
        if incoming.path == "/gone":
            raise ClientGone

    async with serving(handler) as on:
        client = await on.connect()
        for path in (b"/raises", b"/nothing", b"/gone"):
            await client.send(b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n")
            status, _, body = await client.answer()
            assert (status, b"secret" in body) == (500, False)
        assert on.lost == {"failed": 1}
    assert "secret detail" in caplog.text
