"""Spans over plain HTTP, as any exporter of OTLP sends them: address and token are where every exporter looks."""

import http.client
import json
import os
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

from midwatch.sdk import otlp

PATIENCE_S = 60
JSON = "application/json"
PROTOBUF = "application/x-protobuf"


@dataclass
class Answer:
    """What came back; `status` 0: nothing."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


def post(
    body: bytes, media: str = JSON, path: str = "/v1/traces", encoding: str = "identity"
) -> Answer:
    """Send a body; return what came back, if anything did."""
    base = urllib.parse.urlsplit(os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"])
    told = os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "").split(",")
    pairs = [pair.partition("=") for pair in told if pair]
    headers = {name.strip(): urllib.parse.unquote(value.strip()) for name, _, value in pairs}
    connection = http.client.HTTPConnection(base.hostname or "", base.port, timeout=PATIENCE_S)
    try:
        headers = {"content-type": media, "content-encoding": encoding, **headers}
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return Answer(answer.status, {n.lower(): v for n, v in answer.getheaders()}, answer.read())
    except (OSError, http.client.HTTPException):
        return Answer(0)
    finally:
        connection.close()


def span(
    trace: str, span_id: str, name: str, parent: str = "", **attributes: Any
) -> dict[str, Any]:
    """Return a span that has just ended, after a second."""
    now = time.time_ns()
    made = {
        "traceId": trace,
        "spanId": span_id,
        "name": name,
        "kind": 1,
        "startTimeUnixNano": str(now - 10**9),
        "endTimeUnixNano": str(now),
        "attributes": otlp.attributes(
            {key.replace("__", "."): value for key, value in attributes.items()}
        ),
    }
    return {**made, "parentSpanId": parent} if parent else made


def wrapped(spans: list[dict[str, Any]], scope: str = "drill") -> bytes:
    """Return a request of these spans as JSON."""
    service = os.environ.get("MIDWATCH_AGENT", "subject")
    return json.dumps(otlp.wrap(spans, {"service.name": service}, scope)).encode()
