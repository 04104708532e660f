"""How single values are read: each reader returns what a column holds, or None for what it cannot be.

Beyond the columns of a span a row has a few places of scratch while it is understood (`SCRATCH` and up): what only
the `finish` of a dialect looks at. They are gone when the row leaves `understanding`.
"""

from __future__ import annotations

import json
from typing import Any, Final, cast

from midwatch.core.pricing.names import canonical
from midwatch.core.pricing.usage import MAX_COUNT
from midwatch.core.spans.columns import SPAN_COLUMNS
from midwatch.core.spans.limits import MAX_LABEL
from midwatch.core.spans.values import Value
from midwatch.wire.limits import MAX_COST_USD, NUSD_PER_USD

SCRATCH: Final = len(SPAN_COLUMNS)
(
    WORD,  # what kind of span the dialect says it is
    TOTAL,  # all tokens, as the emitter adds them up
    FRESH,  # input that no cache had to do with
    AUDIO_IN,
    AUDIO_OUT,
    IMAGE_IN,
    DETAILS,  # usage as one JSON object
    PENDING,  # Logfire's span type
    PENDING_PARENT,
    HINT,  # whatever else tells what a span is
    RAW,  # the answer as it came, where its id is only in there
    FIRST_AT,  # when the first token came, nanoseconds since 1970
    REPORTED,  # money, in dollars
) = range(SCRATCH, SCRATCH + 13)
ROOM: Final = [None] * 13
"""What a row is extended with while it is understood."""

MAX_DETAILS: Final = 16_384
"""Characters of a JSON object that is looked into for figures; a longer one is no usage."""

MAX_WAIT_NS: Final = 7 * 86_400 * 10**9
"""A week: no first token takes longer."""

MAX_COST_NUSD: Final = round(MAX_COST_USD * NUSD_PER_USD)


def label(value: Value) -> str | None:
    """Return text that is counted by: what is longer than MAX_LABEL is clipped, what no store takes is replaced."""
    if not isinstance(value, str) or not value:
        return None
    if len(value) > MAX_LABEL:
        value = value[:MAX_LABEL]
    if value.isascii():
        return value if "\0" not in value else value.replace("\0", "?")
    return value.encode(errors="replace").decode().replace("\0", "?")


def name_of(value: Value) -> str | None:
    """Return an id or a name that some send as a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)[:MAX_LABEL]
    return label(value)


def text(value: Value) -> str | None:
    """Return any text as it is: for scratch alone, which no store sees."""
    return value if isinstance(value, str) and value else None


def tokens(value: Value) -> int | None:
    """Return a count of tokens. Some senders write them as text or as floats."""
    if type(value) is int:
        return value if 0 <= value <= MAX_COUNT else None
    if isinstance(value, float):
        return int(value) if value.is_integer() and 0 <= value <= MAX_COUNT else None
    if isinstance(value, str) and len(value) <= 10 and value.isascii() and value.isdigit():
        return int(value)
    return None


def whole_nusd(value: Value) -> int | None:
    """Return nano-dollars."""
    if type(value) is int and 0 <= value <= MAX_COST_NUSD:
        return value
    return None


def dollars(value: Value) -> int | None:
    """Return dollars as nano-dollars."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value <= MAX_COST_USD:
        return None
    return round(value * NUSD_PER_USD)


def flag(value: Value) -> bool | None:
    """Return a truth value."""
    return value if isinstance(value, bool) else None


def seconds(value: Value) -> int | None:
    """Return seconds as nanoseconds."""
    return _span_of_time(value, 1e9)


def milliseconds(value: Value) -> int | None:
    """Return milliseconds as nanoseconds."""
    return _span_of_time(value, 1e6)


def _span_of_time(value: Value, unit_ns: float) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # a first token that takes a week is a slip of units; NaN is within no bounds
    return round(value * unit_ns) if 0 <= value <= MAX_WAIT_NS / unit_ns else None


_SELLERS: Final = {
    "aws.bedrock": "aws",
    "az.ai.inference": "azure",
    "az.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "mistral_ai": "mistral",
    "x_ai": "x-ai",
    "moonshot": "moonshotai",
    "hugging_face": "huggingface_hub",
    "ibm.watsonx.ai": "watsonx",
}
"""Providers as the conventions and the emitters spell them, where the price list spells them otherwise."""


def seller(value: Value) -> str | None:
    """Return a provider in the spelling of the price list: `openai.chat` (Vercel) and `gcp.gemini` too."""
    if not isinstance(value, str) or not value:
        return None
    known = _SEEN.get(value)
    return known if known is not None else _seller(value)


_SEEN: Final[dict[str, str]] = {
    word: word for word in ("openai", "anthropic", "google", "aws", "azure", "groq", "mistral")
}


def _seller(value: str) -> str | None:
    word = label(value.strip().lower())
    if word is None:
        return None
    if word in _SELLERS:
        return _SELLERS[word]
    if word.startswith("amazon-bedrock"):
        return "aws"
    if word.startswith("azure"):
        return "azure"
    if word.startswith(("gcp.", "google.", "vertex")):
        return "google"
    # Vercel: the provider, and which of its interfaces
    first, dot, _ = word.partition(".")
    if dot and first.isidentifier():
        word = first
    return canonical(_SELLERS.get(word, word))


_FINISHES: Final = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "completed": "stop",
    "finish": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "tool-calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "refusal",
    "content-filter": "refusal",
    "safety": "refusal",
    "refusal": "refusal",
    "prohibited_content": "refusal",
}


def finish(value: Value) -> str | None:
    """Return why an answer ended, of one reason or the first of a list; an unknown one in the sender's word."""
    if isinstance(value, list):
        value = value[0] if value else None
    word = label(value)
    if word is None:
        return None
    if word.startswith("["):
        return finish(loaded(word))
    return _FINISHES.get(word.lower(), word)


def loaded(value: Value) -> Any:
    """Return what a JSON text holds, or None; objects of senders that could send them stay what they are."""
    if not isinstance(value, str):
        return value
    if len(value) > MAX_DETAILS:
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def members(value: object) -> dict[str, Any]:
    """Return an object, or an empty one for whatever is none."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
