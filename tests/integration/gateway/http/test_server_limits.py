"""Every limit of the gateway's server, reached by a client that means no good or is only slow."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from typing import Any

import pytest

from midwatch.core.errors import SetupError
from midwatch.gateway.http import connection
from midwatch.gateway.http.port import BodyRefused, ClientGone, Incoming, Outgoing
from midwatch.gateway.http.server import bind

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def test_a_head_that_comes_byte_by_byte_is_given_up(serving: Any, until: Any) -> None:
    async with serving(head_s=0.3) as on:
        slow = await on.send(b"GET /")

        async def drip() -> None:
            while True:
                await slow.send(b"x")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        # bytes that keep coming do not move the end
        assert b" 408 " in await slow.rest()
        dripping.cancel()
        silent = await on.connect()
        assert await silent.rest() == b"", "who says nothing is told nothing"
        assert on.lost == {"head_time": 2}


async def test_a_second_head_has_its_own_time(serving: Any) -> None:
    async with serving(head_s=0.3) as on:
        client = await on.send(GET + b"GET /slow")
        assert (await client.answer())[0] == 200
        assert (await client.answer())[0] == 408


async def test_an_unused_connection_is_closed(serving: Any) -> None:
    async with serving(idle_s=0.2) as on:
        client = await on.send(GET)
        assert (await client.answer())[0] == 200
        assert await client.rest() == b""
        assert on.lost == {}


@pytest.mark.parametrize(
    "flood",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 200,
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 1_000) for n in range(100)),
    ],
    ids=["many", "long header", "long path", "long together"],
)  # fmt: skip
async def test_a_flood_of_headers_is_refused_before_its_end(serving: Any, flood: bytes) -> None:
    async with serving() as on:
        client = await on.send(flood)
        # an endless line is noticed with the piece after the first
        await client.send(b"x" * 400_000)
        status, headers, body = await client.answer()
        assert (status, headers["connection"]) == (431, "close")
        assert json.loads(body)["error"]["code"] == "head_size"
        assert on.lost == {"head_size": 1}


async def test_a_body_that_is_too_long_is_told_by_the_handler_and_still_seen(serving: Any) -> None:
    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        try:
            await incoming.body(100_000)
        except BodyRefused as refused:
            outgoing.answer(refused.status, [], f"{refused.reason}: {refused}".encode())

    async with serving(handler) as on:
        told = b"too_long: the body is longer than 100,000 bytes"
        client = await on.send(HEAD + b"Content-Length: 50000000\r\n\r\n")
        assert (await client.answer())[::2] == (413, told)
        client = await on.connect()
        # the whole of it is on its way when it is refused: a reset would take the answer with it
        sending = asyncio.create_task(client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"80000\r\n" + b"x" * 0x80000))  # fmt: skip
        status, headers, body = await client.answer()
        assert (status, headers["connection"], body) == (413, "close", told)
        await asyncio.wait([sending])
        sending.exception()
        assert on.lost == {"body_size": 2}
        assert on.server.held_bytes < 600_000


async def test_a_body_that_stops_is_given_up(serving: Any) -> None:
    async with serving(body_gap_s=0.2) as on:
        client = await on.send(HEAD + b"Content-Length: 10\r\n\r\nabc")
        status, _, body = await client.answer()
        assert (status, json.loads(body)["error"]["code"]) == (408, "too_slow")
        assert on.lost == {"body_time": 1}


async def test_a_body_that_drips_is_given_up(serving: Any) -> None:
    async with serving(body_gap_s=0.5, body_bytes_per_s=1_000_000) as on:
        client = await on.send(HEAD + b"Content-Length: 1000\r\n\r\n")

        async def drip() -> None:
            for _ in range(999):
                await client.send(b"x")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        assert (await client.answer())[0] == 408
        dripping.cancel()


async def test_all_bodies_together_are_bounded(serving: Any, until: Any) -> None:
    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        await incoming.body(1_000_000)
        outgoing.answer(200, [], b"")

    async with serving(handler, bodies_bytes=150_000) as on:
        first = await on.send(HEAD + b"Content-Length: 100001\r\n\r\n" + b"x" * 100_000)
        await until(lambda: on.server.held_bytes == 100_000)
        second = await on.send(HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000)
        assert (await second.answer())[0] == 503
        await first.send(b"x")
        assert (await first.answer())[0] == 200
        await until(lambda: on.server.held_bytes == 0)
        third = await on.send(HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000)
        assert (await third.answer())[0] == 200
        assert on.lost["bodies"] >= 1


async def test_bodies_count_until_their_handler_ends_or_will_never_begin(
    serving: Any, until: Any
) -> None:
    go_on = asyncio.Event()

    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        await incoming.body(1_000)
        incoming.hold(7)
        outgoing.begin(200, [])
        outgoing.abort()
        await go_on.wait()

    one = HEAD + b"Content-Length: 100\r\n\r\n" + b"x" * 100
    async with serving(handler) as on:
        await on.send(one * 3)
        await until(lambda: on.lost == {"aborted": 1})
        assert on.server.held_bytes == 107, "the handler still has its own"
        go_on.set()
        await until(lambda: on.server.held_bytes == 0)


async def test_what_a_body_was_unpacked_to_is_bounded_with_all_others(serving: Any) -> None:
    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        incoming.hold(len(await incoming.body(1_000)) * 10)
        outgoing.answer(200, [], b"")

    async with serving(handler, bodies_bytes=1_000) as on:
        large = await on.send(HEAD + b"Content-Length: 100\r\n\r\n" + b"x" * 100)
        assert (await large.answer())[0] == 503
        small = await on.send(HEAD + b"Content-Length: 50\r\n\r\n" + b"x" * 50)
        assert (await small.answer())[0] == 200
        assert on.lost == {"bodies": 1}


async def test_a_body_waits_at_the_client_until_it_is_asked_for(serving: Any, until: Any) -> None:
    asked = asyncio.Event()

    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        await asked.wait()
        outgoing.answer(200, [], b"%d" % len(await incoming.body(20_000_000)))

    async with serving(handler) as on:
        client = await on.connect()
        sending = asyncio.create_task(client.send(HEAD + b"Content-Length: 20000000\r\n\r\n" + b"x" * 20_000_000))  # fmt: skip
        await until(lambda: on.server.held_bytes > 0)
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert on.server.held_bytes <= 65_536 + 262_144, "one read above what is read ahead"
        asked.set()
        assert (await client.answer())[2] == b"20000000"
        await sending


async def test_a_connection_goes_on_after_a_body_that_was_read_ahead_of_its_handler(
    serving: Any,
) -> None:
    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        await asyncio.sleep(0.02)  # meanwhile more comes than is read ahead
        outgoing.answer(200, [], b"%d" % len(await incoming.body(1_000_000)))

    async with serving(handler) as on:
        client = await on.connect()
        for size in (65_000, 66_000, 200_000, 70_000):
            await client.send(HEAD + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)
            assert (await client.answer())[2] == b"%d" % size


def held() -> tuple[asyncio.Event, Any]:
    """Return what lets requests go on, and a handler that waits for it."""
    go_on = asyncio.Event()

    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        await go_on.wait()
        outgoing.answer(200, [], b"")

    return go_on, handler


async def test_a_connection_too_many_is_told_so(serving: Any, until: Any) -> None:
    go_on, handler = held()
    async with serving(handler, connections=2) as on:
        served = [await on.send(GET) for _ in range(2)]
        await until(lambda: on.server.under_way == 2)
        third = await on.connect()
        status, headers, _ = await third.answer()
        assert (status, headers["connection"]) == (503, "close")
        assert on.lost == {"connections": 1}
        go_on.set()
        for client in served:
            assert (await client.answer())[0] == 200


async def test_a_flood_of_connections_is_not_even_told(
    serving: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SPARE", 0)
    go_on, handler = held()
    async with serving(handler, connections=1) as on:
        await on.send(GET)
        await until(lambda: on.server.under_way == 1)
        second = await on.connect()
        with pytest.raises(ConnectionResetError):
            await second.rest()
        assert on.lost == {"connections": 1}
        go_on.set()


BEGUN = b"POST / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
NO_BODY = HEAD + b"Content-Length: 100\r\n\r\nx"


@pytest.mark.parametrize("holding", [b"", BEGUN, NO_BODY, GET])
async def test_nobody_keeps_others_out_by_holding_connections(
    serving: Any, until: Any, holding: bytes
) -> None:
    async with serving(connections=8) as on:
        for _ in range(8):
            await on.send(holding)
        wanted = 8 if holding in (GET, NO_BODY) else 0
        await until(lambda: (on.server.connections, on.server.requests) == (8, wanted))
        for number in range(1, 12):
            assert (await (await on.send(GET)).answer())[0] == 200
            assert on.lost["crowded_out"] == number


async def test_the_slowest_heads_make_room_before_connections_that_rest(
    serving: Any, until: Any
) -> None:
    async with serving(connections=8) as on:
        honest = [await on.send(GET) for _ in range(4)]
        for client in honest:
            assert (await client.answer())[0] == 200
        for _ in range(4):
            await on.send(BEGUN)
        await until(lambda: on.server.connections == 8)
        for _ in range(4):
            assert (await (await on.send(GET)).answer())[0] == 200
        for client in honest:
            await client.send(GET)
            assert (await client.answer())[0] == 200


async def test_who_leaves_without_reading_its_answer_is_let_go(serving: Any, until: Any) -> None:
    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        outgoing.answer(200, [], b"x" * 20_000_000)

    async with serving(handler, linger_s=0.2, stall_s=0.3) as on:
        client = await on.connect(limit=1_000)
        client.writer.transport.pause_reading()
        await client.send(GET)
        await until(lambda: on.server.requests == 1)
        client.writer.write_eof()
        await until(lambda: on.server.connections == 0)


async def test_too_many_requests_sent_ahead_end_the_connection_after_those_taken(
    serving: Any,
) -> None:
    async with serving(pipelined=4) as on:
        client = await on.send(GET * 50)
        answers = (await client.rest()).count(b"HTTP/1.1 200")
        assert answers == 5, "one with the handler, four waiting"
        assert on.lost == {"pipelined": 1}


async def test_requests_sent_ahead_within_bounds_are_all_answered(serving: Any) -> None:
    async with serving() as on:
        client = await on.connect()
        for _ in range(60):
            await client.send(GET)  # each its own packet, never read in between
        for _ in range(60):
            assert (await client.answer())[0] == 200


def _stuck_reader(port: int, path: bytes, read: threading.Event, got: list[int]) -> None:
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        raw.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        read.wait(30)
        try:
            while data := raw.recv(1 << 20):
                got.append(len(data))
        except OSError:
            got.append(-1)


async def test_a_client_that_does_not_read_holds_back_the_handler_not_the_memory(
    serving: Any, until: Any
) -> None:
    sent = 0

    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        nonlocal sent
        outgoing.begin(200, [])
        for _ in range(1_000):
            await outgoing.send(b"x" * 65_536)
            sent += 1
        outgoing.end()

    async with serving(handler) as on:
        read, got = threading.Event(), list[int]()
        client = threading.Thread(target=_stuck_reader, args=(on.server.port, b"/", read, got))
        client.start()
        try:
            await until(lambda: sent > 0)
            calm = 0
            while calm < 20:
                before = sent
                await asyncio.sleep(0.02)
                calm = calm + 1 if sent == before else 0
            assert sent < 400, "kernels keep some megabytes; the rest is not sent"
            waiting = max(c._transport.get_write_buffer_size() for c in on.server._service.connections)  # fmt: skip
            assert waiting <= 65_536 + 65_536 + 20
        finally:
            read.set()
        await until(lambda: sent == 1_000)
        await asyncio.to_thread(client.join, 10)
        assert sum(got) > 65_536_000, "and when it reads, all comes"
        assert on.lost == {}


@pytest.mark.parametrize("path", [b"/pieces", b"/whole"])
async def test_a_client_that_never_reads_is_let_go(serving: Any, until: Any, path: bytes) -> None:
    ended: list[str] = []

    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        if incoming.path == "/whole":
            outgoing.answer(200, [], b"x" * 20_000_000)
            ended.append("answered")
            return
        outgoing.begin(200, [])
        try:
            while True:
                await outgoing.send(b"x" * 65_536)
        except ClientGone:
            ended.append("gone")

    async with serving(handler, stall_s=0.3) as on:
        read, got = threading.Event(), list[int]()
        client = threading.Thread(target=_stuck_reader, args=(on.server.port, path, read, got))
        client.start()
        try:
            await until(lambda: on.lost == {"stalled": 1})
            await until(lambda: on.server.connections == 0)
            assert ended == ["gone" if path == b"/pieces" else "answered"]
        finally:
            read.set()
            await asyncio.to_thread(client.join, 10)
        assert got[-1:] == [-1], "reset, so that nobody takes it for whole"


async def test_a_slow_reader_that_reads_is_served_to_its_end(serving: Any) -> None:
    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        outgoing.answer(200, [], b"x" * 8_000_000)

    async with serving(handler, stall_s=1.0) as on:
        client = await on.connect(limit=65_536)
        await client.send(GET)
        _, headers = await client.head()
        left = int(headers["content-length"])
        while left:
            left -= len(await client.reader.readexactly(min(left, 200_000)))
            await asyncio.sleep(0.06)  # 2.4 s in all: twice what a stalled one gets
        assert on.lost == {}


def test_a_port_in_use_is_told_in_words() -> None:
    with bind("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
        with pytest.raises(SetupError, match=r"is in use; .* gateway\.listen"):
            bind("127.0.0.1", port)
