"""OTLP over real sockets: the official exporters, both transports, tokens, overload, fairness."""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
    OTLPSpanExporter as GrpcSpanExporter,
)
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from tests.edges import Edge, body, many, span

from midwatch.core.access import Caller, Scope
from midwatch.core.errors import SetupError
from midwatch.core.spans import form
from midwatch.core.spans.form import LOGS, POINTS, Batch, Signal
from midwatch.core.spans.shares import Shares
from midwatch.core.spans.store import Kept
from midwatch.hub.listeners import Listeners
from midwatch.ingest.admission import Admission
from midwatch.ingest.otlp import rpc
from midwatch.store.spans.memory import MemorySpans

TOKENS = {
    "write": Caller("writer", frozenset({Scope.WRITE})),
    "read": Caller("reader", frozenset({Scope.READ})),
    "run": Caller("run r1", frozenset({Scope.WRITE}), "inbox", "r1"),
}
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class Served:
    """An edge in memory behind real listeners, told the real time."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.listeners = Listeners(edge.intake, self._by_token)
        self.http = 0
        self.grpc = 0

    async def _by_token(self, token: str) -> Caller | None:
        return TOKENS.get(token)

    async def open(self) -> None:
        self.http = await self.listeners.open_http("127.0.0.1:0")
        self.grpc = await self.listeners.open_grpc("127.0.0.1:0")

    @property
    def names(self) -> list[str]:
        return [row[form.NAME] for row in self.edge.shelf.spans]

    def post(self, raw: bytes, path: str = "/v1/traces", **headers: str) -> tuple[int, bytes, Any]:
        told = {"content-type": "application/x-protobuf"}
        told |= {key.replace("_", "-"): value for key, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=60)
        try:
            connection.request("POST", path, raw, told)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()

    async def export(self, raw: bytes, **metadata: str) -> bytes:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.grpc}") as channel:
            call = channel.unary_unary(EXPORT)
            return await call(raw, timeout=20, metadata=tuple(metadata.items()))


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    made = Served(Edge(clock=time.time))
    await made.open()
    yield made
    await made.listeners.close()


def now_span(n: int = 1, **more: Any) -> Any:
    now_ns = time.time_ns()
    return span(n, start_time_unix_nano=now_ns - 10**9, end_time_unix_nano=now_ns, **more)


def trace(exporter: SpanExporter, service: str = "visitor") -> None:
    """Make one span with the SDK, as any instrumented program does."""
    provider = TracerProvider(resource=Resource({"service.name": service}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("an instrumentation", "3.2").start_as_current_span("outer") as outer:
        outer.set_attribute("gen_ai.request.model", "gpt-4o-mini")
        outer.add_event("said", {"n": 1})
    provider.shutdown()


@pytest.mark.parametrize("compression", list(Compression))
async def test_the_official_exporter_is_understood_over_http(
    served: Served, compression: Compression
) -> None:
    exporter = OTLPSpanExporter(
        f"http://127.0.0.1:{served.http}/v1/traces", compression=compression
    )
    await asyncio.to_thread(trace, exporter)
    (row,) = served.edge.shelf.spans
    assert (row[form.AGENT], row[form.NAME], row[form.MODEL]) == ("visitor", "outer", "gpt-4o-mini")
    assert (row[form.SCOPE], row[form.SCOPE_VERSION]) == ("an instrumentation", "3.2")
    assert served.edge.names.registered == {"visitor"}


async def test_the_official_exporter_is_understood_over_grpc(served: Served) -> None:
    for compression in (None, grpc.Compression.Gzip):
        exporter = GrpcSpanExporter(
            f"127.0.0.1:{served.grpc}",
            insecure=True,
            headers={"authorization": "Bearer run"},
            compression=compression,
        )
        await asyncio.to_thread(trace, exporter)
    assert served.names == ["outer", "outer"]
    assert {(row[form.AGENT], row[form.RUN_ID]) for row in served.edge.shelf.spans} == {
        ("inbox", "r1")
    }


async def test_the_official_exporters_metrics_and_logs_are_kept(served: Served) -> None:
    def measure() -> None:
        exporter = OTLPMetricExporter(f"http://127.0.0.1:{served.http}/v1/metrics")
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=60_000)
        provider = MeterProvider([reader], resource=Resource({"service.name": "visitor"}))
        meter = provider.get_meter("m")
        meter.create_counter("turns", unit="1").add(3, {"kind": "tool"})
        meter.create_histogram("wait", unit="s").record(0.25)
        provider.shutdown()

    await asyncio.to_thread(measure)
    points = {
        row[POINTS.at["metric"]]: row for row in served.edge.shelf.rows[Signal.POINTS].values()
    }
    assert points["turns"][POINTS.at["whole"]] == 3
    assert points["wait"][POINTS.at["count"]] == 1
    assert json.loads(points["wait"][POINTS.at["buckets"]])["bucket_counts"].count(1) == 1

    def write() -> None:
        provider = LoggerProvider(Resource({"service.name": "visitor"}))
        exporter = OTLPLogExporter(f"http://127.0.0.1:{served.http}/v1/logs")
        provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
        record = LogRecord(
            timestamp=time.time_ns(), severity_number=SeverityNumber.WARN, body="look out"
        )
        provider.get_logger("l").emit(record)
        provider.shutdown()

    await asyncio.to_thread(write)
    (log,) = served.edge.shelf.rows[Signal.LOGS].values()
    assert (log[LOGS.at["body"]], log[LOGS.at["severity"]]) == ("look out", 13)


# -- who may ---------------------------------------------------------------------------------------


async def test_a_token_that_may_not_write_is_refused_on_both(served: Served) -> None:
    raw = body(now_span())
    for token, status, code in (
        ("read", 403, grpc.StatusCode.PERMISSION_DENIED),
        ("unknown", 401, grpc.StatusCode.UNAUTHENTICATED),
    ):
        answer = await asyncio.to_thread(served.post, raw, authorization=f"Bearer {token}")
        assert answer[0] == status
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.export(raw, authorization=f"Bearer {token}")
        assert caught.value.code() == code
    assert served.names == []


async def test_without_a_token_the_fleets_agents_are_not_spoken_for(served: Served) -> None:
    raw = body(now_span(), service="inbox")
    status, content, _ = await asyncio.to_thread(served.post, raw)
    assert (status, b"only a token may write for it" in content) == (200, True)
    assert b"only a token may write for it" in await served.export(raw)
    assert served.names == []


async def test_another_sites_page_cannot_send_without_a_token(served: Served) -> None:
    raw = body(now_span(), service="visitor")
    for headers, status in (
        ({"host": "evil.example"}, 421),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"host": "evil.example", "authorization": "Bearer write"}, 200),
    ):
        assert (await asyncio.to_thread(served.post, raw, **headers))[0] == status
    assert served.names == ["span 1"]


async def test_beyond_this_machine_a_token_is_needed(served: Served) -> None:
    port = await served.listeners.open_http("0.0.0.0:0")
    served.http = port
    assert (await asyncio.to_thread(served.post, body(now_span())))[0] == 401


async def test_a_port_in_use_is_told_with_its_setting(served: Served) -> None:
    with pytest.raises(SetupError, match=r"hub\.otlp_http"):
        await served.listeners.open_http(f"127.0.0.1:{served.http}")
    with pytest.raises(SetupError, match=r"hub\.otlp_grpc"):
        await served.listeners.open_grpc(f"127.0.0.1:{served.grpc}")


def test_grpc_is_imported_with_its_listener_and_not_before() -> None:
    program = "import sys, midwatch.hub.listeners; print('grpc' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "False\n"


# -- what is bad -----------------------------------------------------------------------------------


async def test_a_partial_success_is_told_over_grpc_as_over_http(served: Served) -> None:
    raw = body(now_span(1), now_span(2, trace_id=b"short"), service="visitor")
    over_http = (await asyncio.to_thread(served.post, raw))[1]
    over_grpc = await served.export(raw)
    assert over_http == over_grpc
    assert b"a trace id of 5 bytes" in over_grpc


async def test_a_broken_and_an_overlarge_export_say_so_over_grpc(served: Served) -> None:
    for raw, code in (
        (b"\xff" * 9, grpc.StatusCode.INVALID_ARGUMENT),
        (bytes(16 * 1024 * 1024 + 1), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.export(raw)
        assert caught.value.code() == code
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.grpc}") as channel:
        bomb = channel.unary_unary(EXPORT)(bytes(40_000_000), compression=grpc.Compression.Gzip)
        with pytest.raises(grpc.aio.AioRpcError, match="larger than max"):
            await bomb
    # and the listener goes on
    assert await served.export(body(now_span(), service="visitor")) == b""


async def test_who_opens_exports_and_sends_nothing_keeps_no_place(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "MAX_UNDER_WAY", 1)
    monkeypatch.setattr(rpc, "READ_TIMEOUT_S", 0.2)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.grpc}") as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="did not arrive") as caught:
            await asyncio.wait_for(channel.stream_unary(EXPORT)(), 60)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE, "it may come again"
    monkeypatch.setattr(rpc, "READ_TIMEOUT_S", 30.0)
    assert await served.export(body(now_span(), service="visitor")) == b""


# -- overload --------------------------------------------------------------------------------------


class Slow(MemorySpans):
    """A store that writes when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.order: list[str] = []

    async def append(self, batch: Batch) -> Kept:
        await self.gate.wait()
        self.order.append(batch.spans[0][form.AGENT])
        return await super().append(batch)


