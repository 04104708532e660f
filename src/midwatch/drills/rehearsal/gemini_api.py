"""The Gemini dialect: its answers, streams, errors and models rendered.

A stream repeats usage in each of its pieces, as far as it is known, and ends with a piece that has a
finish reason; there is no sentinel. Without `alt=sse` it is one JSON array, piece by piece.
Source: ai.google.dev/api/generate-content, as the google-genai client reads it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Final

from midwatch.drills.rehearsal import refusals
from midwatch.drills.rehearsal.question import BadQuestion, Json, Question
from midwatch.drills.rehearsal.refusals import Refused
from midwatch.drills.rehearsal.rendering import Event, Rendering, pieces
from midwatch.drills.rehearsal.tokens import Block, Usage, so_far

MODELS: Final = {
    "gemini-2.5-flash": "Gemini 2.5 Flash",
    "gemini-2.5-flash-lite": "Gemini 2.5 Flash-Lite",
    "gemini-2.5-pro": "Gemini 2.5 Pro",
    "gemini-3-pro-preview": "Gemini 3 Pro Preview",
}


def whole(r: Rendering) -> Json:
    """Return the body of an answer that is not streamed."""
    return _frame(r, _parts(r), _finish(r), r.usage)


def blocked(r: Rendering) -> Json:
    """Return the body by which the prompt itself is blocked: no candidate at all."""
    body = _frame(r, [], None, r.usage)
    del body["candidates"]
    return {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, **body}


def events(r: Rendering) -> Iterator[Event]:
    """Yield the pieces of a streamed answer: server-sent events, or the elements of an array."""
    said, total = 0, sum(len(text) for _, text in _pieces(r))
    first = True
    for part, text in _pieces(r):
        said += len(text)
        body = _frame(r, [part], None, so_far(r.usage, said, total))
        yield Event(framed(r.question, body, first=first), text)
        first = False
    last = _frame(r, [{"text": ""}], _finish(r), r.usage)
    yield Event(framed(r.question, last, first=first))
    if r.question.as_array:
        yield Event(b"\n]")


def _pieces(r: Rendering) -> Iterator[tuple[Json, str]]:
    """Yield each streamed part with what it says of the answer; thoughts and signatures say nothing."""
    for part in _parts(r):
        if part.get("thought"):
            for piece in pieces(r.thoughts):
                yield {"text": piece, "thought": True}, ""
        elif "text" in part:
            for piece in pieces(r.text):
                yield {"text": piece}, piece
        else:
            yield part, json.dumps(part["functionCall"], ensure_ascii=False)


def _parts(r: Rendering) -> list[Json]:
    parts: list[Json] = []
    if r.thoughts:
        parts.append({"text": r.thoughts, "thought": True})
    if r.text:
        parts.append({"text": r.text})
    if r.malformed:
        return parts
    for index, call in enumerate(r.calls):
        one: Json = {"name": call.tool, "args": call.args, "id": f"call_{r.token}{index}"}
        part: Json = {"functionCall": one}
        if r.usage.reasoning and not index:
            part["thoughtSignature"] = base64.b64encode(f"rehearsal:{r.token}".encode()).decode()
        parts.append(part)
    return parts


def _finish(r: Rendering) -> str:
    if r.malformed and r.calls:
        return "MALFORMED_FUNCTION_CALL"
    return {"length": "MAX_TOKENS", "filter": "SAFETY"}.get(r.finish, "STOP")


def _frame(r: Rendering, parts: list[Json], finish: str | None, usage: Usage) -> Json:
    candidate: Json = {"content": {"parts": parts, "role": "model"}}
    if finish is not None:
        candidate["finishReason"] = finish
    candidate["index"] = 0
    return {
        "candidates": [candidate],
        "usageMetadata": _usage(usage),
        "modelVersion": r.model,
        "responseId": r.token,
    }


def _usage(usage: Usage) -> Json:
    """Return usage as the provider reports it: thoughts beside candidates, cached within the prompt."""
    body: Json = {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": usage.output - usage.reasoning,
        "totalTokenCount": usage.input + usage.output,
        "promptTokensDetails": _details(usage.input, usage.image, usage.audio),
    }
    if usage.cached:
        body["cachedContentTokenCount"] = usage.cached
        body["cacheTokensDetails"] = [{"modality": "TEXT", "tokenCount": usage.cached}]
    if usage.reasoning:
        body["thoughtsTokenCount"] = usage.reasoning
    return body


def _details(total: int, image: int, audio: int) -> list[Json]:
    counts = (("TEXT", total - image - audio), ("IMAGE", image), ("AUDIO", audio))
    return [{"modality": name, "tokenCount": count} for name, count in counts if count]


def counted(blocks: list[Block]) -> Json:
    """Return the body of countTokens."""
    total = sum(block.tokens() for block in blocks)
    image = sum(block.images * block.per_image for block in blocks)
    return {"totalTokens": total, "promptTokensDetails": _details(total, image, 0)}


def framed(question: Question, body: Json, *, first: bool) -> bytes:
    """Return one piece of a stream as it travels."""
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    if question.as_array:
        return (b"[" if first else b",\r\n") + data
    return b"data: " + data + b"\r\n\r\n"


def stream_error(question: Question, refused: Refused) -> bytes:
    """Return the piece by which a stream reports an error; an array is closed behind it."""
    piece = framed(question, refusals.body(refused, "generate"), first=False)
    return piece + b"]" if question.as_array else piece


def model(name: str, created: int) -> Json:
    """Return one model; this dialect does not say when it was made."""
    del created
    return {
        "name": f"models/{name}",
        "version": "001",
        "displayName": MODELS.get(name, name),
        "description": "A rehearsal of this model.",
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
        "temperature": 1,
        "topP": 0.95,
        "topK": 64,
        "thinking": True,
    }


def models(created: int) -> Json:
    """Return the body of GET /v1beta/models."""
    return {"models": [model(name, created) for name in MODELS]}


def split(path: str) -> tuple[str, str]:
    """Return model and method of a path's end, such as `gemini-2.5-flash:generateContent`.

    The model itself may hold colons. Raises BadQuestion when there is no such method.
    """
    name, colon, method = path.rpartition(":")
    if not colon or not name or method not in METHODS:
        raise BadQuestion(f"{path[:200]!r}: expected a model and one of {METHODS}", None, 404)
    return name, method


METHODS: Final = ("generateContent", "streamGenerateContent", "countTokens")
