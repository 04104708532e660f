"""What providers say later that a call came to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.calls.ask import Kind
from midwatch.core.calls.bill import Bill, read
from midwatch.core.pricing.usage import Usage

GENERATION: dict[str, Any] = {
    "id": "gen-1", "total_cost": 0.00123, "usage": 0.00123, "cancelled": True, "is_byok": False,
    "tokens_prompt": 9, "tokens_completion": 4, "native_tokens_prompt": 10, "native_tokens_completion": 5,
    "native_tokens_cached": 4, "native_tokens_reasoning": 2,
}  # fmt: skip


def test_a_generation_of_openrouter_is_its_cost_and_the_models_own_tokens() -> None:
    bill = read(Kind.OPENAI, {"data": GENERATION})
    assert bill is not None
    assert bill.cost_nusd == 1_230_000
    assert bill.usage == Usage(input_text=6, cache_read=4, output_text=3, reasoning=2)


def test_with_a_key_of_ones_own_the_fee_alone_is_no_cost() -> None:
    own = {**GENERATION, "is_byok": True, "total_cost": 0.00001}
    bill = read(Kind.OPENAI, {"data": own})
    assert bill is not None
    assert bill.cost_nusd is None
    bill = read(Kind.OPENAI, {"data": {**own, "upstream_inference_cost": 0.002}})
    assert bill is not None
    assert bill.cost_nusd == 2_010_000


@pytest.mark.parametrize(
    ("kind", "usage"),
    [
        (Kind.OPENAI, {"prompt_tokens": 10, "completion_tokens": 5}),
        (Kind.ANTHROPIC, {"input_tokens": 10, "output_tokens": 5}),
        (Kind.GEMINI, {"promptTokenCount": 10, "candidatesTokenCount": 5}),
    ],
)
def test_usage_is_read_in_the_providers_own_words(kind: Kind, usage: dict[str, int]) -> None:
    assert read(kind, {"usage": usage}) == Bill(Usage(input_text=10, output_text=5), None)


@pytest.mark.parametrize(
    ("answer", "cost"),
    [
        ({"usage": None, "cost_usd": 0}, 0),
        ({"cost_usd": "0.000000001"}, 1),
        ({"usage": {"prompt_tokens": 10}}, None),
        ({"usage": {}}, None),
        ({"cost_usd": -1}, None),
        ({"data": []}, None),
        ([], None),
        (None, None),
    ],
)
def test_what_does_not_tell_the_whole_is_no_bill(answer: object, cost: int | None) -> None:
    assert read(Kind.OPENAI, answer) == (None if cost is None else Bill(None, cost))


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["data", "usage", "total_cost", "cost_usd", "is_byok", "prompt_tokens"]
            ),
            inner,
        )
    ),
    max_leaves=8,
)


@given(JSON, st.sampled_from(Kind))
def test_whatever_a_provider_answers_is_a_bill_or_none(answer: object, kind: Kind) -> None:
    bill = read(kind, answer)
    assert bill is None or bill.usage is not None or (bill.cost_nusd or 0) >= 0
