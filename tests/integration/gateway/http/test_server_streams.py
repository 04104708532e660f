"""Answers in pieces: they end well or are seen to be broken, and a client that leaves is noticed."""

from __future__ import annotations

import asyncio
import http.client
from typing import Any

import openai
import pytest

from midwatch.gateway.http.port import ClientGone, Incoming, Outgoing
from midwatch.gateway.http.server import bind, serve

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
SSE = [("content-type", "text/event-stream")]
EVENT = b'data: {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": null}]}\n\n'  # fmt: skip


async def test_pieces_come_as_they_are_sent(serving: Any) -> None:
    go = asyncio.Event()

    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        outgoing.begin(200, SSE)
        await outgoing.send(b"one")
        await go.wait()
        await outgoing.send(b"")  # nothing: in chunks it would be the end
        await outgoing.send(b"two")
        assert outgoing.begun
        outgoing.end()

    async with serving(handler) as on:
        client = await on.send(GET)
        status, headers = await client.head()
        assert (status, headers["transfer-encoding"], headers["content-type"]) == (200, "chunked", "text/event-stream")  # fmt: skip
        assert await client.reader.readexactly(8) == b"3\r\none\r\n"
        go.set()
        assert await client.reader.readexactly(13) == b"3\r\ntwo\r\n0\r\n\r\n"
        await client.send(GET)
        assert (await client.head())[0] == 200


async def test_the_head_does_not_wait_for_the_first_piece(serving: Any) -> None:
    go = asyncio.Event()

    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        outgoing.begin(200, SSE)
        await go.wait()
        outgoing.end()

    async with serving(handler) as on:
        client = await on.send(GET)
        assert (await client.head())[0] == 200
        go.set()
        assert await client.reader.readexactly(5) == b"0\r\n\r\n"


@pytest.mark.parametrize("how", ["abort", "raise", "return"])
async def test_what_is_not_ended_is_seen_to_be_broken(serving: Any, how: str, caplog: Any) -> None:
    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        outgoing.begin(200, SSE)
        await outgoing.send(b"half")
        if how == "abort":
            outgoing.abort()
            with pytest.raises(ClientGone):
                await outgoing.send(b"more")
            outgoing.end()
        elif how == "raise":
            raise ValueError

    async with serving(handler) as on:
        client = await on.send(GET)
        await client.head()
        assert await client.rest() == b"4\r\nhalf\r\n", "all that was sent, and no last chunk"
        assert on.lost["aborted"] == 1
        client = await on.send(GET.replace(b"1.1", b"1.0"))
        await client.head()
        with pytest.raises(ConnectionResetError):  # without chunks nothing else tells
            await client.rest()


async def test_standard_clients_see_the_broken_answer(serving: Any) -> None:
    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        outgoing.begin(200, SSE)
        await outgoing.send(EVENT)
        outgoing.abort()

    def read() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", on.server.port, timeout=30)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        finally:
            connection.close()

    async with serving(handler) as on:
        with pytest.raises(http.client.IncompleteRead):
            await asyncio.to_thread(read)
        url = f"http://127.0.0.1:{on.server.port}/v1"
        async with openai.AsyncOpenAI(api_key="k", base_url=url, max_retries=0) as client:
            stream = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "?"}], stream=True
            )
            with pytest.raises(openai.APIConnectionError):
                _ = [chunk async for chunk in stream]


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("rude", [False, True])
async def test_a_client_that_leaves_is_noticed_while_the_handler_waits(
    serving: Any, until: Any, begun: bool, rude: bool
) -> None:
    noticed = asyncio.Event()

    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        if begun:
            outgoing.begin(200, SSE)
            await outgoing.send(b"one")
        await asyncio.wait([outgoing.gone])
        noticed.set()
        if begun:
            with pytest.raises(ClientGone):
                await outgoing.send(b"two")
            outgoing.end()
        else:
            outgoing.answer(200, [], b"nobody")
        assert outgoing.gone.done()

    async with serving(handler) as on:
        client = await on.send(GET)
        await until(lambda: on.server.under_way == 1)
        if begun:
            await client.head()
        if rude:
            client.writer.transport.abort()
        else:
            client.writer.close()
        async with asyncio.timeout(30):
            await noticed.wait()
        await until(lambda: on.server.under_way == 0)
        assert on.lost == {"left": 1}


async def test_a_client_that_leaves_within_its_body_is_told_to_who_reads_it(
    serving: Any, until: Any
) -> None:
    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        with pytest.raises(ClientGone):
            await incoming.body(1_000)
        seen.set()

    seen = asyncio.Event()
    async with serving(handler) as on:
        client = await on.send(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf"
        )
        await until(lambda: on.server.under_way == 1)
        await client.close()
        async with asyncio.timeout(30):
            await seen.wait()


async def test_who_waits_for_room_is_told_that_the_client_left(serving: Any, until: Any) -> None:
    seen = asyncio.Event()

    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        outgoing.begin(200, SSE)
        with pytest.raises(ClientGone):  # noqa: PT012
            while True:
                await outgoing.send(b"x" * 65_536)
        seen.set()

    async with serving(handler) as on:
        client = await on.send(GET)
        await client.head()
        client.writer.transport.abort()
        async with asyncio.timeout(30):
            await seen.wait()


async def test_a_stop_lets_calls_end_and_breaks_off_the_others(until: Any, serving: Any) -> None:
    go, stuck = asyncio.Event(), asyncio.Event()
    cancelled: list[str] = []

    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        outgoing.begin(200, SSE)
        await outgoing.send(b"one")
        try:
            await (go if incoming.path == "/short" else stuck).wait()
        except asyncio.CancelledError:
            cancelled.append(incoming.path)
            raise
        await outgoing.send(b"two")
        outgoing.end()

    server = await serve(handler, bind("127.0.0.1", 0))
    raws = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
    for (_, writer), path in zip(raws, (b"/short", b"/long"), strict=False):
        writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await until(lambda: server.under_way == 2)
    port = server.port
    stopping = asyncio.create_task(server.stop(2.5))
    async with asyncio.timeout(30):
        assert await raws[2][0].read() == b"", "an unused connection is closed at once"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        go.set()
        short = await raws[0][0].read()
        assert short.endswith(b"3\r\ntwo\r\n0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await raws[1][0].read()
        await stopping
    assert (cancelled, server.lost["stopped"], server.under_way, server.connections) == (["/long"], 1, 0, 0)  # fmt: skip
    for _, writer in raws:
        writer.close()


async def test_answering_twice_is_a_fault_of_the_handler(serving: Any) -> None:
    async def handler(incoming: Incoming, outgoing: Outgoing) -> None:
        with pytest.raises(RuntimeError):
            await outgoing.send(b"before the head")
        outgoing.answer(200, [], b"")
        for wrong in (outgoing.end, lambda: outgoing.begin(200, []), lambda: outgoing.answer(200, [], b"")):  # fmt: skip
            with pytest.raises(RuntimeError):
                wrong()
        outgoing.abort()  # silent: the answer has ended

    async with serving(handler) as on:
        client = await on.send(GET)
        assert (await client.answer())[0] == 200
        assert on.lost == {}
