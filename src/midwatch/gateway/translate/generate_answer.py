"""Gemini's generateContent: answers and streams, read and written.

Source: ai.google.dev/api/generate-content. Each piece of a stream is an answer of its own; calls of functions
come whole, so that their arguments are kept back until they are.
"""

from __future__ import annotations

from typing import Final

from midwatch.core.pricing.usage import Usage
from midwatch.gateway.dialects.stream import objects
from midwatch.gateway.translate.fields import arguments_of, dump, encode, object_of, within
from midwatch.gateway.translate.form import (
    Argued,
    Call,
    Called,
    CannotTranslate,
    Delta,
    Finish,
    Finished,
    Frame,
    Json,
    Mused,
    Reply,
    Said,
    Text,
    Thought,
    ended,
    joined,
    made,
)
from midwatch.gateway.translate.generate_request import NO_SIGNATURE, camel, signs

_READ: Final = {
    "STOP": Finish.STOP,
    "MAX_TOKENS": Finish.LENGTH,
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "LANGUAGE",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
            "MODEL_ARMOR",
        ),
        Finish.FILTER,
    ),
}
"""MALFORMED_FUNCTION_CALL, UNEXPECTED_TOOL_CALL, OTHER and the like are missing: such an answer is none, and
no other dialect has a word for that but an error."""

_WRITTEN: Final = {
    Finish.STOP: "STOP",
    Finish.SEQUENCE: "STOP",
    Finish.TOOLS: "STOP",
    Finish.LENGTH: "MAX_TOKENS",
    Finish.FILTER: "SAFETY",
}


def _finish(reason: object, blocked: bool) -> Finish:
    if blocked:
        return Finish.FILTER
    found = _READ.get(reason) if isinstance(reason, str) else None
    if found is None:
        raise CannotTranslate("finishReason", f"{str(reason)[:40]!r} is none that others know")
    return found


def _blocked(body: Json) -> bool:
    return bool(within(body, "promptFeedback").get("blockReason"))


class _Parts:
    """Reads the parts of answers, one answer after the other; the calls in them are numbered."""

    def __init__(self) -> None:
        self.calls = 0
        self.reason: object = None
        self.blocked = False

    def read(self, body: Json) -> list[Text | Thought | Call]:
        self.blocked = self.blocked or _blocked(body)
        found: list[Text | Thought | Call] = []
        for candidate in objects(body.get("candidates")):
            if candidate.get("index", 0) != 0:
                continue
            self.reason = candidate.get("finishReason") or self.reason
            for raw in objects(within(candidate, "content").get("parts")):
                part = camel(raw, "parts.")
                if isinstance(part.get("text"), str):
                    found.append((Thought if part.get("thought") is True else Text)(part["text"]))
                elif "functionCall" in part:
                    found.append(self._call(object_of(part["functionCall"], "functionCall"), body))
                elif set(part) - {"thoughtSignature", "thought"}:
                    raise CannotTranslate(
                        f"parts.{min(part)}", "only text and calls are translated"
                    )
        return found

    def _call(self, call: Json, body: Json) -> Call:
        name = call.get("name")
        if not isinstance(name, str) or not name or "partialArgs" in call:
            raise CannotTranslate("functionCall", "a call that is not whole")
        # not every answer gives ids, and other dialects need them: the same answer makes the same ones
        identity = str(call.get("id") or made(body.get("responseId"), self.calls, name))
        self.calls += 1
        return Call(identity, name, object_of(call.get("args") or {}, "functionCall.args"))

    def end(self) -> Finish:
        return ended(_finish(self.reason, self.blocked), called=self.calls > 0)


def read(body: Json) -> Reply:
    """Return what an answer says. Raises CannotTranslate."""
    reading = _Parts()
    parts = reading.read(body)
    identity, model = str(body.get("responseId") or ""), str(body.get("modelVersion") or "")
    return Reply(joined(parts), reading.end(), identity, model)


class Reader:
    """Reads a stream: pieces in, deltas out."""

    def __init__(self) -> None:
        self._parts = _Parts()

    def read(self, piece: Json) -> list[Delta]:
        """Return what a piece says. Raises CannotTranslate."""
        found: list[Delta] = []
        number = self._parts.calls
        for part in self._parts.read(piece):
            if isinstance(part, Call):
                found += [Called(number, part.id, part.name), Argued(number, dump(part.arguments))]
                number += 1
            elif part.text:
                found.append((Said if isinstance(part, Text) else Mused)(part.text))
        return found

    def end(self) -> Finished:
        """Return why the stream ended, which it did well. Raises CannotTranslate."""
        return Finished(self._parts.end())


