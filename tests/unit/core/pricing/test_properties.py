"""What always holds, whatever a provider says: parts are disjoint, costs add up, nothing raises."""

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.core.pricing import anthropic, cost, gemini, openai
from midwatch.core.pricing.parts import split_input, split_output
from midwatch.core.pricing.price import Price, Table
from midwatch.core.pricing.usage import FEES, MAX_COUNT, TOKENS, Doubt, Part, Tier, Usage, counts

FEW = settings(max_examples=35, deadline=None)
"""Each example is cheap, and there are many properties."""

KEYS = sorted(
    {
        *(
            "usage",
            "prompt_tokens",
            "completion_tokens",
            "total_tokens",
            "input_tokens",
            "output_tokens",
        ),
        *(
            "prompt_tokens_details",
            "cached_tokens",
            "cached_tokens_details",
            "audio_tokens",
            "cost",
        ),
        *(
            "completion_tokens_details",
            "reasoning_tokens",
            "x_groq",
            "choices",
            "service_tier",
            "type",
        ),
        *("cost_in_usd_ticks", "is_byok", "cost_details", "output", "response", "item", "action"),
        *("message", "message_start", "message_delta", "cache_creation", "iterations", "speed"),
        *(
            "cache_creation_input_tokens",
            "cache_read_input_tokens",
            "server_tool_use",
            "inference_geo",
        ),
        *("usageMetadata", "promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount"),
        *("promptTokensDetails", "modality", "tokenCount", "AUDIO", "cachedContentTokenCount"),
        *(
            "candidates",
            "groundingMetadata",
            "webSearchQueries",
            "groundingChunks",
            "totalTokenCount",
        ),
        *("response.output_item.done", "compaction", "advisor_message", "model", "trafficType"),
    }
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.integers(0, 2000),
    st.floats(),
    st.sampled_from(KEYS),
    st.sampled_from(["12", "1e9999", "NaN", "-3", "٣", "us", "flex", ""]),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)
    ),
    max_leaves=12,
)
COUNTS = st.integers(0, 5000)
READERS = (openai, anthropic, gemini)


@FEW
@given(JSON)
def test_no_answer_makes_a_reader_raise(answer: Any) -> None:
    for reader in READERS:
        for shaped in (answer, {"usage": answer}, {"usageMetadata": answer, "output": answer}):
            usage = reader.read(shaped)
            if usage is not None:
                assert Usage.from_json(usage.to_json()) == usage
                assert cost.cost(usage, PRICE) >= 0


@FEW
@given(st.lists(JSON, max_size=5))
def test_no_stream_makes_an_accumulator_raise(events: list[Any]) -> None:
    for reader in READERS:
        stream = reader.Stream()
        for event in events:
            stream.feed(event)
            stream.feed({"type": "message_start", "message": {"usage": event}})
            stream.feed({"type": "message_delta", "usage": event, "usageMetadata": event})
            stream.feed({"type": "response.output_item.done", "item": event, "response": event})
        usage = stream.usage()
        assert usage is None or min(counts(usage)) >= 0


@FEW
@given(*[COUNTS] * 10)
def test_the_parts_of_an_input_add_up_to_it(
    total: int,
    cached: int,
    c_audio: int,
    c_image: int,
    w5: int,
    w1: int,
    w12: int,
    audio: int,
    image: int,
    video: int,
) -> None:
    doubts: set[Doubt] = set()
    parts = split_input(
        total,
        doubts,
        cached=cached,
        cached_audio=c_audio,
        cached_image=c_image,
        writes=(w5, w1, w12),
        audio=audio,
        image=image,
        video=video,
    )
    assert sum(parts.values()) == total
    assert min(parts.values()) >= 0
    read = parts["cache_read"] + parts["cache_read_audio"] + parts["cache_read_image"]
    assert read == min(cached, total)
    if cached + w5 + w1 + w12 > total:
        assert doubts == {Doubt.CLIPPED}


@FEW
@given(*[COUNTS] * 4)
def test_the_parts_of_an_output_add_up_to_it(
    total: int, reasoning: int, audio: int, image: int
) -> None:
    doubts: set[Doubt] = set()
    parts = split_output(total, doubts, reasoning=reasoning, audio=audio, image=image)
    assert sum(parts.values()) == total
    assert min(parts.values()) >= 0
    assert bool(doubts) == (reasoning + audio + image > total)


@FEW
@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_a_consistent_chat_usage_keeps_its_totals(
    fresh: int, cached: int, text: int, thought: int
) -> None:
    usage = openai.read(
        {
            "usage": {
                "prompt_tokens": fresh + cached,
                "completion_tokens": text + thought,
                "total_tokens": fresh + cached + text + thought,
                "prompt_tokens_details": {"cached_tokens": cached},
                "completion_tokens_details": {"reasoning_tokens": thought},
            }
        }
    )
    assert usage == Usage(input_text=fresh, cache_read=cached, output_text=text, reasoning=thought)


@FEW
@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_the_same_call_in_three_dialects_is_the_same_usage(
    fresh: int, cached: int, text: int, thought: int
) -> None:
    chat = openai.read(
        {
            "usage": {
                "prompt_tokens": fresh + cached,
                "completion_tokens": text + thought,
                "prompt_tokens_details": {"cached_tokens": cached},
                "completion_tokens_details": {"reasoning_tokens": thought},
            }
        }
    )
    message = anthropic.read(
        {
            "usage": {
                "input_tokens": fresh,
                "cache_read_input_tokens": cached,
                "output_tokens": text + thought,
                "output_tokens_details": {"thinking_tokens": thought},
            }
        }
    )
    content = gemini.read(
        {
            "usageMetadata": {
                "promptTokenCount": fresh + cached,
                "cachedContentTokenCount": cached,
                "candidatesTokenCount": text,
                "thoughtsTokenCount": thought,
            }
        }
    )
    assert chat == message == content


