"""Prices that a person wrote: read exactly, refused with what was expected."""

import pytest

from midwatch.core.pricing import cost
from midwatch.core.pricing.names import region, seller
from midwatch.core.pricing.own import parse_fee, parse_rate, read_price, read_prices
from midwatch.core.pricing.usage import Tier, Usage
from midwatch.core.units import Unexpected


@pytest.mark.parametrize(
    ("text", "nusd"),
    [
        ("$0.20/M", 200_000_000),
        ("$2/M", 2_000_000_000),
        ("$ 2.5 / M", 2_500_000_000),
        ("$0.002/k", 2_000_000_000),
        ("$3/MTok", 3_000_000_000),
        ("$0/M", 0),
        ("$0.0000000001/M", 1),
    ],
)
def test_a_rate_is_read_in_nano_dollars_per_million(text: str, nusd: int) -> None:
    assert parse_rate(text) == nusd


@pytest.mark.parametrize(
    "value", ["0.20/M", "$-1/M", "$1", "$1/B", "", None, True, [], "$1e3/M", "$9999999/k"]
)
def test_what_is_no_rate_is_refused(value: object) -> None:
    with pytest.raises(Unexpected):
        parse_rate(value)


def test_a_bare_number_is_refused_with_what_was_probably_meant() -> None:
    with pytest.raises(Unexpected, match=r"did you mean \$0\.2/M\?"):
        parse_rate(0.2)
    with pytest.raises(Unexpected, match=r"did you mean \$0\.20/M\?"):
        parse_rate("$0.20")


def test_a_fee_is_dollars_for_one() -> None:
    assert parse_fee("$0.01") == 10_000_000
    with pytest.raises(Unexpected):
        parse_fee("$0.01/M")


def test_tiers_are_shares_or_prices_of_their_own() -> None:
    price = read_price(
        {
            "input": "$4/M",
            "output": "$8/M",
            "batch": "50%",
            "flex": {"input": "$3/M"},
            "fast": "2x",
        },
        "s",
        "m",
    ).price
    assert price is not None
    costs = {
        tier.value: cost.cost(Usage(input_text=10, output_text=1, tier=tier), price)
        for tier in (Tier.DEFAULT, Tier.BATCH, Tier.FLEX, Tier.FAST, Tier.PRIORITY)
    }
    assert costs == {
        "default": 48_000,
        "batch": 24_000,
        "flex": 38_000,
        "fast": 96_000,
        "priority": 96_000,
    }


def test_bands_hold_above_their_length() -> None:
    price = read_price(
        {"input": "$1/M", "above": {"200k": {"input": "$2/M"}, 1_000_000: {"input": "$3/M"}}},
        "s",
        "m",
    ).price
    assert price is not None
    lengths = [200_000, 200_001, 1_000_000, 1_000_001]
    assert [cost.cost(Usage(input_text=n), price) for n in lengths] == [
        200_000_000,
        400_002_000,
        2_000_000_000,
        3_000_003_000,
    ]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("$1/M", "a price such as"),
        ({}, "at least one of input"),
        ({"inputs": "$1/M"}, "did you mean input?"),
        ({"input": "1"}, "under input"),
        ({"like": "a", "input": "$1/M"}, "like: MODEL alone"),
        ({"like": 3}, "like: MODEL alone"),
        ({"input": "$1/M", "above": {}}, "above: {200k"),
        ({"input": "$1/M", "above": {"many": {"input": "$1/M"}}}, "a number of tokens"),
        ({"input": "$1/M", "batch": "half"}, "a share of the usual price"),
        ({"input": "$1/M", "request": "$1/M"}, "under request"),
    ],
)
def test_a_wrong_entry_is_refused_with_model_and_key(entry: object, said: str) -> None:
    with pytest.raises(Unexpected) as refused:
        read_prices({"my-model": entry}, "fleet file")
    assert said in str(refused.value)
    assert "in the price of my-model" in str(refused.value)


@pytest.mark.parametrize(
    "document", [None, [], "x", {"": {"input": "$1/M"}}, {"x" * 300: {"input": "$1/M"}}]
)
def test_a_document_that_is_none_is_refused(document: object) -> None:
    with pytest.raises(Unexpected):
        read_prices(document, "prices set")


@pytest.mark.parametrize(
    ("name", "url", "price_of", "expected"),
    [
        ("mine", "https://api.groq.com/openai/v1", None, "groq"),
        ("mine", "https://night.openai.azure.com/openai/v1", None, "azure"),
        ("mine", "https://eu.api.openai.com/v1", None, "openai"),
        ("mine", "https://us-central1-aiplatform.googleapis.com/v1", None, "google"),
        ("mine", "https://evil-api.openai.com.example.net/v1", None, "mine"),
        ("openai", "http://127.0.0.1:1234/v1", None, "openai"),
        ("Gemini", "", None, "google"),
        ("mine", "https://api.openai.com/v1", "bedrock", "aws"),
        ("mine", "http://[broken", None, "mine"),
    ],
)
def test_the_seller_is_told_by_price_of_then_address_then_name(
    name: str, url: str, price_of: str | None, expected: str
) -> None:
    assert seller(name, url, price_of) == expected


def test_a_regional_address_is_a_region() -> None:
    assert region("https://eu.api.openai.com/v1") == "eu"
    assert region("https://api.openai.com/v1") == ""
    assert region("http://[broken") == ""
