"""Translation: a call that is answered by a place of another kind than its client's dialect. No I/O, no clock.

    request(ask, body, kind, model, longest)     → Asked: what the provider is asked, and as whom to listen to it
    onward(headers, rehearsed)                   → headers for it: none of the client's own provider's
    answer(ask, kind, body, used, frame)         → a whole answer in the client's dialect
    Stream(ask, kind, listener, frame)           → events of the provider in, bytes for the client out
    failure(kind, failed, status)                → a provider's error in the client's dialect

Everything raises CannotTranslate and nothing else; what it names is what cannot be carried over. What may go
unsaid is told in `Asked.left_out`. `fields` explains the three columns, the tables stand with each dialect.
The provider's own bytes are heard and its usage read by its own listener; only then are they translated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, cast

from pydantic_core import from_json

from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.core.calls.classes import ErrorClass, Failure
from midwatch.core.pricing.usage import Usage
from midwatch.gateway.dialects import headers as heads
from midwatch.gateway.dialects import refusals, sse
from midwatch.gateway.dialects.stream import Event, Listener, What
from midwatch.gateway.translate import (
    chat_answer,
    chat_request,
    fields,
    generate_answer,
    generate_request,
    messages_answer,
    messages_request,
)
from midwatch.gateway.translate.form import CannotTranslate as CannotTranslate
from midwatch.gateway.translate.form import Conversation, Delta, Finished, Json, Notes
from midwatch.gateway.translate.form import Frame as Frame

NATIVE: Final = {
    Kind.OPENAI: Dialect.CHAT,
    Kind.ANTHROPIC: Dialect.MESSAGES,
    Kind.GEMINI: Dialect.GENERATE,
}
"""What each kind of provider is asked in when the client speaks another's dialect."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request in a provider's dialect."""

    ask: Ask
    """The call as the provider sees it: its answers are heard and read by this."""
    body: bytes
    left_out: tuple[str, ...] = ()
    """Fields that went unsaid, or were changed, because the answer is as good without them."""


def request(ask: Ask, body: bytes, kind: Kind, model: str, longest: int | None = None) -> Asked:
    """Return the request for a place of another kind. Raises CannotTranslate.

    `longest`: the most tokens that the model gives in one answer, where that is known.
    """
    if ask.dialect not in NATIVE.values():
        raise CannotTranslate(
            ask.dialect.value, "this dialect is not translated; use one of its own kind"
        )
    notes = Notes()
    try:
        said = _conversation(ask, fields.load(body), notes)
        written = _written(said, kind, model, notes, longest)
        encoded = fields.encode(written)
    except RecursionError:
        raise CannotTranslate("the body", "it is nested too deeply") from None
    seen = replace(ask, kind=kind, dialect=NATIVE[kind], model=model, usage_asked=True, array=False)
    return Asked(seen, encoded, notes.names)


def _conversation(ask: Ask, body: Json, notes: Notes) -> Conversation:
    if ask.dialect is Dialect.CHAT:
        return chat_request.read(body, notes)
    if ask.dialect is Dialect.MESSAGES:
        return messages_request.read(body, notes)
    return generate_request.read(body, notes, stream=ask.stream)


def _written(said: Conversation, kind: Kind, model: str, notes: Notes, longest: int | None) -> Json:
    if kind is Kind.OPENAI:
        return chat_request.write(said, model, notes)
    if kind is Kind.ANTHROPIC:
        return messages_request.write(said, model, notes, longest)
    return generate_request.write(said, model, notes)


ANTHROPIC_VERSION: Final = "2023-06-01"

_ONWARD: Final = frozenset(("content-type", "accept", "user-agent", "traceparent", "tracestate"))
"""Headers that mean the same everywhere."""

_BACK: Final = frozenset(("retry-after", "retry-after-ms", "x-should-retry", "date"))


def onward(
    headers: Iterable[tuple[str, str]], kind: Kind, *, rehearsed: bool = False
) -> heads.Pairs:
    """Return the headers of a client of another kind that pass to a provider; the key is added apart."""
    passed = [
        (name, value)
        for name, value in heads.onward(headers, rehearsed=rehearsed)
        if name in _ONWARD
        or name == "accept-encoding"
        or (rehearsed and name.startswith(("x-midwatch-", "x-rehearsal-")))
    ]
    if not any(name == "content-type" for name, _ in passed):
        passed.append(("content-type", "application/json"))
    if kind is Kind.ANTHROPIC:
        passed.append(("anthropic-version", ANTHROPIC_VERSION))
    return passed


def back(headers: Iterable[tuple[str, str]], content_type: str) -> heads.Pairs:
    """Return the headers of an answer that pass to a client of another kind."""
    return [("content-type", content_type), *((n, v) for n, v in headers if n in _BACK)]


# -- answers -----------------------------------------------------------------------------------

ANSWERS: Final[Any] = {
    Dialect.CHAT: chat_answer,
    Dialect.MESSAGES: messages_answer,
    Dialect.GENERATE: generate_answer,
}


def answer(ask: Ask, kind: Kind, body: bytes, used: Usage | None, frame: Frame) -> bytes:
    """Return a whole answer of a provider for the client that asked. Raises CannotTranslate."""
    try:
        reply = ANSWERS[NATIVE[kind]].read(fields.load(body))
        return fields.encode(ANSWERS[ask.dialect].write(reply, used, frame))
    except RecursionError:
        raise CannotTranslate("the answer", "it is nested too deeply") from None


class StreamReader(Protocol):
    """Events of a provider in, deltas out; one for each dialect."""

    def read(self, value: Json, /) -> list[Delta]:
        """Return what an event says. Raises CannotTranslate."""
        ...

    def end(self) -> Finished:
        """Return why the stream ended, which it did well. Raises CannotTranslate."""
        ...


class StreamWriter(Protocol):
    """Deltas in, bytes for the client out; one for each dialect."""

    def begin(self, identity: str, model: str) -> bytes: ...

    def write(self, delta: Delta) -> bytes:
        """Return the events for a delta. Raises CannotTranslate."""
        ...

    def end(self, finished: Finished, used: Usage | None) -> bytes:
        """Return what ends a complete stream, with the sentinel. Raises CannotTranslate."""
        ...


class Stream:
    """One stream from a provider to a client of another kind."""

    def __init__(self, ask: Ask, kind: Kind, listener: Listener, frame: Frame) -> None:
        self._listener = listener
        self._reader: StreamReader = ANSWERS[NATIVE[kind]].Reader()
        self._writer: StreamWriter = ANSWERS[ask.dialect].Writer(frame)
        self._begun = False

    def feed(self, events: Iterable[Event]) -> list[Event]:
        """Return events with what the client gets of them, which may be nothing. Raises CannotTranslate.

        What an event is to whoever passes it on (content, ping, error) stays what it was.
        """
        return [Event(self._translated(event), event.what, event.failure) for event in events]

    def _translated(self, event: Event) -> bytes:
        if event.what not in (What.CONTENT, What.META):
            return b""
        _, data = sse.fields(event.raw)
        try:
            value = from_json(data or b"")
        except ValueError:
            return b""
        if not isinstance(value, dict):
            return b""
        deltas = self._reader.read(cast("Json", value))
        if not deltas:
            return b""
        # an error that follows in an array stands behind a comma
        written = b"".join((self._begin(), *map(self._writer.write, deltas)))
        self._listener.opened = self._listener.opened or bool(written)
        return written

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        heard = self._listener
        return self._writer.begin(heard.response_id, heard.model)

    def end(self, used: Usage | None) -> bytes:
        """Return what ends a complete stream. Raises CannotTranslate."""
        finished = self._reader.end()
        return self._begin() + self._writer.end(finished, used)


# -- errors ------------------------------------------------------------------------------------

_OPENAI: Final = {
    ErrorClass.RATE_LIMIT: ("rate_limit_error", "rate_limit_exceeded"),
    ErrorClass.QUOTA: ("insufficient_quota", "insufficient_quota"),
    ErrorClass.CREDENTIALS: ("authentication_error", "invalid_api_key"),
    ErrorClass.FORBIDDEN: ("permission_error", "permission_denied"),
    ErrorClass.NOT_FOUND: ("invalid_request_error", "model_not_found"),
    ErrorClass.CONTEXT_LENGTH: ("invalid_request_error", "context_length_exceeded"),
    ErrorClass.CONTENT_POLICY: ("invalid_request_error", "content_policy_violation"),
    ErrorClass.BAD_REQUEST: ("invalid_request_error", None),
}
"""Class → type and code; everything else is the server's."""

