"""OTLP over HTTP, as a raw ASGI application: three paths, two encodings, answers in the encoding of the request.

Who sends is in `scope["midwatch.sender"]`, or in `scope["midwatch.caller"]` where the hub's gate has let them in.
"""

from __future__ import annotations

from typing import Any, Final

from midwatch.core.spans.form import Signal
from midwatch.ingest.bodies import BodyReader, Receive, Scope, Send, header
from midwatch.ingest.otlp import answers
from midwatch.ingest.otlp.intake import OtlpIntake
from midwatch.ingest.otlp.owners import Sender
from midwatch.wire.problem import Refusal

PATHS: Final = {
    "/v1/traces": Signal.SPANS,
    "/v1/metrics": Signal.POINTS,
    "/v1/logs": Signal.LOGS,
}

_MEDIA: Final = {
    "application/x-protobuf": False,
    "application/protobuf": False,
    "application/json": True,
}
"""Content types, and whether they are JSON."""


class OtlpHttp:
    """Answers requests for `PATHS`."""

    def __init__(self, intake: OtlpIntake, bodies: BodyReader | None = None) -> None:
        self._intake = intake
        self._bodies = BodyReader() if bodies is None else bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        media = header(scope["headers"], b"content-type").partition(";")[0].strip().lower()
        # what is no OTLP at all is answered as a person reads it
        as_json = _MEDIA.get(media, True)
        try:
            signal = _signal(scope, media)
            body = await self._bodies.take(scope, receive)
            sender = scope.get("midwatch.sender") or Sender(scope["midwatch.caller"])
            rejected, message = await self._intake.take(signal, body, sender, as_json=as_json)
        except Refusal as refusal:
            self._intake.counts.add("refused_requests", refusal.reason)
            await refuse(refusal, send, as_json=as_json)
            return
        content = answers.success(signal, rejected, message, as_json=as_json)
        await _answer(send, 200, content, as_json, {})


async def refuse(refusal: Refusal, send: Send, *, as_json: bool) -> None:
    """Answer with what OTLP's exporters read of an error."""
    content = answers.error(refusal, as_json=as_json)
    await _answer(send, refusal.status, content, as_json, refusal.headers)


def _signal(scope: Scope, media: str) -> Signal:
    signal = PATHS.get(scope["path"])
    if signal is None:
        known = ", ".join(PATHS)
        raise Refusal(404, f"nothing is at {scope['path'][:60]!r}; OTLP has {known}", reason="path")
    if scope["method"] != "POST":
        raise Refusal(
            405,
            f"{scope['method'][:20]} is not for OTLP; use POST",
            reason="method",
            headers={"allow": "POST"},
        )
    if media not in _MEDIA:
        raise Refusal(
            415,
            f"content-type {media[:60]!r}: OTLP is application/x-protobuf or application/json",
            reason="media_type",
        )
    return signal


async def _answer(
    send: Send, status: int, body: bytes, as_json: bool, headers: dict[str, str]
) -> None:
    media = answers.JSON if as_json else answers.PROTOBUF
    start: dict[str, Any] = {
        "type": "http.response.start",
        "status": status,
        "headers": [
            (b"content-type", media.encode()),
            (b"content-length", str(len(body)).encode()),
            *((key.encode(), value.encode()) for key, value in headers.items()),
        ],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body})