@pytest.fixture
async def slow() -> AsyncIterator[Served]:
    shares = Shares(inside_bytes=4_000, waiting_bytes=40_000, quantum=4_000)
    admission = Admission(shares, wait_s=60.0)
    store = Slow()
    made = Served(Edge(admission, store, time.time))
    await made.open()
    yield made
    store.gate.set()
    await made.listeners.close()


async def until(condition: Any, timeout_s: float = 40.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.005)


async def test_a_flood_is_told_to_wait_and_a_calm_agent_is_served_among_it(slow: Served) -> None:
    store: Any = slow.edge.store
    shares = slow.edge.admission.shares
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(60) as threads:
        flood = [
            loop.run_in_executor(
                threads, slow.post, many(30, seed=n, service="searches", at_ns=time.time_ns())
            )
            for n in range(60)
        ]
        # until there is no more room: who is refused is answered, and nobody else before the gate opens
        await until(lambda: shares.waiting >= 15_000 and any(one.done() for one in flood))
        raw = many(5, seed=999, at_ns=time.time_ns())
        calm = asyncio.create_task(slow.export(raw, authorization="Bearer run"))
        await until(lambda: shares.senders == 2)
        store.gate.set()
        assert await calm == b""
        answers = await asyncio.gather(*flood)
    by_status = {status: sum(1 for a in answers if a[0] == status) for status in (200, 503)}
    assert by_status[200] + by_status[503] == 60
    assert by_status[503] > 0
    assert all(a[2]["retry-after"] == "1" for a in answers if a[0] == 503)
    # what was answered 200 is there, and nothing else
    assert len(store.shelf.spans) == 30 * by_status[200] + 5
    # one round: it did not wait for the flood
    assert store.order.index("inbox") <= 4


