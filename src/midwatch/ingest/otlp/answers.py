"""Answers of OTLP, in the encoding of the request: success, partial success, and errors as google.rpc.Status.

Partial success is answered 200 and must not be sent again; only 429, 502, 503 and 504 may be.
Source: the OpenTelemetry protocol, OTLP/HTTP response.
"""

from __future__ import annotations

import json
from typing import Final

from midwatch.core.spans.form import Signal
from midwatch.ingest.otlp import wire
from midwatch.wire.problem import Refusal

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

MAX_MESSAGE: Final = 1_000
"""Characters of a message: exporters log it."""

_REJECTED: Final = {
    Signal.SPANS: "rejectedSpans",
    Signal.POINTS: "rejectedDataPoints",
    Signal.LOGS: "rejectedLogRecords",
}

OK, INVALID, DENIED, EXHAUSTED, UNAVAILABLE, UNAUTHENTICATED, INTERNAL = 0, 3, 7, 8, 14, 16, 13
_CODES: Final = {
    401: UNAUTHENTICATED,
    403: DENIED,
    413: EXHAUSTED,
    408: UNAVAILABLE,
    429: EXHAUSTED,
    500: INTERNAL,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: UNAVAILABLE,
}

_RETRY_INFO: Final = b"type.googleapis.com/google.rpc.RetryInfo"


def success(signal: Signal, rejected: int, message: str, *, as_json: bool) -> bytes:
    """Return an Export…ServiceResponse; with `rejected`, a partial success that says why."""
    message = message[:MAX_MESSAGE]
    if as_json:
        partial = {_REJECTED[signal]: str(rejected), "errorMessage": message}
        return json.dumps({"partialSuccess": partial} if rejected else {}).encode()
    if not rejected:
        return b""
    partial = wire.Partial(rejected=rejected, message=message.encode(errors="replace"))
    return bytes(wire.Response(partial=partial.SerializeToString()).SerializeToString())


def code(status: int) -> int:
    """Return the gRPC code for an HTTP status."""
    return _CODES.get(status, INVALID)


def error(refusal: Refusal, *, as_json: bool) -> bytes:
    """Return a google.rpc.Status; for what may be sent again, with the time to wait."""
    message = refusal.detail[:MAX_MESSAGE]
    wait_s = retry_after(refusal)
    if as_json:
        said: dict[str, object] = {"code": code(refusal.status), "message": message}
        if wait_s is not None:
            retry = {"@type": _RETRY_INFO.decode(), "retryDelay": f"{wait_s}s"}
            said["details"] = [retry]
        return json.dumps(said).encode()
    return _status(refusal.status, message, wait_s)


def _status(status: int, message: str, wait_s: int | None) -> bytes:
    details: list[bytes] = []
    if wait_s is not None:
        delay = wire.Duration(seconds=wait_s).SerializeToString()
        info = wire.RetryInfo(delay=delay).SerializeToString()
        details.append(wire.Any_(type_url=_RETRY_INFO, value=info).SerializeToString())
    made = wire.RpcStatus(
        code=code(status), message=message.encode(errors="replace"), details=details
    )
    return bytes(made.SerializeToString())


def retry_after(refusal: Refusal) -> int | None:
    """Return how many seconds to wait before it is sent again, or None when it must not be."""
    text = refusal.headers.get("retry-after", "")
    return int(text) if text.isdigit() else None
