"""The bundled lists: what they say is what their sources say, and each name finds its model."""

import json
import pkgutil
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from midwatch.core.pricing import cost
from midwatch.core.pricing.book import FILES, Book, bundled, read
from midwatch.core.pricing.usage import Tier, Usage

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize("name", FILES)
def test_a_list_that_is_read_line_by_line_says_what_its_file_says(name: str) -> None:
    data = pkgutil.get_data("midwatch.core.pricing", name)
    assert data is not None
    whole, found = json.loads(data), read(data)
    assert {key: value for key, value in found.items() if isinstance(value, str)} == {
        key: value for key, value in whole.items() if isinstance(value, str)
    }
    assert list(found) == list(whole)
    assert list(found["prices"]) == whole["prices"]
    assert list(found["entries"]) == whole["entries"]
    assert dict(found["sellers"]) == whole["sellers"]


def test_prices_of_the_first_list_equal_what_its_own_package_reckons() -> None:
    from importlib.metadata import version

    import genai_prices
    from genai_prices.data import providers

    book = bundled()[0]
    if book.source != f"genai-prices {version('genai-prices')}":
        pytest.skip("another version is installed; tools/prices.py takes it over")
    checked = 0
    for provider in providers:
        for model in provider.models[::7]:
            price = model.get_prices(AT)
            if price.input_mtok is None or price.output_mtok is None:
                continue
            listing = book.find(provider.id, model.id)
            if listing is None or listing.name != model.id:
                continue
            usage = Usage(input_text=300_001, cache_read=10_007, output_text=5003)
            theirs = model.calc_price(
                genai_prices.Usage(
                    input_tokens=310_008, cache_read_tokens=10_007, output_tokens=5003
                ),
                provider,
                genai_request_timestamp=AT,
            )
            ours = cost.cost(usage, listing.at(AT.timestamp()))
            assert abs(ours - theirs.total_price * 1_000_000_000) < 1, (provider.id, model.id)
            checked += 1
    assert checked > 150


@pytest.mark.parametrize(
    ("seller", "model", "name"),
    [
        ("openai", "gpt-4o-mini-2024-07-18", "gpt-4o-mini-2024-07-18"),
        ("openai", "GPT-4o-mini", "gpt-4o-mini"),
        ("openai", "openai/gpt-4o-mini", "gpt-4o-mini"),
        ("openai", "gpt-5.6-sol-20260301", "gpt-5.6-sol"),
        ("anthropic", "claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("anthropic", "claude-opus-4-8-latest", "claude-opus-4-8"),
        ("google", "models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("google", "publishers/google/models/gemini-2.5-flash-001", "gemini-2.5-flash"),
        ("azure", "gpt-4o", "gpt-4o"),
        (
            "aws",
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        ("openai", "ft:gpt-4o-mini-2024-07-18:acme:night:id1", "ft:gpt-4o-mini-2024-07-18"),
        ("somebody", "claude-haiku-4-5", "claude-haiku-4-5"),
    ],
)
def test_a_model_is_found_under_its_other_names(seller: str, model: str, name: str) -> None:
    listing = bundled()[1].find(seller, model)
    assert listing is not None
    assert listing.name == name


@pytest.mark.parametrize(
    "model",
    [
        "",
        "qwen3",
        "ft:some-model:acme",
        "x" * 10_000,
        "/" * 5000,
        "gpt\n4o",
        "..",
        "\x00",
        "a/b/c/d/e/f/g",
    ],
)
def test_a_model_that_nobody_knows_has_no_price(model: str) -> None:
    assert [book.find("somebody", model) for book in bundled()] == [None, None]


def test_a_fine_tuned_model_never_costs_what_it_was_made_from() -> None:
    for book in bundled():
        listing = book.find("openai", "ft:gpt-4o-mini-2024-07-18:acme::id")
        base = book.find("openai", "gpt-4o-mini-2024-07-18")
        assert listing is not None
        assert base is not None
        usage = Usage(input_text=1_000_000)
        at = AT.timestamp()
        assert cost.cost(usage, listing.at(at)) > cost.cost(usage, base.at(at))


def test_a_fine_tuned_model_that_is_not_listed_has_no_price() -> None:
    book = Book(_book({"one": "1"}))
    assert book.find("shop", "one-2026-01-01") is not None
    assert book.find("shop", "ft:one:acme::id") is None


def test_a_free_variant_does_not_get_the_price_of_the_paid_one_by_guess() -> None:
    book = Book(_book({"m/one": "1"}))
    assert book.find("shop", "m/one:free") is None
    assert book.find("shop", "m/one:nitro") is not None


def test_a_price_changes_on_its_day_and_by_the_hour() -> None:
    book = bundled()[0]
    flash = book.find("deepseek", "deepseek-v4-flash")
    assert flash is not None
    usage = Usage(input_text=1_000_000)

    def at(day: str) -> int:
        return cost.cost(usage, flash.at(datetime.fromisoformat(day + "+00:00").timestamp()))

    assert at("2026-08-16T23:59:59") == 140_000_000
    assert at("2026-08-17T00:00:00") == 220_000_000
    assert at("2026-09-10T00:59:00") == 150_000_000
    assert at("2026-11-21T01:00:00") == 300_000_000
    assert at("2026-11-21T03:59:59") == 300_000_000
    assert at("2026-11-21T04:00:00") == 150_000_000
    assert at("2026-11-21T09:59:59") == 300_000_000


def test_every_price_of_both_lists_can_be_reckoned_with() -> None:
    usage = Usage(**dict.fromkeys(("input_text", "cache_read", "output_text", "reasoning"), 1000))
    for book in bundled():
        models = 0
        for seller in book.sellers:
            for model in book.models(seller)[::4]:
                listing = book.find(seller, model)
                if listing is None:
                    continue
                models += 1
                for _, _, price in listing.periods:
                    for tier in (Tier.DEFAULT, Tier.BATCH, Tier.OTHER):
                        card = price.card(tier, 500_000)
                        assert min(card.rates) >= 0
                    assert cost.cost(usage, price) >= 0
        assert models > 400


def test_both_lists_tell_version_and_day() -> None:
    for book in bundled():
        name, version = book.source.split(" ")
        assert name in {"genai-prices", "litellm"}
        assert version[0].isdigit()
        datetime.fromisoformat(book.read_on)


def test_amounts_that_are_no_price_are_refused() -> None:
    for amount in ("-1", "1e30", "NaN"):
        with pytest.raises((ValueError, ArithmeticError)):
            Book(_book({"one": amount})).find("shop", "one")


def _book(prices: dict[str, str]) -> dict[str, object]:
    return {
        "source": "test",
        "version": "1",
        "read_on": "2026-01-01",
        "prices": [{"r": {"i": amount}} for amount in prices.values()],
        "entries": [[name, None, None, [[0, 0, place]]] for place, name in enumerate(prices)],
        "sellers": {
            "shop": {"else": [], "exact": {n: place for place, n in enumerate(prices)}, "rules": []}
        },
    }


def test_an_amount_is_rounded_up_to_the_nano_dollar() -> None:
    from midwatch.core.pricing.book import nusd

    assert nusd("0.0000000001") == 1
    assert nusd("2.5") == int(Decimal("2.5") * 10**9)