async def test_overload_over_grpc_is_unavailable_with_the_time_to_wait(slow: Served) -> None:
    slow.edge.admission.shares.inside = 10**9
    slow.edge.admission.shares.waiting = 10**9
    try:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await slow.export(body(now_span(), service="visitor"))
    finally:
        slow.edge.admission.shares.inside = slow.edge.admission.shares.waiting = 0
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    details = dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
    assert b"google.rpc.RetryInfo" in details


async def test_a_fault_of_ours_is_answered_counted_and_harms_nobody_else(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(batch: Batch) -> Kept:
        raise RuntimeError("a fault")

    raw = body(now_span(), service="visitor")
    with monkeypatch.context() as patched:
        patched.setattr(served.edge.store, "append", fail)
        assert (await asyncio.to_thread(served.post, raw))[0] == 500
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.export(raw)
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert served.edge.counts.total("server_errors") == 2
    assert served.edge.admission.shares.inside == 0
    assert (await asyncio.to_thread(served.post, raw))[0] == 200


async def test_a_store_that_fails_acknowledges_nothing(served: Served) -> None:
    served.edge.store.broken = True
    raw = body(now_span(), service="visitor")
    status, _, headers = await asyncio.to_thread(served.post, raw)
    assert (status, headers["retry-after"]) == (503, "1")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.export(raw)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert served.names == []
