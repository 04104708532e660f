"""What the OpenAI dialects share: errors, tools, message contents, embeddings, the list of models."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
from typing import Any, Final, NamedTuple

from midwatch.drills.rehearsal import tokens
from midwatch.drills.rehearsal.question import (
    BadQuestion,
    Json,
    Question,
    Tool,
    Turn,
    as_count,
    as_list,
    as_object,
    as_text,
)
from midwatch.drills.rehearsal.rendering import thinking

MODELS: Final = (
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-4.1",
    "gpt-4.1-mini",
    "o4-mini",
    "text-embedding-3-small",
)
DEFAULT_DIMENSIONS: Final = {"text-embedding-3-large": 3072}
MAX_DIMENSIONS: Final = 3072
MAX_INPUTS: Final = 2048
"""Texts in one embeddings request; the provider's own bound."""


class Content(NamedTuple):
    """What a message holds: its text, and how many pictures (or files) and sounds."""

    text: str = ""
    images: int = 0
    sounds: int = 0


def content(value: Any, param: str) -> Content:
    """Read a message's content. Raises BadQuestion."""
    if value is None:
        return Content()
    if isinstance(value, str):
        return Content(value)
    texts: list[str] = []
    images = sounds = 0
    for number, raw in enumerate(as_list(value, param)):
        part = as_object(raw, f"{param}[{number}]")
        kind = part.get("type")
        if kind in {"text", "input_text", "output_text"}:
            texts.append(as_text(part.get("text"), f"{param}[{number}].text"))
        elif kind == "refusal":
            texts.append(as_text(part.get("refusal"), f"{param}[{number}].refusal"))
        elif kind in {"image_url", "input_image", "input_file", "file"}:
            images += 1
        elif kind == "input_audio":
            sounds += 1
        else:
            raise BadQuestion(f"{param}[{number}].type: unknown part {kind!r}", param)
    return Content("\n".join(texts), images, sounds)


def effort_of(body: Json, value: Any) -> int:
    """Return the tokens of reasoning that a request asks for."""
    return thinking(str(body.get("model")), None if value is None else str(value))


def tier_of(body: Json) -> str:
    """Return the service tier in which a request is served; `auto` becomes the default one."""
    asked = body.get("service_tier")
    return "default" if asked in (None, "auto") else str(asked)


def tool(raw: Json, param: str) -> Tool:
    """Read a function's definition."""
    return Tool(
        name=as_text(raw.get("name"), f"{param}.name"),
        description=str(raw.get("description") or ""),
        schema=as_object(raw.get("parameters") or {}, f"{param}.parameters"),
    )


def schema_of(form: Any) -> Json | None:
    """Return the schema that a response format asks for; `{}` for any object, None for free text."""
    if not isinstance(form, dict):
        return None
    form = as_object(form, "format")
    if form.get("type") == "json_object":
        return {}
    if form.get("type") == "json_schema":
        inner = as_object(form.get("json_schema", form), "json_schema")
        return as_object(inner.get("schema") or {}, "json_schema.schema")
    return None


def models(created: int) -> Json:
    """Return the body of GET /v1/models."""
    return {"object": "list", "data": [model(name, created) for name in MODELS]}


def model(name: str, created: int) -> Json:
    """Return one model."""
    return {"id": name, "object": "model", "created": created, "owned_by": "rehearsal"}


def read_embeddings(body: Json) -> Question:
    """Read POST /v1/embeddings; the texts become user turns."""
    value = body.get("input")
    texts = [value] if isinstance(value, str) else as_list(value, "input")
    if texts and all(isinstance(t, int) for t in texts):
        texts = [texts]  # one text, as token numbers
    if not texts or len(texts) > MAX_INPUTS:
        raise BadQuestion(f"input: expected 1 to {MAX_INPUTS} texts, got {len(texts)}", "input")
    size = as_count(body.get("dimensions"), "dimensions")
    if size is not None and size > MAX_DIMENSIONS:
        raise BadQuestion(f"dimensions: at most {MAX_DIMENSIONS}, got {size}", "dimensions")
    turns = tuple(Turn("user", t if isinstance(t, str) else repr(t)) for t in texts)
    return Question("embeddings", as_text(body.get("model"), "model"), turns=turns, raw=body)


def embeddings(question: Question) -> Json:
    """Return the body that answers an embeddings request: texts with words in common lie close."""
    model_name = question.model
    size = question.raw.get("dimensions") or DEFAULT_DIMENSIONS.get(model_name, 1536)
    packed = question.raw.get("encoding_format") == "base64"
    data: list[Json] = []
    for index, turn in enumerate(question.turns):
        vector = embed(turn.text, size)
        value = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() if packed else vector
        data.append({"object": "embedding", "index": index, "embedding": value})
    used = embedded(question).input
    usage = {"prompt_tokens": used, "total_tokens": used}
    return {"object": "list", "data": data, "model": model_name, "usage": usage}


def embedded(question: Question) -> tokens.Usage:
    """Return the usage of an embeddings request."""
    return tokens.Usage(sum(tokens.count(t.text) for t in question.turns))


def embed(text: str, size: int) -> list[float]:
    """Return a unit vector: each word adds its own eight directions."""
    vector = [0.0] * size
    for word in re.findall(r"\w+", text.lower()) or [""]:
        digest = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=32).digest()
        for at in range(0, 32, 4):
            number = int.from_bytes(digest[at : at + 4], "big")
            vector[(number >> 1) % size] += 1.0 if number & 1 else -1.0
    length = math.sqrt(sum(v * v for v in vector)) or 1.0
    return [v / length for v in vector]
