"""How the gateway itself says no, in the client's own words: whole answers, events within a stream, sentinels.

Mid-stream the official clients raise on `error` in the data of any event (openai, also for responses, where
the documented event alone is handed on as if it were content), on `event: error` (anthropic), and on `error` in
a chunk (google-genai). No sentinel follows an error: a clean end would be taken for success.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Final, cast

from pydantic_core import from_json

from midwatch.core.calls.ask import Dialect, Kind
from midwatch.gateway.dialects import sse
from midwatch.gateway.dialects.bodies import BadRequest, NotCarried
from midwatch.gateway.dialects.headers import Pairs
from midwatch.gateway.dialects.paths import Route
from midwatch.gateway.dialects.stream import Listener

MAX_MESSAGE: Final = 2_000


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call gets no answer, or not the whole."""

    type: str
    """midwatch_budget, midwatch_suspended, midwatch_policy, midwatch_loop, …"""
    message: str
    status: int
    retry_after_s: float | None = None
    """When to come back. A client of Anthropic sleeps for so long, whatever it is, unless it is told not to."""
    retry: bool = False
    """The client may try again by itself: its SDK does so, twice."""
    param: str | None = None
    facts: tuple[tuple[str, Any], ...] = ()
    """Figures for programs: scope, limit_usd, spent_usd, reserved_usd, resets_at."""


def of_bad_request(bad: BadRequest) -> Refusal:
    """Return the refusal of a body that is no request."""
    kind = "midwatch_not_carried" if isinstance(bad, NotCarried) else "midwatch_bad_request"
    return Refusal(kind, bad.reason, bad.status, param=bad.param)


_STATUS: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""Google's canonical codes by status (google.aip.dev/193)."""


def refusal(kind: Kind, refused: Refusal, *, array: bool = False) -> tuple[int, Pairs, bytes]:
    """Return status, headers and body of an answer that refuses.

    `array`: Gemini's stream as a JSON array was asked for; its errors are a list, too.
    """
    body: Any = shape(kind, refused)
    if array:
        body = [body]
    headers = [
        ("content-type", "application/json"),
        ("x-should-retry", "true" if refused.retry else "false"),
    ]
    if refused.retry_after_s is not None:
        headers.append(("retry-after", str(max(math.ceil(refused.retry_after_s), 0))))
    return refused.status, headers, _dump(body)


def shape(kind: Kind, refused: Refusal) -> dict[str, Any]:
    """Return an error as a provider of this kind words it."""
    message = worded(refused)
    facts = dict(refused.facts)
    if kind is Kind.ANTHROPIC:
        return {"type": "error", "error": {"type": refused.type, "message": message, **facts}}
    if kind is Kind.OPENAI:
        error = {
            "message": message,
            "type": refused.type,
            "param": refused.param,
            "code": refused.type,
        }
        return {"error": {**error, **facts}}
    reason = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": refused.type,
        "domain": "midwatch",
        "metadata": {name: str(value) for name, value in facts.items()},
    }
    details: list[dict[str, Any]] = [reason]
    if refused.retry_after_s is not None:
        pause = f"{max(math.ceil(refused.retry_after_s), 0)}s"
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": pause})
    canonical = _STATUS.get(
        refused.status, "INVALID_ARGUMENT" if refused.status < 500 else "UNAVAILABLE"
    )
    error = {"code": refused.status, "message": message, "status": canonical, "type": refused.type}
    return {"error": {**error, "details": details}}


def worded(refused: Refusal) -> str:
    """Return the message, with type and wait in it: clients print the message alone, and by these words the
    supervisor knows why its agent ended (`core.endrows`)."""
    message = refused.message[:MAX_MESSAGE]
    if refused.retry_after_s is not None:
        message = f"{message} (retry after {max(math.ceil(refused.retry_after_s), 0)} s)"
    return f"{refused.type}: {message}" if refused.type.startswith("midwatch_") else message


def streams(route: Route, content_type: str) -> bool:
    """Tell whether an answer is the stream that was asked for, by its type. One without a type is listened to."""
    kind = content_type.partition(";")[0].strip().lower()
    wanted = "application/json" if route.array else "text/event-stream"
    return kind in ("", wanted)


def error_event(
    route: Route, type_: str, message: str, listener: Listener | None = None, *, status: int = 502
) -> bytes:
    """Return the event that tells a client in mid-stream that the rest will not come.

    It goes out between two whole events. `listener`: of what went out so far; without one, nothing did.
    """
    body = shape(route.kind, Refusal(type_, message, status))
    if route.dialect is Dialect.MESSAGES:
        return b"event: error\ndata: " + _dump(body) + b"\n\n"
    if route.dialect is Dialect.RESPONSES:
        event = {
            "type": "error",
            "sequence_number": 0 if listener is None else listener.sequence + 1,
            "code": type_,
            "message": body["error"]["message"],
            "param": None,
            **body,
        }
        return b"event: error\ndata: " + _dump(event) + b"\n\n"
    if route.array:
        opened = listener is not None and listener.opened
        return (b"," if opened else b"[") + _dump(body) + b"]"
    return b"data: " + _dump(body) + b"\n\n"


def own_error(route: Route, raw: bytes) -> bytes | None:
    """Return the end of a stream whose provider itself says that it failed: its own words, as without a gateway.

    None where a client hands that event on as if it were content: Anthropic's without its name, and what is
    documented for responses. `raw` is one whole event.
    """
    if route.array:
        return raw + b"]"
    name, data = sse.fields(raw)
    if route.dialect is Dialect.MESSAGES:
        return raw if name == b"error" else None
    try:
        value = from_json(data or b"")
    except ValueError:
        return None
    said = cast("dict[str, Any]", value).get("error") if isinstance(value, dict) else None
    return raw if said and isinstance(said, dict) else None


def sentinel(route: Route, listener: Listener) -> bytes:
    """Return what ends a complete stream that came without its end.

    Nothing for responses, whose last event is the response itself, and for Gemini, which has no sentinel.
    """
    if route.dialect is Dialect.CHAT:
        return b"data: [DONE]\n\n"
    if route.dialect is Dialect.MESSAGES:
        return b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    if route.array:
        return b"]" if listener.opened else b"[]"
    return b""


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
