"""OTLP over gRPC: the same intake behind grpcio, which is imported with this module and by nobody else.

An export is one request and one answer, but it is served as a stream of requests: so the token is looked at, and
whether there is room, before the message is taken from the wire. Overload is UNAVAILABLE with RetryInfo, which every
exporter repeats; RESOURCE_EXHAUSTED is for what is too large and must not come again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NoReturn

import grpc
from grpc import aio

from midwatch.core.errors import SetupError
from midwatch.core.spans.form import Signal
from midwatch.ingest.bodies import READ_TIMEOUT_S
from midwatch.ingest.otlp import answers
from midwatch.ingest.otlp.intake import OtlpIntake
from midwatch.ingest.otlp.owners import Sender
from midwatch.wire.limits import MAX_BODY_BYTES
from midwatch.wire.problem import Refusal

SERVICES: Final = {
    "opentelemetry.proto.collector.trace.v1.TraceService": Signal.SPANS,
    "opentelemetry.proto.collector.metrics.v1.MetricsService": Signal.POINTS,
    "opentelemetry.proto.collector.logs.v1.LogsService": Signal.LOGS,
}

MAX_UNDER_WAY: Final = 64
"""Exports at one time: what is read of them is in memory, MAX_BODY_BYTES each at most."""

MAX_STREAMS: Final = 32
"""Exports at one time of one connection; further ones wait at the sender."""

STOP_S: Final = 1.5
"""Exports under way get this long when the hub stops."""

Enter = Callable[[str | None], Awaitable[Sender]]
"""From an `authorization` to who sends. Raises Refusal."""

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}

log = logging.getLogger(__name__)


class OtlpRpc:
    """A gRPC server for the three services of OTLP."""

    def __init__(self, intake: OtlpIntake, enter: Enter) -> None:
        self._intake = intake
        self._enter = enter
        self._under_way = 0
        self._server: aio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen and return the port. Raises SetupError when it cannot."""
        server = aio.server(
            options=[
                ("grpc.max_receive_message_length", MAX_BODY_BYTES),
                ("grpc.max_concurrent_streams", MAX_STREAMS),
                ("grpc.max_metadata_size", 16_384),
                # two hubs must never share a port
                ("grpc.so_reuseport", 0),
            ]
        )
        server.add_generic_rpc_handlers(
            tuple(
                grpc.method_handlers_generic_handler(
                    service, {"Export": grpc.stream_unary_rpc_method_handler(self._export(signal))}
                )
                for service, signal in SERVICES.items()
            )
        )
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound = server.add_insecure_port(address)
        except RuntimeError:
            bound = 0
        if not bound:
            raise SetupError(
                f"{address} cannot be used for OTLP over gRPC: it is in use, or no address of this machine; "
                "choose another with hub.otlp_grpc"
            )
        await server.start()
        self._server = server
        return bound

    async def stop(self) -> None:
        """Take no more exports; end what is left after STOP_S."""
        if self._server is not None:
            await self._server.stop(STOP_S)

    def _export(self, signal: Signal) -> Any:
        async def export(
            requests: AsyncIterator[bytes], context: aio.ServicerContext[bytes, bytes]
        ) -> bytes:
            try:
                return await self._take(signal, requests, context)
            except Refusal as refusal:
                self._intake.counts.add("refused_requests", refusal.reason)
                return await _abort(context, refusal)
            except Exception:  # the top of every export: a fault is answered, counted, logged
                self._intake.counts.add("server_errors", "otlp")
                log.exception("an export of %s failed", signal.value)
            fault = Refusal(500, "a fault of the hub; its log has more", reason="fault")
            return await _abort(context, fault)

        return export

    async def _take(
        self,
        signal: Signal,
        requests: AsyncIterator[bytes],
        context: aio.ServicerContext[bytes, bytes],
    ) -> bytes:
        sender = await self._enter(_authorization(context))
        if self._under_way >= MAX_UNDER_WAY:
            raise Refusal(
                503,
                f"{MAX_UNDER_WAY} exports are under way; send it again in a second",
                reason="busy",
                headers={"retry-after": "1"},
            )
        self._under_way += 1
        try:
            body = await _first(requests)
            rejected, message = await self._intake.take(signal, body, sender, as_json=False)
            return answers.success(signal, rejected, message, as_json=False)
        finally:
            self._under_way -= 1


async def _first(requests: AsyncIterator[bytes]) -> bytes:
    """Return the one request of an export. Raises Refusal 400, 408: who sends none must not keep its place."""
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            async for body in requests:
                return body
    except TimeoutError:
        raise Refusal(
            408, f"the request did not arrive within {READ_TIMEOUT_S:g} s", reason="slow"
        ) from None
    raise Refusal(400, "an export without a request", reason="protobuf")


async def _abort(context: aio.ServicerContext[bytes, bytes], refusal: Refusal) -> NoReturn:
    await context.abort(
        _CODES[answers.code(refusal.status)],
        refusal.detail[: answers.MAX_MESSAGE],
        (("grpc-status-details-bin", answers.error(refusal, as_json=False)),),
    )
    raise AssertionError("abort raises")


def _authorization(context: aio.ServicerContext[bytes, bytes]) -> str | None:
    metadata: Any = context.invocation_metadata() or ()
    for key, value in metadata:
        if key == "authorization":
            return value if isinstance(value, str) else None
    return None
