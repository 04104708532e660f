"""What a provider says later that one call came to: an amount, tokens, or both.

Understood are OpenRouter's generations (`{"data": {"total_cost": …, "native_tokens_prompt": …}}`) and, of every other
provider, `{"usage": {…}}` as its answers have it and `{"cost_usd": …}`; of figures that are not whole, none.
"""

from __future__ import annotations

from typing import Any, Final

from midwatch.core.calls.ask import Kind
from midwatch.core.pricing import anthropic, gemini, openai
from midwatch.core.pricing.figures import Figures, members
from midwatch.core.pricing.usage import Doubt, Usage
from midwatch.core.sealed import sealed

_NATIVE: Final = ("native_tokens_prompt", "native_tokens_completion")


@sealed
class Bill:
    """What one call came to. At least one of both is told."""

    usage: Usage | None
    cost_nusd: int | None


def read(kind: Kind, answer: object) -> Bill | None:
    """Return the bill in a provider's answer; None when it does not say the whole."""
    body = members(answer)
    told = Figures(members(body.get("data")) or body)
    usage = _usage(kind, told)
    cost = told.nusd("total_cost")
    if cost is None:
        cost = told.nusd("cost_usd")
    if cost is not None and told.data.get("is_byok") is True:
        inference = told.nusd("upstream_inference_cost")
        cost = None if inference is None else cost + inference  # the fee alone is not what it cost
    if cost is None and usage is not None:
        cost = usage.reported_nusd
    if usage is not None and Doubt.INCOMPLETE in usage.doubts:
        usage = None
    return None if cost is None and usage is None else Bill(usage, cost)


def _usage(kind: Kind, told: Figures) -> Usage | None:
    given = members(told.data.get("usage"))
    if given:
        if kind is Kind.ANTHROPIC:
            return anthropic.usage_of(given)
        return gemini.usage_of(given) if kind is Kind.GEMINI else openai.usage_of(given)
    if any(told.told(name) is None for name in _NATIVE):
        return None
    native: dict[str, Any] = {
        "prompt_tokens": told.count("native_tokens_prompt"),
        "completion_tokens": told.count("native_tokens_completion"),
        "prompt_tokens_details": {"cached_tokens": told.count("native_tokens_cached")},
        "completion_tokens_details": {"reasoning_tokens": told.count("native_tokens_reasoning")},
    }
    return openai.usage_of(native)
