"""What a provider's error says: one flat form for the many shapes in which providers complain.

Shapes that occur: `{"error": {…}}` (OpenAI and most others, Anthropic, Google), `{"error": "text"}` (Ollama),
`[{"error": {…}}]` (Google's array stream), `{"object": "error", "message": …}` (Mistral, older vLLM),
`{"detail": …}` (FastAPI), `{"message": …}` (Azure's front door), `{"type": "error", "code": …}` and
`{"response": {"error": …}}` (events of the Responses API), and a whole error of another provider as text in
`metadata.raw` (OpenRouter). Nothing raises; what is not understood is text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from midwatch.core.redact import redact_text

MAX_BODY: Final = 64 * 1024
"""Bytes of an error that are looked at."""

MAX_MESSAGE: Final = 500
"""Characters of a provider's words that are kept."""

_DEPTH: Final = 3
"""Errors within errors: a router quotes a provider that quotes its own back end."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """Codes in lower case, most telling first; the message redacted, in one line, bounded."""

    codes: tuple[str, ...] = ()
    message: str = ""
    status: int | None = None
    """The status that the body itself names: of events, and of routers that answer 200."""
    quotas: tuple[str, ...] = ()
    """Google's `quotaId`s that are used up."""
    delay: str | None = None
    """Google's `retryDelay`, as told."""
    html: bool = False
    known: bool = False
    """Whether the body is an error in a shape that is known."""


def read(body: bytes) -> Complaint:
    """Return what an error's body says."""
    shown = body[:MAX_BODY]
    start = shown.lstrip()[:256].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return Complaint(message=_line(_title(shown)), html=True)
    try:
        value: object = json.loads(shown)
    except (ValueError, RecursionError):
        return Complaint(message=_line(shown.decode("utf-8", "replace")))
    return of(value)


def of(value: object, depth: int = _DEPTH) -> Complaint:
    """Return what a decoded error says."""
    if isinstance(value, list) and value:
        value = cast("list[object]", value)[0]
    if not isinstance(value, dict):
        return Complaint(message=_line(value) if isinstance(value, str) else "")
    body = cast("Mapping[str, Any]", value)
    error = body.get("error")
    if error is None and isinstance(body.get("response"), dict):
        error = body["response"].get("error")
    if isinstance(error, str):
        # FastAPI-like proxies put the code beside it
        return Complaint(_codes(body), _line(error), _status(body), known=True)
    if isinstance(error, dict):
        return _merge(cast("Mapping[str, Any]", error), depth)
    message = body.get("message", body.get("detail"))
    if message is None and body.get("code") is None:
        return Complaint()
    told = message if isinstance(message, str) else json.dumps(message)[:MAX_BODY]
    return Complaint(_codes(body), _line(told), _status(body), known=True)


def _merge(error: Mapping[str, Any], depth: int) -> Complaint:
    """Return what an error object says, and what it quotes."""
    message = error.get("message", error.get("detail", ""))
    told = message if isinstance(message, str) else json.dumps(message)[:MAX_BODY]
    codes, quotas, delay = _codes(error), list[str](), None
    status = _status(error)
    for detail in _objects(error.get("details")):
        reason = detail.get("reason")
        if isinstance(reason, str):
            codes = (_code(reason), *codes)
        for violation in _objects(detail.get("violations")):
            quota = violation.get("quotaId") or violation.get("quotaMetric")
            if isinstance(quota, str):
                quotas.append(quota[:200])
        if isinstance(detail.get("retryDelay"), str):
            delay = detail["retryDelay"][:40]
    inner = error.get("innererror")
    if isinstance(inner, dict):
        codes = (*codes, *_codes(cast("Mapping[str, Any]", inner)))
    metadata = error.get("metadata")
    raw: object = (
        cast("Mapping[str, Any]", metadata).get("raw") if isinstance(metadata, dict) else None
    )
    if depth > 0 and raw is not None:
        quoted = _quoted(raw, depth)
        codes = (*quoted.codes, *codes)
        told = f"{told}: {quoted.message}" if quoted.message else told
        quotas += quoted.quotas
        delay = delay or quoted.delay
    return Complaint(codes, _line(told), status, tuple(quotas[:16]), delay, known=True)


def _quoted(raw: object, depth: int) -> Complaint:
    if isinstance(raw, str):
        try:
            return of(json.loads(raw[:MAX_BODY]), depth - 1)
        except (ValueError, RecursionError):
            return Complaint(message=_line(raw))
    return of(raw, depth - 1)


def _codes(error: Mapping[str, Any]) -> tuple[str, ...]:
    """Return codes, the most telling first: `code`, then Google's `status`, then `type`."""
    found = [error.get("code"), error.get("status"), error.get("type")]
    return tuple(_code(value) for value in found if isinstance(value, str) and value)


def _code(value: str) -> str:
    return "".join(c for c in value.strip().lower()[:80] if c.isprintable())


def _status(error: Mapping[str, Any]) -> int | None:
    for key in ("code", "status_code", "statusCode", "status"):
        value: object = error.get(key)
        if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:
            return value
    return None


def _objects(value: object) -> list[Mapping[str, Any]]:
    if not isinstance(value, list):
        return []
    listed = cast("list[object]", value)[:32]
    return [cast("Mapping[str, Any]", item) for item in listed if isinstance(item, dict)]


def _title(page: bytes) -> str:
    """Return the title of a page, for want of anything better."""
    text = page.decode("utf-8", "replace")
    low = text.lower()
    start = low.find("<title>")
    end = low.find("</title>", start)
    return text[start + 7 : end] if 0 <= start < end else "a page of HTML"


def _line(text: str) -> str:
    cut = " ".join(text[: MAX_MESSAGE * 4].split())
    shown = "".join(c if c.isprintable() else "?" for c in cut)
    return redact_text(shown)[:MAX_MESSAGE]