# -- writing -----------------------------------------------------------------------------------


def usage(used: Usage) -> Json:
    """Return usage as this dialect tells it: thoughts beside the candidates, cached within the prompt."""
    told: Json = {
        "promptTokenCount": used.input_tokens,
        "candidatesTokenCount": used.output_tokens - used.reasoning,
        "totalTokenCount": used.input_tokens + used.output_tokens,
    }
    if used.cached_tokens:
        told["cachedContentTokenCount"] = used.cached_tokens
    if used.reasoning:
        told["thoughtsTokenCount"] = used.reasoning
    return told


def _body(
    parts: list[Json], finish: Finish | None, used: Usage | None, identity: str, model: str
) -> Json:
    candidate: Json = {"content": {"parts": parts, "role": "model"}}
    if finish is not None:
        candidate["finishReason"] = _WRITTEN[finish]
    candidate["index"] = 0
    body: Json = {"candidates": [candidate]}
    if used is not None:
        body["usageMetadata"] = usage(used)
    return {**body, "modelVersion": model, "responseId": identity}


def _write_call(call: Call, *, sign: bool) -> Json:
    written: Json = {"functionCall": {"id": call.id, "name": call.name, "args": call.arguments}}
    return {**written, "thoughtSignature": NO_SIGNATURE} if sign else written


def write(reply: Reply, used: Usage | None, frame: Frame) -> Json:
    """Return the body of a whole answer."""
    parts: list[Json] = []
    sign = signs(frame.asked)
    for part in reply.parts:
        if isinstance(part, Text):
            parts.append({"text": part.text})
        elif isinstance(part, Thought):
            parts.append({"text": part.text, "thought": True})
        else:
            parts.append(_write_call(part, sign=sign))
            sign = False
    return _body(parts, reply.finish, used, reply.id or frame.id, reply.model or frame.model)


class Writer:
    """Writes a stream, as server-sent events or as one array."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._identity = frame.id
        self._model = frame.model
        self._call: Called | None = None
        """The call whose arguments are gathered."""
        self._arguments = ""
        self._sign = signs(frame.asked)
        self._opened = False

    def begin(self, identity: str, model: str) -> bytes:
        self._identity = identity or self._frame.id
        self._model = model or self._frame.model
        return b""

    def write(self, delta: Delta) -> bytes:
        """Return the pieces for a delta. Raises CannotTranslate."""
        if isinstance(delta, Argued):
            if self._call is None or self._call.index != delta.index:
                raise CannotTranslate("tool_calls", "calls whose arguments come in turns")
            self._arguments += delta.text
            return b""
        written = self._flush(cut=False)
        if isinstance(delta, Said):
            return written + self._piece([{"text": delta.text}])
        if isinstance(delta, Mused):
            return written + self._piece([{"text": delta.text, "thought": True}])
        if isinstance(delta, Called):
            self._call, self._arguments = delta, ""
        return written

    def end(self, finished: Finished, used: Usage | None) -> bytes:
        written = self._flush(cut=finished.finish is Finish.LENGTH)
        written += self._piece([{"text": ""}], finished.finish, used)
        return written + b"]" if self._frame.array else written

    def _flush(self, *, cut: bool) -> bytes:
        """Return the call that is whole now; none when its arguments were cut."""
        call = self._call
        if call is None:
            return b""
        self._call = None
        try:
            given = arguments_of(self._arguments, "tool_calls.function.arguments")
        except CannotTranslate:
            if cut:
                return b""
            raise
        sign, self._sign = self._sign, False
        return self._piece([_write_call(Call(call.id, call.name, given), sign=sign)])

    def _piece(
        self, parts: list[Json], finish: Finish | None = None, used: Usage | None = None
    ) -> bytes:
        data = encode(_body(parts, finish, used, self._identity, self._model))
        if not self._frame.array:
            return b"data: " + data + b"\r\n\r\n"
        opened, self._opened = self._opened, True
        return (b",\r\n" if opened else b"[") + data
