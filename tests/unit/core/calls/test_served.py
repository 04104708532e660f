"""Which names mean the same model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.calls.served import bare, same


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("gpt-4o-mini", "gpt-4o-mini-2024-07-18"),
        ("gpt-4", "gpt-4-0613"),
        ("claude-haiku-4-5", "claude-haiku-4-5-20251001"),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022"),
        ("gemini-2.5-flash", "models/gemini-2.5-flash"),
        ("gemini-1.5-pro", "gemini-1.5-pro-002"),
        ("qwen3", "qwen3:latest"),
        ("meta-llama/llama-3.3-70b", "llama-3.3-70b"),
        ("GPT-4o", "gpt-4o"),
        ("gpt-4o", ""),
        ("gemini-2.5-flash-preview-09-2025", "gemini-2.5-flash-preview-09-2025"),
    ],
)
def test_names_of_the_same_model(asked: str, served: str) -> None:
    assert same(asked, served)
    assert not served or same(served, asked)


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("gpt-4o", "gpt-4o-mini-2024-07-18"),
        ("claude-opus-4-5-thinking", "claude-opus-4-5"),
        ("claude-opus-4-5", "claude-sonnet-4-5"),
        ("claude-opus-4-5", "claude-opus-4-1"),
        ("o3", "o3-mini"),
        ("gemini-2.5-pro", "gemini-2.5-flash"),
        ("llama3:8b", "llama3:70b"),
    ],
)
def test_names_of_another_model(asked: str, served: str) -> None:
    assert not same(asked, served)


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_names_can_be_compared_both_ways(one: str, other: str) -> None:
    assert same(one, one)
    assert bare(bare(one)) == bare(one)
    if one and other:
        assert same(one, other) == same(other, one)