USAGES = st.builds(Usage, **{part.value: st.integers(0, 10**6) for part in Part})
RATES = st.dictionaries(st.sampled_from(TOKENS), st.integers(0, 10**12), min_size=1).flatmap(
    lambda rates: st.dictionaries(st.sampled_from(FEES), st.integers(0, 10**9)).map(
        lambda fees: {**rates, **fees}
    )
)
PRICES = RATES.map(lambda rates: Price(Table(rates)))
PRICE = Price(Table({Part.INPUT_TEXT: 3_000_000_000, Part.OUTPUT_TEXT: 15_000_000_000}))


@FEW
@given(USAGES, USAGES, PRICES)
def test_costs_add_up_to_the_cost_of_the_sum(a: Usage, b: Usage, price: Price) -> None:
    """Exactly, but for rounding up each of them once."""
    apart = cost.cost(a, price) + cost.cost(b, price)
    assert apart - 1 <= cost.cost(a + b, price) <= apart


@FEW
@given(USAGES, PRICES, st.sampled_from(TOKENS), st.integers(0, 10**6))
def test_more_of_anything_never_costs_less(
    usage: Usage, price: Price, part: Part, more: int
) -> None:
    grown = usage + Usage(**{part.value: more}, requests=0)
    assert cost.cost(grown, price) >= cost.cost(usage, price)


@FEW
@given(USAGES, PRICES)
def test_the_lines_of_a_bill_add_up_to_it(usage: Usage, price: Price) -> None:
    assert sum(line.nusd for line in cost.lines(usage, price)) == cost.cost(usage, price)


@FEW
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**9), st.integers(0, 10**9))
def test_the_cost_is_the_exact_sum_rounded_up(
    count: int, out: int, rate: int, out_rate: int
) -> None:
    price = Price(Table({Part.INPUT_TEXT: rate, Part.OUTPUT_TEXT: out_rate}))
    exact = Fraction(count * rate + out * out_rate, 10**6)
    assert cost.cost(Usage(input_text=count, output_text=out), price) == math.ceil(exact)


@FEW
@given(
    st.integers(0, 10**6),
    PRICES,
    st.sampled_from([Tier.FLEX, Tier.PRIORITY, Tier.OTHER, Tier.FAST]),
)
def test_a_tier_that_no_list_knows_never_costs_less_than_the_usual_one(
    count: int, price: Price, tier: Tier
) -> None:
    usual = cost.cost(Usage(input_text=count, output_text=count), price)
    assert cost.cost(Usage(input_text=count, output_text=count, tier=tier), price) >= usual


@FEW
@given(
    st.integers(1, 10**6), st.integers(0, 10**6), PRICES, st.sampled_from(["", "5m", "1h", "12h"])
)
def test_the_worst_case_bounds_plain_calls(
    length: int, longest: int, price: Price, writes: str
) -> None:
    worst = cost.worst_case(price, length, longest, writes=writes)
    for part in (Part.INPUT_TEXT, Part.CACHE_READ):
        for out in (Part.OUTPUT_TEXT, Part.REASONING):
            assert cost.cost(Usage(**{part.value: length, out.value: longest}), price) <= worst


@FEW
@given(USAGES, USAGES, USAGES)
def test_adding_usages_is_associative_and_counts_everything_once(
    a: Usage, b: Usage, c: Usage
) -> None:
    assert (a + b) + c == a + (b + c)
    assert (a + b).total_tokens == a.total_tokens + b.total_tokens


def test_negative_and_absurd_counts_are_no_usage() -> None:
    for count in (-1, MAX_COUNT + 1):
        with pytest.raises(ValueError, match="expected counts from 0"):
            Usage(input_text=count)


def test_sums_of_different_tiers_and_half_reported_costs_say_so() -> None:
    flex = Usage(input_text=1, tier=Tier.FLEX, reported_nusd=5)
    summed = flex + Usage(input_text=2, estimated=True)
    assert (summed.tier, summed.reported_nusd, summed.estimated) == (Tier.OTHER, None, True)
    assert (flex + flex).reported_nusd == 10


@pytest.mark.parametrize(
    "stored", [None, [], {}, {"v": "1"}, {"v": 1, "input_text": -3}, {"v": 1, "input_text": "3"}]
)
def test_a_stored_form_that_was_never_written_is_refused(stored: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        Usage.from_json(stored)


def test_a_stored_form_of_a_newer_version_is_read_as_far_as_it_is_known() -> None:
    stored = {"v": 2, "input_text": 3, "tier": "warp", "doubts": ["new"], "smell": 7}
    assert Usage.from_json(stored) == Usage(input_text=3, tier=Tier.OTHER)


def test_many_calls_within_a_call_are_bounded_and_none_is_lost() -> None:
    entries = [{"type": "compaction", "input_tokens": 1, "output_tokens": 2}] * 500
    usage = anthropic.read(
        {"usage": {"input_tokens": 1, "output_tokens": 1, "iterations": entries}}
    )
    assert usage is not None
    assert len(usage.aside) == 32
    assert sum(inner.input_tokens for _, inner in usage.aside) == 500
    assert Doubt.ASIDE in usage.doubts
