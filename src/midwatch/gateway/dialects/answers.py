"""What a whole answer says: usage, who served it, why it ended. The bytes pass on as they came."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final, cast

from pydantic_core import from_json

from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.core.calls.classes import ErrorClass, Failure, broken, classify
from midwatch.core.pricing import anthropic, gemini, openai
from midwatch.core.pricing.usage import Doubt, Usage
from midwatch.core.sealed import sealed
from midwatch.gateway.dialects.bodies import Json, members, values_of
from midwatch.gateway.dialects.listeners import tier_of
from midwatch.gateway.dialects.reading import Contents
from midwatch.gateway.dialects.stream import MAX_NAME, objects


@sealed
class Answer:
    """A whole answer, or the failure that it is."""

    usage: Usage | None = None
    """None: the provider told none."""
    model: str = ""
    """The one that served, in the provider's word."""
    response_id: str = ""
    finish: str | None = None
    """Why the first answer ended, in the provider's word."""
    refused: bool = False
    """The model, or a filter, declined to answer."""
    failure: Failure | None = None
    told: bool = False
    """The provider itself says in it what failed: its words may be passed on."""
    free: bool = False
    """Nothing was made, for certain: a page of a proxy, or the provider says so."""
    text: str = ""
    """What was said, as far as it can be told; only without usage, for an estimate of it."""


LONG_BYTES: Final = 256 * 1024
"""A longer answer is looked at first, and better beside the event loop."""

MAX_VALUES: Final = 2_000_000
"""Values in one answer. An answer of 16,000 tokens with the 20 likeliest others of each has so many; to read them
holds the interpreter for 0.2 to 0.4 s."""

DECLINED: Final = frozenset(
    (
        "content_filter",
        "refusal",
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "IMAGE_SAFETY",
    )
)
"""Reasons for an end that mean: not answered for what it says."""


def answer(
    ask: Ask, status: int, headers: Iterable[tuple[str, str]], body: bytes, *, now: float = 0.0
) -> Answer:
    """Return what an answer says. `now` in Unix seconds, for Retry-After. Nothing raises.

    A status of success with something else than an answer behind it is a failure, too: HTML of a proxy, half a
    body, an error in disguise.
    """
    if not 200 <= status < 300:
        failure = classify(ask.kind, status, headers, body, now=now)
        return Answer(failure=failure, told=True, free=True)
    try:
        decoded = _read(ask, body)
    except TooMany:
        return _unreadable(status, None)
    except (ValueError, IndexError):
        return _unreadable(status, body)
    value = cast("Json", decoded) if isinstance(decoded, dict) else {}
    if value.get("error") and not value.get("choices"):
        failure = classify(ask.kind, status, headers, body, now=now)
        return Answer(failure=failure, told=True, free=True)
    if (_SAYS.get(ask.dialect) or value.keys()).isdisjoint(value):
        return _unreadable(status, None)
    found = _READERS[ask.kind](ask, value)
    told = found.usage
    whole = told is not None and Doubt.INCOMPLETE not in told.doubts
    if told is not None and not told.output_tokens:
        whole = False  # Gemini leaves out what is 0, some say 0 of all; what was said tells whether it was
    if whole or ask.dialect in (Dialect.COUNT, Dialect.EMBEDDINGS):
        return found
    said = Contents(ask.kind, ask.model)
    said.anything([value.get(key) for key in ("choices", "output", "content", "candidates")])
    return replace(found, text="\n".join(said.texts))


class TooMany(Exception):
    """An answer holds more values than are read."""


def _read(ask: Ask, body: bytes) -> object:
    """Return what an answer is. Of long embeddings without the vectors: nobody here reads them, and they are millions
    of numbers. Raises TooMany, ValueError, IndexError."""
    if len(body) <= LONG_BYTES:
        return from_json(body)
    if ask.dialect is Dialect.EMBEDDINGS and body[:64].lstrip()[:1] == b"{":
        return {m.key: from_json(body[m.start : m.end]) for m in members(body) if m.key != "data"}
    if values_of(body, MAX_VALUES) > MAX_VALUES:
        raise TooMany
    return from_json(body)


_SAYS: Final = {
    Dialect.CHAT: frozenset(("choices", "usage")),
    Dialect.RESPONSES: frozenset(("output", "status", "usage")),
    Dialect.MESSAGES: frozenset(("content", "stop_reason", "usage")),
    Dialect.GENERATE: frozenset(("candidates", "promptFeedback", "usageMetadata")),
}
"""What an answer has, at least one of each: an object without them is none."""

_PAGE: Final = re.compile(rb"\s*(?:<!doctype html|<html)\b", re.IGNORECASE)


def _unreadable(status: int, body: bytes | None) -> Answer:
    """Return what a success is behind which there is no answer. `body` None: it is whole JSON.

    A page is somebody's on the way, and half an answer a cut: both may be another time what they should. Anything
    else was asked for, or is how this provider answers: the same again would be billed again.
    """
    if body is not None and _PAGE.match(body):
        failure = broken(f"status {status} with a page instead of an answer", code="malformed")
        return Answer(failure=failure, free=True)
    if body is not None and body[:64].lstrip()[:1] in (b"{", b"[", b""):
        return Answer(failure=broken(f"status {status} with half an answer", code="malformed"))
    said = f"status {status} with no answer but something else"
    return Answer(failure=Failure(ErrorClass.UNREADABLE, said, code="malformed"))


def _openai(ask: Ask, value: Json) -> Answer:
    usage = openai.read(value, tier_of(ask))
    model, identity = _text(value, "model"), _text(value, "id")
    if ask.dialect is Dialect.RESPONSES:
        if value.get("status") == "failed":
            failure = classify(ask.kind, 200, (), {"response": value}, now=0.0, stream_event=True)
            return Answer(
                usage, model, identity, "failed", failure=failure, told=True, free=usage is None
            )
        details: Any = value.get("incomplete_details")
        reason = cast("Json", details).get("reason") if isinstance(details, dict) else None
        finish = reason if isinstance(reason, str) else _text(value, "status")
        return Answer(usage, model, identity, finish[:64] or None, finish in DECLINED)
    choices = objects(value.get("choices"))
    if not choices:
        return Answer(usage, model, identity)
    reason = choices[0].get("finish_reason")
    message = choices[0].get("message")
    said = isinstance(message, dict) and bool(cast("Json", message).get("refusal"))
    finish = reason[:64] if isinstance(reason, str) else None
    return Answer(usage, model, identity, finish, said or finish in DECLINED)


def _anthropic(ask: Ask, value: Json) -> Answer:
    finish = _text(value, "stop_reason") or None
    usage = anthropic.read(value, tier_of(ask))
    return Answer(usage, _text(value, "model"), _text(value, "id"), finish, finish in DECLINED)


def _gemini(ask: Ask, value: Json) -> Answer:
    candidates = objects(value.get("candidates"))
    feedback: Any = value.get("promptFeedback")
    blocked = cast("Json", feedback).get("blockReason") if isinstance(feedback, dict) else None
    reason = candidates[0].get("finishReason") if candidates else blocked
    finish = reason[:64] if isinstance(reason, str) else None
    return Answer(
        gemini.read(value, tier_of(ask)),
        _text(value, "modelVersion"),
        _text(value, "responseId"),
        finish,
        isinstance(blocked, str) or finish in DECLINED,
    )


_READERS: Final = {Kind.OPENAI: _openai, Kind.ANTHROPIC: _anthropic, Kind.GEMINI: _gemini}


def _text(value: Json, key: str) -> str:
    found = value.get(key)
    return found[:MAX_NAME] if isinstance(found, str) else ""
