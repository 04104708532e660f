from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from tests.edges import WRITER, Edge, body, span

from midwatch.core.spans.form import Signal
from midwatch.core.spans.shares import Shares
from midwatch.ingest.admission import Admission
from midwatch.ingest.bodies import zstd
from midwatch.ingest.otlp import answers
from midwatch.ingest.otlp.http import OtlpHttp


class Posted:
    """What was answered."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
        else:
            self.body += message["body"]


async def post(
    edge: Edge, raw: bytes, path: str = "/v1/traces", method: str = "POST", **headers: str
) -> Posted:
    told = {"content_type": "application/x-protobuf", **headers}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in told.items()],
        "midwatch.sender": WRITER,
    }

    async def receive() -> Any:
        return {"type": "http.request", "body": raw}

    posted = Posted()
    await OtlpHttp(edge.intake)(scope, receive, posted.send)
    return posted


async def test_success_is_an_empty_message_in_the_encoding_of_the_request() -> None:
    edge = Edge()
    protobuf = await post(edge, body(span(1)))
    assert (protobuf.status, protobuf.body) == (200, b"")
    assert protobuf.headers["content-type"] == "application/x-protobuf"
    as_json = await post(edge, b'{"resourceSpans":[]}', content_type="application/json; charset=x")
    assert (as_json.status, as_json.body) == (200, b"{}")
    assert as_json.headers["content-type"] == "application/json"
    assert len(edge.shelf.spans) == 1


@pytest.mark.parametrize("how", ["gzip", "deflate", "zstd"])
async def test_requests_may_be_packed(how: str) -> None:
    edge = Edge()
    pack = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress}[how]
    assert (await post(edge, pack(body(span(1))), content_encoding=how)).status == 200
    assert len(edge.shelf.spans) == 1


async def test_partial_success_is_200_and_says_why_in_both_encodings() -> None:
    edge = Edge()
    answer = await post(edge, body(span(1), span(2, trace_id=b"short")))
    read = ExportTraceServiceResponse.FromString(answer.body)
    assert (answer.status, read.partial_success.rejected_spans) == (200, 1)
    assert read.partial_success.error_message.startswith("1 id: a trace id of 5 bytes")
    raw = {
        "resourceSpans": [
            {
                "resource": {
                    "attributes": [{"key": "service.name", "value": {"stringValue": "inbox"}}]
                },
                "scopeSpans": [{"spans": [{"traceId": "00"}, 5]}],
            }
        ]
    }
    answer = await post(edge, json.dumps(raw).encode(), content_type="application/json")
    assert answer.status == 200
    partial = json.loads(answer.body)["partialSuccess"]
    assert partial["rejectedSpans"] == "2"
    assert "expected a list of objects" in partial["errorMessage"]


@pytest.mark.parametrize(
    ("signal", "response", "count", "key"),
    [
        (Signal.SPANS, ExportTraceServiceResponse, "rejected_spans", "rejectedSpans"),
        (Signal.POINTS, ExportMetricsServiceResponse, "rejected_data_points", "rejectedDataPoints"),
        (Signal.LOGS, ExportLogsServiceResponse, "rejected_log_records", "rejectedLogRecords"),
    ],
)
def test_partial_success_has_its_signals_shape(
    signal: Signal, response: Any, count: str, key: str
) -> None:
    partial = response.FromString(answers.success(signal, 7, "why", as_json=False)).partial_success
    assert (getattr(partial, count), partial.error_message) == (7, "why")
    as_json = json.loads(answers.success(signal, 7, "why", as_json=True))
    assert as_json == {"partialSuccess": {key: "7", "errorMessage": "why"}}


async def test_overload_is_503_with_a_time_to_wait_and_nothing_is_kept() -> None:
    edge = Edge(Admission(Shares(waiting_bytes=10)))
    holding = edge.admission.turn("another", 1)
    async with holding:
        first = edge.admission.shares
        first.inside = 10**9  # as if a flood were inside
        answer = await post(edge, body(span(1)))
        as_json = await post(edge, b'{"resourceSpans":[]}', content_type="application/json")
        first.inside = 1
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    # google.rpc.Status: code 1, message 2, details 3
    assert answer.body.startswith(b"\x08\x0e\x12")
    assert b"type.googleapis.com/google.rpc.RetryInfo" in answer.body
    told = json.loads(as_json.body)
    assert (as_json.status, told["code"]) == (503, 14)
    assert told["details"][0]["retryDelay"] == "1s"
    assert edge.shelf.spans == []
    assert edge.counts.value("refused_requests", "share") == 2


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"content_type": "text/plain"}, 415),
        ({"content_encoding": "br"}, 415),
        ({"content_length": "99999999"}, 413),
        ({"path": "/v1/profiles"}, 404),
        ({"method": "GET"}, 405),
        ({"raw": b"\x0a\xff"}, 400),
        ({"raw": b"{", "content_type": "application/json"}, 400),
        ({"raw": b'{"spans":[]}', "content_type": "application/json"}, 400),
        ({"raw": b"[]", "content_type": "application/json"}, 400),
    ],
    ids=str,
)
async def test_what_is_refused_says_why_and_must_not_be_sent_again(
    more: dict[str, Any], status: int
) -> None:
    answer = await post(Edge(), **{"raw": b"", **more})
    assert answer.status == status
    assert "retry-after" not in answer.headers
    if answer.headers["content-type"] == "application/json":
        assert json.loads(answer.body)["message"]
    else:
        # a StringValue has its text where a Status has its code, so that this reads a Status' message apart
        assert StringValue.FromString(b"\x0a" + answer.body.partition(b"\x12")[2]).value
