"""Reading usage and pricing it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from genai_prices import Usage as PeerUsage
from genai_prices import calc_price

from midwatch.sdk import prices
from midwatch.sdk.calls import BodyReader, Call, read_usage
from midwatch.sdk.runtime import Runtime
from midwatch.sdk.testing import MemoryTransport

CHAT = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}
RESPONSE = {"input_tokens": 10, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 4}}
CLAUDE = {
    "input_tokens": 4,
    "output_tokens": 5,
    "cache_read_input_tokens": 4,
    "cache_creation_input_tokens": 2,
}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (CHAT, (10, 5, 4, 0)),
        (SimpleNamespace(**CHAT), (10, 5, 4, 0)),
        ({"prompt_tokens": 7, "total_tokens": 7}, (7, 0, 0, 0)),
        (RESPONSE, (10, 5, 4, 0)),
        (CLAUDE, (10, 5, 4, 2)),
        ({"output_tokens": 5}, (0, 5, 0, 0)),
        ({**CHAT, "prompt_tokens_details": None}, (10, 5, 0, 0)),
        ({"prompt_tokens": -1}, None),
        ({"tokens": 3}, None),
        ({}, None),
        (None, None),
        ("usage", None),
    ],
)
def test_usage_of_every_api_is_read_into_one_shape(usage: Any, expected: Any) -> None:
    read = read_usage(usage)
    got = read and (
        read.input_tokens,
        read.output_tokens,
        read.cached_tokens,
        read.cache_write_tokens,
    )
    assert got == expected


def call() -> Call:
    return Call(Runtime("a", "r", MemoryTransport(), None, traces=False), "openai", "chat", "m")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_usage_is_found_in_a_stream_however_it_is_cut(size: int) -> None:
    one = call()
    reader = BodyReader(one, "text/event-stream; charset=utf-8")
    lines = [
        {"choices": [{"delta": {"content": 'no "usage": here\n'}}], "usage": None},
        {"usage": CHAT, "model": "served", "id": "c-1"},
    ]
    body = b"".join(b"data: " + json.dumps(line).encode() + b"\r\n\r\n" for line in lines)
    body += b"data: [DONE]"
    for start in range(0, len(body), size):
        reader.feed(body[start : start + size])
    reader.end()
    assert one.usage is not None
    assert one.usage.input_tokens == 10
    assert one.seen == {"model": "served", "id": "c-1"}


def test_a_body_that_is_not_json_is_let_pass() -> None:
    for kind in ("application/json", "text/event-stream", "audio/mpeg"):
        one = call()
        reader = BodyReader(one, kind)
        reader.feed(b'data: {"usage": \xff\n\n"usage"')
        reader.end()
        assert one.usage is None


@pytest.mark.parametrize(
    "name",
    [
        "gpt-4o-mini",
        "openai/gpt-4o-mini",
        "gpt-4o-mini-2024-07-18",
        "GPT-4o-mini",
    ],
)
def test_a_model_is_found_with_provider_and_date(name: str) -> None:
    assert prices.find(name) is prices.TABLE["gpt-4o-mini"]


def test_names_of_the_same_model_cost_the_same() -> None:
    for name in ("claude-sonnet-4-20250514", "claude-sonnet-4@20250514", "claude-sonnet-4"):
        assert prices.find(name) is prices.TABLE["claude-sonnet-4-0"]
    assert prices.find("claude-3-5-haiku-latest") is prices.TABLE["claude-3-5-haiku"]


@pytest.mark.parametrize("name", ["", "qwen3", "gpt-4o-mini-realtime", "gpt-99", "/"])
def test_a_model_that_is_not_known_has_no_price(name: str) -> None:
    assert prices.cost_usd(name, 10, 10, 0, 0) is None


@pytest.mark.parametrize("tokens", [(1_000, 200, 300), (500_000, 200, 300_000)])
@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-4o-mini", "openai"),
        ("gpt-4.1", "openai"),
        ("gpt-5.4", "openai"),
        ("o3", "openai"),
        ("claude-haiku-4-5", "anthropic"),
        ("claude-opus-4-5", "anthropic"),
    ],
)
def test_costs_agree_with_the_source_of_the_table(
    model: str, provider: str, tokens: tuple[int, int, int]
) -> None:
    given, output, cached = tokens
    peer = calc_price(
        PeerUsage(input_tokens=given, output_tokens=output, cache_read_tokens=cached),
        model_ref=model,
        provider_id=provider,
    )
    ours = prices.cost_usd(model, given, output, cached, 0)
    assert ours == pytest.approx(float(peer.total_price))
