"""Providers over HTTP, by pyreqwest."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Final

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import ConnectError, ConnectTimeoutError, PyreqwestError
from pyreqwest.request import StreamRequest
from pyreqwest.response import Response, ResponseBodyReader

from midwatch.gateway.upstream.port import Headers, Late, Phase, Request, UpstreamError

IDLE_S: Final = 50.0
"""Connections that nobody uses are kept this long: below the minute after which load balancers drop them."""

IDLE_CONNECTIONS: Final = 1_024
"""Of one provider."""

AT_ONCE_BYTES: Final = 65_536
"""A body that says it is no longer than this is read in one step."""

_ADDRESS: Final = re.compile(r"https?://[^\s\")]+")


class WireReply:
    """One answer under way."""

    def __init__(self, request: StreamRequest, response: Response) -> None:
        self.status = response.status
        self.headers: Headers = list(response.headers.items())
        self._request = request
        self._reader: ResponseBodyReader = response.body_reader
        length = response.get_header("content-length")
        self._length = int(length) if length is not None and length.isdigit() else None

    async def chunk(self, within_s: float) -> bytes | None:
        try:
            async with asyncio.timeout(within_s):
                piece = await self._reader.read_chunk()
        except TimeoutError:
            raise UpstreamError(Phase.BETWEEN, f"nothing came for {within_s:g} s") from None
        except PyreqwestError as error:
            raise UpstreamError(Phase.BODY, _reason(error)) from None
        return None if piece is None else bytes(piece)

    async def whole(self, within_s: float, limit_bytes: int) -> bytes:
        if self._length is not None and self._length > limit_bytes:
            raise UpstreamError(Phase.BODY, f"the answer is longer than {limit_bytes:,} bytes")
        try:
            async with asyncio.timeout(within_s):
                if self._length is not None and self._length <= AT_ONCE_BYTES:
                    return bytes(await self._reader.bytes())
                return await self._gather(limit_bytes)
        except TimeoutError:
            raise UpstreamError(
                Phase.TOTAL, f"the answer was not whole within {within_s:g} s"
            ) from None
        except PyreqwestError as error:
            raise UpstreamError(Phase.BODY, _reason(error)) from None

    async def _gather(self, limit_bytes: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while (piece := await self._reader.read_chunk()) is not None:
            size += len(piece)
            if size > limit_bytes:
                raise UpstreamError(Phase.BODY, f"the answer is longer than {limit_bytes:,} bytes")
            pieces.append(bytes(piece))
        return b"".join(pieces)

    async def close(self) -> None:
        await self._request.__aexit__(None, None, None)


class WireUpstream:
    """One client for all providers; connections are pooled by address.

    The connection's own limit is the client's: one client per limit, made when first needed.
    """

    def __init__(self) -> None:
        self._clients: dict[float, Client] = {}
        self._late: set[asyncio.Task[Response]] = set()

    async def open(self, request: Request, late: Late) -> WireReply:
        client = self._clients.get(request.connect_s) or self._make(request.connect_s)
        try:
            builder = client.request(request.method, request.url).headers(list(request.headers))
            if request.body:
                builder = builder.body_bytes(request.body)
            # 0: by default it reads ahead, and the first token waits for the whole answer
            stream = builder.streamed_read_buffer_limit(0).build_streamed()
        except (PyreqwestError, ValueError) as error:
            raise UpstreamError(Phase.CONNECT, f"the request cannot be sent: {error}") from None
        # a task of its own: the library cannot abort a request whose answer has not begun, so that
        # cancelling it would only lose what the answer costs
        opening = asyncio.get_running_loop().create_task(_enter(stream))
        try:
            in_time = await _wait(opening, request.connect_s + request.head_s)
        except asyncio.CancelledError:
            self._let_go_on(opening, stream, request, late)
            raise
        if not in_time:
            self._let_go_on(opening, stream, request, late)
            raise UpstreamError(Phase.HEAD, f"no answer within {request.head_s:g} s")
        try:
            return WireReply(stream, opening.result())
        except (ConnectError, ConnectTimeoutError) as error:
            raise UpstreamError(Phase.CONNECT, _reason(error)) from None
        except PyreqwestError as error:
            raise UpstreamError(Phase.HEAD, _reason(error)) from None

    def _let_go_on(
        self, opening: asyncio.Task[Response], stream: StreamRequest, request: Request, late: Late
    ) -> None:
        self._late.add(opening)
        limit = asyncio.get_running_loop().call_later(request.late_s, opening.cancel)

        def done(task: asyncio.Task[Response]) -> None:
            limit.cancel()
            self._late.discard(task)
            if not task.cancelled() and task.exception() is None:
                late(WireReply(stream, task.result()))

        opening.add_done_callback(done)

    async def close(self) -> None:
        for opening in list(self._late):
            opening.cancel()
        for client in self._clients.values():
            await client.close()

    def _make(self, connect_s: float) -> Client:
        client = self._clients[connect_s] = (
            ClientBuilder()
            .no_proxy()
            .follow_redirects(False)
            .referer(False)
            .gzip(False)
            .brotli(False)
            .zstd(False)
            .deflate(False)
            .connect_timeout(timedelta(seconds=connect_s))
            .pool_idle_timeout(timedelta(seconds=IDLE_S))
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_only()
            .tcp_nodelay(True)
            .build()
        )
        return client


async def _enter(stream: StreamRequest) -> Response:
    return await stream.__aenter__()


async def _wait(task: asyncio.Task[Response], for_s: float) -> bool:
    """Wait for a task without cancelling it; return whether it is done in time."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()

    def wake(_: object = None) -> None:
        if not over.done():
            over.set_result(None)

    task.add_done_callback(wake)
    limit = loop.call_later(for_s, wake)
    try:
        await over
    finally:
        limit.cancel()
        task.remove_done_callback(wake)
    return task.done()


def _reason(error: PyreqwestError) -> str:
    """Return the innermost cause in words, without the address: it may hold a key."""
    details: object = error.args[1] if len(error.args) > 1 else None
    causes: object = details.get("causes") if isinstance(details, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    text = error.message
    if isinstance(causes, list) and causes and isinstance(causes[-1], dict):
        text = str(causes[-1].get("message", text))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    return _ADDRESS.sub("the provider", text)[:200]