_ANTHROPIC: Final = {
    ErrorClass.RATE_LIMIT: "rate_limit_error",
    ErrorClass.QUOTA: "billing_error",
    ErrorClass.CREDENTIALS: "authentication_error",
    ErrorClass.FORBIDDEN: "permission_error",
    ErrorClass.NOT_FOUND: "not_found_error",
    ErrorClass.OVERLOADED: "overloaded_error",
    ErrorClass.TRANSIENT: "api_error",
    ErrorClass.UNKNOWN: "api_error",
}
"""Class → type; everything else is the request's fault."""


def failure(kind: Kind, failed: Failure, status: int, *, array: bool = False) -> bytes:
    """Return the body by which a provider of this kind would tell a failure."""
    message = failed.reason
    body: Any
    if kind is Kind.OPENAI:
        type_, code = _OPENAI.get(failed.kind, ("server_error", failed.kind.value))
        body = {"error": {"message": message, "type": type_, "param": None, "code": code}}
    elif kind is Kind.ANTHROPIC:
        type_ = _ANTHROPIC.get(failed.kind, "invalid_request_error")
        body = {"type": "error", "error": {"type": type_, "message": message}}
    else:
        shape = refusals.shape(kind, refusals.Refusal("", message, status))["error"]
        told = {name: shape[name] for name in ("code", "message", "status")}
        body = [{"error": told}] if array else {"error": told}
    return fields.encode(body)
