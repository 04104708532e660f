"""Cached and reasoning tokens, by everybody's convention: one table, figures worked out by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from heard import hear

from midwatch.core.pricing.usage import MAX_COUNT
from midwatch.core.spans import form
from midwatch.core.spans.usage import parts

CHAT = {"gen_ai.operation.name": "chat"}
LLM = {"openinference.span.kind": "LLM"}
VERCEL = {"ai.operationId": "ai.generateText.doGenerate"}


def _openinference(**counts: int) -> dict[str, Any]:
    names = {
        "prompt": "prompt",
        "completion": "completion",
        "total": "total",
        "read": "prompt_details.cache_read",
        "write": "prompt_details.cache_write",
        "thought": "completion_details.reasoning",
    }
    return LLM | {f"llm.token_count.{names[name]}": count for name, count in counts.items()}


def _langfuse(**details: Any) -> dict[str, Any]:
    return {
        "langfuse.observation.type": "generation",
        "langfuse.observation.usage_details": json.dumps(details),
    }


TABLE: list[tuple[str, dict[str, Any], tuple[int | None, ...]]] = [
    (
        "the standard: input holds the caches, output the reasoning",
        CHAT
        | {
            "gen_ai.usage.input_tokens": 1500,
            "gen_ai.usage.cache_read.input_tokens": 1024,
            "gen_ai.usage.cache_creation.input_tokens": 256,
            "gen_ai.usage.output_tokens": 63,
            "gen_ai.usage.reasoning.output_tokens": 23,
        },
        (1500, 1024, 256, 63, 23),
    ),
    (
        "its newest name for what was written",
        CHAT
        | {
            "gen_ai.usage.input_tokens": 1500,
            "gen_ai.usage.cache_write.input_tokens": 256,
            "gen_ai.usage.output_tokens": 63,
        },
        (1500, None, 256, 63, None),
    ),
    (
        "Anthropic's own way under the standard's names: more cached than sent",
        CHAT
        | {
            "gen_ai.system": "anthropic",
            "gen_ai.usage.input_tokens": 220,
            "gen_ai.usage.cache_read_input_tokens": 1024,
            "gen_ai.usage.cache_creation_input_tokens": 256,
            "gen_ai.usage.output_tokens": 63,
        },
        (1500, 1024, 256, 63, None),
    ),
    (
        "the same, where only the total tells it",
        CHAT
        | {
            "gen_ai.usage.input_tokens": 1000,
            "gen_ai.usage.cache_read_input_tokens": 400,
            "gen_ai.usage.output_tokens": 50,
            "gen_ai.usage.total_tokens": 1450,
        },
        (1400, 400, None, 50, None),
    ),
    (
        "nothing tells it: the standard holds",
        CHAT
        | {
            "gen_ai.usage.input_tokens": 1000,
            "gen_ai.usage.cache_read.input_tokens": 400,
            "gen_ai.usage.output_tokens": 50,
        },
        (1000, 400, None, 50, None),
    ),
    (
        "a total that fits nothing is not believed",
        CHAT
        | {
            "gen_ai.usage.input_tokens": 1000,
            "gen_ai.usage.cache_read.input_tokens": 400,
            "gen_ai.usage.output_tokens": 50,
            "gen_ai.usage.total_tokens": 9,
        },
        (1000, 400, None, 50, None),
    ),
    (
        "Gemini's thoughts, left out of the output",
        CHAT
        | {
            "gen_ai.provider.name": "gcp.gemini",
            "gen_ai.usage.input_tokens": 1500,
            "gen_ai.usage.output_tokens": 40,
            "gen_ai.usage.total_tokens": 1563,
        },
        (1500, None, None, 63, 23),
    ),
    (
        "Gemini's thoughts, told beside the output",
        CHAT
        | {
            "gen_ai.provider.name": "gcp.gemini",
            "gen_ai.usage.input_tokens": 1500,
            "gen_ai.usage.output_tokens": 40,
            "gen_ai.usage.reasoning_tokens": 23,
            "gen_ai.usage.total_tokens": 1563,
        },
        (1500, None, None, 63, 23),
    ),
    (
        "more reasoning than output: it stands beside",
        CHAT
        | {
            "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.output_tokens": 5,
            "gen_ai.usage.reasoning_tokens": 20,
        },
        (10, None, None, 25, 20),
    ),
    (
        "OpenInference, caches within",
        _openinference(prompt=1500, completion=63, total=1563, read=1024, write=256, thought=23),
        (1500, 1024, 256, 63, 23),
    ),
    (
        "OpenInference before it counted caches: beside, by the total of the three",
        _openinference(prompt=1000, completion=50, total=1450, read=400),
        (1400, 400, None, 50, None),
    ),
    (
        "OpenInference's older word",
        LLM
        | {
            "llm.token_count.prompt": 1500,
            "llm.token_count.completion": 63,
            "llm.token_count.prompt_details.cache_input": 1024,
        },
        (1500, 1024, None, 63, None),
    ),
    (
        "Vercel 6 says what was fresh",
        VERCEL
        | {
            "ai.model.provider": "anthropic.messages",
            "ai.usage.inputTokens": 1500,
            "ai.usage.inputTokenDetails.noCacheTokens": 220,
            "ai.usage.inputTokenDetails.cacheReadTokens": 1024,
            "ai.usage.inputTokenDetails.cacheWriteTokens": 256,
            "ai.usage.outputTokens": 63,
        },
        (1500, 1024, 256, 63, None),
    ),
    (
        "Vercel 5 leaves Anthropic's caches out of the input",
        VERCEL
        | {
            "ai.model.provider": "anthropic.messages",
            "ai.usage.inputTokens": 1100,
            "ai.usage.cachedInputTokens": 400,
            "ai.usage.outputTokens": 63,
        },
        (1500, 400, None, 63, None),
    ),
    (
        "Vercel 5 has OpenAI's caches within the input",
        VERCEL
        | {
            "ai.model.provider": "openai.responses",
            "ai.usage.inputTokens": 1500,
            "ai.usage.cachedInputTokens": 400,
            "ai.usage.outputTokens": 63,
        },
        (1500, 400, None, 63, None),
    ),
    (
        "Langfuse with OpenAI's own object",
        _langfuse(
            prompt_tokens=1500,
            completion_tokens=63,
            total_tokens=1563,
            prompt_tokens_details={"cached_tokens": 1024},
            completion_tokens_details={"reasoning_tokens": 23},
        ),
        (1500, 1024, None, 63, 23),
    ),
    (
        "Langfuse with Anthropic's own object",
        _langfuse(
            input_tokens=220,
            output_tokens=63,
            cache_read_input_tokens=1024,
            cache_creation_input_tokens=256,
        ),
        (1500, 1024, 256, 63, None),
    ),
    (
        "Langfuse with Anthropic's own object, mostly fresh",
        _langfuse(input_tokens=1100, output_tokens=63, cache_read_input_tokens=400),
        (1500, 400, None, 63, None),
    ),
    (
        "Langfuse's own words: parts beside each other",
        _langfuse(input=1100, input_cached_tokens=400, output=40, output_reasoning_tokens=23),
        (1500, 400, None, 63, 23),
    ),
    (
        "Langfuse's own words with a total that has the caches within",
        _langfuse(input=1500, cache_read_input_tokens=400, output=63, total=1563),
        (1500, 400, None, 63, None),
    ),
    ("Langfuse with no figures", _langfuse(), (None, None, None, None, None)),
    (
        "an agent's sum, as Pydantic AI calls it",
        {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.aggregated_usage.input_tokens": 3100,
            "gen_ai.aggregated_usage.output_tokens": 103,
            "gen_ai.aggregated_usage.cache_read.input_tokens": 2432,
        },
        (3100, 2432, None, 103, None),
    ),
    ("no figures are no figures", CHAT, (None, None, None, None, None)),
    (
        "negative, absurd and broken figures are none",
        CHAT
        | {
            "gen_ai.usage.input_tokens": -1,
            "gen_ai.usage.output_tokens": 10**12,
            "gen_ai.usage.cache_read.input_tokens": 1.5,
            "gen_ai.usage.reasoning.output_tokens": True,
        },
        (None, None, None, None, None),
    ),
]


@pytest.mark.parametrize(
    ("attributes", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_usage_is_brought_under_the_standard(
    attributes: dict[str, Any], expected: tuple[int | None, ...]
) -> None:
    heard = hear(attributes)
    assert heard.usage == expected
    assert heard.is_whole()


@pytest.mark.parametrize(
    ("version", "model", "whole"),
    [
        ("0.1.54", "claude-haiku-4-5", 1400),
        ("0.1.55", "claude-haiku-4-5", 1000),
        ("1.0", "claude-haiku-4-5", 1000),
        ("0.1.54", "gpt-4o", 1000),
        ("unknown", "claude-haiku-4-5", 1000),
        ("", "claude-haiku-4-5", 1000),
    ],
)
def test_an_instrumentation_is_believed_by_its_version(
    version: str, model: str, whole: int
) -> None:
    told = _openinference(prompt=1000, completion=50, read=400) | {"llm.model_name": model}
    scope = "openinference.instrumentation.langchain"
    heard = hear(told, scope=scope, version=version)
    assert heard["input_tokens"] == whole
    assert heard.is_whole()


def test_parts_never_overlap_and_add_up() -> None:
    row = hear(TABLE[0][1]).row
    row[form.CACHE_WRITE_1H_TOKENS] = 100
    usage = parts(row)
    assert usage.to_json() == {
        "v": 1,
        "input_text": 220,
        "cache_read": 1024,
        "cache_write_5m": 156,
        "cache_write_1h": 100,
        "output_text": 40,
        "reasoning": 23,
    }
    assert (usage.input_tokens, usage.output_tokens) == (1500, 63)


def test_sounds_are_told_apart_in_the_usage() -> None:
    heard = hear(
        LLM
        | {
            "llm.token_count.prompt": 100,
            "llm.token_count.prompt_details.audio": 60,
            "llm.token_count.completion": 50,
            "llm.token_count.completion_details.audio": 10,
        }
    )
    assert json.loads(heard["usage"]) == {
        "v": 1,
        "input_text": 40,
        "input_audio": 60,
        "output_text": 40,
        "output_audio": 10,
    }


FIGURE = st.one_of(st.none(), st.integers(0, 5000), st.integers(0, MAX_COUNT))


@given(
    st.fixed_dictionaries(
        {
            "gen_ai.usage.input_tokens": FIGURE,
            "gen_ai.usage.output_tokens": FIGURE,
            "gen_ai.usage.cache_read.input_tokens": FIGURE,
            "gen_ai.usage.cache_write.input_tokens": FIGURE,
            "gen_ai.usage.reasoning.output_tokens": FIGURE,
            "gen_ai.usage.total_tokens": FIGURE,
            "gen_ai.provider.name": st.sampled_from(["openai", "gcp.gemini", "anthropic"]),
        }
    )
)
def test_whatever_is_told_parts_add_up_to_the_whole(told: dict[str, Any]) -> None:
    """And what is settled stays under the limits, holds its parts, and keeps what came."""
    heard = hear(CHAT | {key: value for key, value in told.items() if value is not None})
    given_tokens, cached, written, made, thought = heard.usage
    usage = parts(heard.row)
    assert usage.input_tokens == (given_tokens or 0)
    assert usage.output_tokens == (made or 0)
    if given_tokens is not None and given_tokens < MAX_COUNT:
        assert (cached or 0) + (written or 0) <= given_tokens
    if made is not None and made < MAX_COUNT:
        assert (thought or 0) <= made
    assert heard.is_whole()
