"""Tokens are counted from above: never below what tokenizers are known to make of a text, nor far above."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.core.calls.ask import Kind
from midwatch.gateway.dialects.counting import of_bytes, of_image, of_text

KNOWN = (
    # OpenAI cookbook, "How to count tokens with tiktoken": the most of its four encodings
    ("antidisestablishmentarianism", 6),
    ("2 + 2 = 4", 7),
    ("お誕生日おめでとう", 14),
    ("tiktoken is great!", 6),
)


@pytest.mark.parametrize(("text", "tokens"), KNOWN)
def test_known_counts_are_not_undercut(text: str, tokens: int) -> None:
    assert tokens <= of_text(text) <= 2 * tokens + 6


def test_english_is_counted_between_its_densest_and_half_as_much_again() -> None:
    # 4 to 4.5 characters a token (OpenAI, Google), 3.5 (Anthropic), a third less with its newest tokenizer
    text = (
        "The night watch looks after the engines while everybody else is asleep, and writes down what it sees. "
        * 20
    )
    assert len(text) / 3.5 * 1.33 <= of_text(text) <= len(text) / 4 * 1.7


@pytest.mark.parametrize(
    ("text", "a_character"),
    [
        ("7" * 100, 1.0),  # Anthropic and Google: a digit each
        ("こんにちは世界" * 20, 1.3),
        ("안녕하세요" * 20, 1.3),
        ("Привет, мир и все остальные" * 5, 0.6),
        ("नमस्ते दुनिया" * 10, 2.0),
        ("🎉🚀" * 30, 3.0),
        ("aGVsbG8gd29ybGQhIQ7TqZx3" * 20, 0.7),
        ("9f86d081884c7d659a2feaa0c55ad015" * 10, 0.6),
        ("{\"a\": [1, 2], \"b\": {}}" * 20, 0.5),
        ("\n\t\n\t" * 20, 0.5),
    ],
)  # fmt: skip
def test_dense_text_is_counted_as_dense(text: str, a_character: float) -> None:
    assert of_text(text) >= len(text) * a_character


@settings(max_examples=25)
@given(st.text())
def test_a_token_is_never_less_than_a_byte(text: str) -> None:
    assert 0 <= of_text(text) <= len(text.encode("utf-8", "replace"))


@settings(max_examples=25)
@given(st.text(), st.text())
def test_more_text_is_never_fewer_tokens(first: str, second: str) -> None:
    assert of_text(first + second) >= max(of_text(first), of_text(second)) - 1


def test_nothing_is_nothing() -> None:
    assert of_bytes(b"") == 0


@pytest.mark.parametrize(
    ("kind", "model", "detail", "tokens"),
    [
        (Kind.OPENAI, "gpt-4o", "", 1_445),
        (Kind.OPENAI, "openai/gpt-4o", "low", 85),
        (Kind.OPENAI, "gpt-4o-mini", "low", 2_833),
        (Kind.OPENAI, "gpt-4o-mini", "high", 48_169),
        (Kind.OPENAI, "gpt-4.1-nano", "", 3_779),
        (Kind.OPENAI, "gpt-5", "", 1_190),
        (Kind.OPENAI, "qwen-vl", "", 5_000),
        (Kind.ANTHROPIC, "claude-sonnet-4-5-20250929", "", 1_600),
        (Kind.ANTHROPIC, "claude-opus-4-20250514", "", 1_600),
        (Kind.ANTHROPIC, "claude-3-5-haiku-latest", "", 1_600),
        (Kind.ANTHROPIC, "claude-opus-4-7", "", 4_784),
        (Kind.ANTHROPIC, "claude-opus-4-10", "", 4_784),
        (Kind.ANTHROPIC, "claude-next", "", 4_784),
        (Kind.GEMINI, "gemini-2.5-flash", "", 4_128),
        (Kind.GEMINI, "gemini-3-pro", "", 2_240),
    ],
)
def test_a_picture_counts_what_its_provider_says_at_most(
    kind: Kind, model: str, detail: str, tokens: int
) -> None:
    assert of_image(kind, model, detail) == tokens
