"""Langfuse's SDK: observations with a type; usage as one JSON object whose keys vary by who filled it.

A provider's own object is read as that provider's. In Langfuse's own words `input` and each `input_…` stand beside
each other, and so do `output` and `output_…`: a total tells where somebody meant it otherwise.
Source: the SDK's attribute names, Langfuse's pages on token usage; recording in tests/emitters.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from midwatch.core.pricing.usage import MAX_COUNT
from midwatch.core.spans import form
from midwatch.core.spans.family import Family, column, content, over
from midwatch.core.spans.form import ContentKind, Role, Row
from midwatch.core.spans.reading import (
    AUDIO_IN,
    AUDIO_OUT,
    DETAILS,
    FIRST_AT,
    HINT,
    MAX_WAIT_NS,
    REPORTED,
    TOTAL,
    WORD,
    dollars,
    label,
    loaded,
    members,
    name_of,
    text,
    tokens,
)
from midwatch.core.spans.standard import STANDARD, report_cost, role_of
from midwatch.core.spans.usage import settle
from midwatch.core.spans.values import Value

_ROLES: Final = {
    "generation": Role.CALL,
    "agent": Role.AGENT,
    "tool": Role.TOOL,
    "chain": Role.CHAIN,
    "span": Role.CHAIN,
    "retriever": Role.RETRIEVAL,
    "evaluator": Role.EVALUATION,
    "guardrail": Role.GUARD,
    "embedding": Role.EMBEDDING,
    "event": Role.OTHER,
}

_CACHED: Final = (
    "cache_read_input_tokens",
    "input_cached_tokens",
    "input_cache_read",
    "input_cached",
    "cached_tokens",
)
_WRITTEN: Final = ("cache_creation_input_tokens", "input_cache_creation", "input_cache_write")
_THOUGHT: Final = ("output_reasoning_tokens", "output_reasoning", "reasoning_tokens")


def _complete(row: Row) -> None:
    role = _ROLES.get(row[WORD] or "")
    if role is None:
        role = role_of(row)
    if role is Role.AGENT and row[form.AGENT_NAME] is None:
        row[form.AGENT_NAME] = label(row[form.NAME])
    elif role is Role.TOOL and row[form.TOOL] is None:
        row[form.TOOL] = label(row[form.NAME])
    beside = row[DETAILS] is not None and _read_usage(row, members(loaded(row[DETAILS])))
    if row[HINT] is not None:
        row[REPORTED] = dollars(members(loaded(row[HINT])).get("total"))
    if row[FIRST_AT] is not None and row[form.FIRST_TOKEN_NS] is None:
        row[form.FIRST_TOKEN_NS] = _since(row[form.START_NS], row[FIRST_AT])
    settle(row, beside=beside)
    report_cost(row)
    row[form.ROLE] = role.value


def _read_usage(row: Row, details: Mapping[str, Any]) -> bool:
    """Fill the row's figures. Return whether caches stand beside the input where no total says otherwise."""
    inner = members(details.get("prompt_tokens_details") or details.get("input_tokens_details"))
    outer = members(
        details.get("completion_tokens_details") or details.get("output_tokens_details")
    )
    given = _figure(details, "input", "prompt_tokens", "input_tokens", "promptTokens")
    made = _figure(details, "output", "completion_tokens", "output_tokens", "completionTokens")
    own = "input" in details
    cached = _figure(inner, "cached_tokens")
    row[form.CACHED_TOKENS] = _figure(details, *_CACHED) if cached is None else cached
    row[form.CACHE_WRITE_TOKENS] = _figure(details, *_WRITTEN)
    thought = _figure(outer, "reasoning_tokens")
    row[form.REASONING_TOKENS] = _figure(details, *_THOUGHT) if thought is None else thought
    row[form.INPUT_TOKENS], row[form.OUTPUT_TOKENS] = given, made
    row[TOTAL] = _figure(details, "total", "total_tokens", "totalTokens")
    row[AUDIO_IN], row[AUDIO_OUT] = _figure(inner, "audio_tokens"), _figure(outer, "audio_tokens")
    if own and row[TOTAL] is None and made is not None:
        # in Langfuse's words the parts stand beside each other, reasoning too
        row[form.OUTPUT_TOKENS] = min(made + (row[form.REASONING_TOKENS] or 0), MAX_COUNT)
    # Anthropic's own object says `input_tokens` and means what is fresh
    return own or "cache_read_input_tokens" in details


def _figure(source: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        found = tokens(source.get(name))
        if found is not None:
            return found
    return None


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _moment(value: Value) -> int | None:
    """Return a written time (the SDK puts it into JSON quotes) in nanoseconds since 1970; without a zone it is UTC."""
    if not isinstance(value, str) or not 10 <= len(value) <= 40:
        return None
    try:
        moment = datetime.fromisoformat(value.strip('"'))
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    except (ValueError, OverflowError):
        return None


def _since(start_ns: int | None, moment_ns: int) -> int | None:
    if start_ns is None:
        return None
    waited = moment_ns - start_ns
    return waited if 0 <= waited <= MAX_WAIT_NS else None


_OWN: Final = {
    "langfuse.observation.type": column(WORD, label),
    "langfuse.observation.model.name": column(form.MODEL, label, gives_back=True),
    "langfuse.observation.usage_details": column(DETAILS, text),
    "langfuse.observation.cost_details": column(HINT, text),
    "langfuse.observation.completion_start_time": column(FIRST_AT, _moment),
    "langfuse.session.id": column(form.SESSION, name_of),
    "langfuse.user.id": column(form.USER, name_of),
    "session.id": column(form.SESSION, name_of, gives_back=True),
    "langfuse.observation.input": content(ContentKind.INPUT),
    "langfuse.observation.output": content(ContentKind.OUTPUT),
    "langfuse.trace.input": content(ContentKind.INPUT),
    "langfuse.trace.output": content(ContentKind.OUTPUT),
}

dialect = Family(
    "langfuse",
    over(
        _OWN,
        STANDARD,
        (
            form.AGENT_NAME,
            form.TOOL,
            form.INPUT_TOKENS,
            form.OUTPUT_TOKENS,
            form.CACHED_TOKENS,
            form.CACHE_WRITE_TOKENS,
            form.REASONING_TOKENS,
        ),
    ),
    scopes=("langfuse-sdk",),
    marks=frozenset({"langfuse.observation.type"}),
    tags=("langfuse.trace.metadata.",),
    complete=_complete,
)
