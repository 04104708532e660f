"""What is reserved is worked out once for all lengths (`Found.worst_case`), and is what each list comes to by itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.core.pricing import cost
from midwatch.core.pricing.book import Book
from midwatch.core.pricing.price import Price
from midwatch.core.pricing.shelf import MAX_TERMS, Shelf
from midwatch.core.pricing.usage import Part, Tier

SHELF = Shelf()
AT = 1_790_000_000.0
MODELS = (
    ("openai", "gpt-4o-mini"),
    ("openai", "gpt-5"),
    ("anthropic", "claude-sonnet-4-5"),
    ("google", "gemini-2.5-pro"),
    ("deepseek", "deepseek-chat"),
    ("openai", "nobody-knows-it"),
)


@settings(max_examples=150, deadline=None)
@given(
    model=st.sampled_from(MODELS),
    at=st.floats(1_600_000_000.0, 1_900_000_000.0),
    asked=st.fixed_dictionaries(
        {
            "input_tokens": st.integers(0, 3_000_000),
            "max_output": st.integers(0, 1_000_000),
            "tier": st.sampled_from(Tier),
            "writes": st.sampled_from(("", "5m", "1h", "12h", "for ever")),
            "media_in": st.booleans(),
            "media_out": st.booleans(),
            "searches": st.integers(0, 12),
        }
    ),
)
def test_a_worst_case_is_the_dearest_of_the_lists_whatever_was_asked_before(
    model: tuple[str, str], at: float, asked: dict[str, Any]
) -> None:
    seller, name = model
    found = SHELF.find(seller, seller, name)
    each = [cost.worst_case(listing.at(at), **asked) for listing in found.listings]
    assert found.worst_case(at, **asked) == max(each, default=None)


def test_kinds_of_requests_take_no_more_memory_than_their_bound() -> None:
    found = SHELF.find("openai", "openai", "gpt-4o")
    for searches in range(200):
        each = [cost.worst_case(p, 10, 10, searches=searches) for p in found.prices(AT)]
        asked = found.worst_case(AT, input_tokens=10, max_output=10, writes="", searches=searches)
        assert asked == max(each)
    assert len(found._spells[0]._terms) <= MAX_TERMS  # pyright: ignore[reportPrivateUsage]


def weight(price: Price | None) -> int:
    assert price is not None
    return sum(price.table.rates.get(part, 0) for part in (Part.INPUT_TEXT, Part.OUTPUT_TEXT))


@pytest.mark.parametrize("seller", ["openai", "deepseek", "nobody-knows-it"])
def test_the_dearest_of_a_seller_is_that_of_the_time_however_often_it_was_asked_for(
    seller: str,
) -> None:
    listings = [
        listing
        for book in SHELF.books
        for name in (seller, *(() if book.models(seller) else book.sellers))
        for model in book.models(name)
        if (listing := book.find(name, model)) is not None
    ]
    for at in (AT, AT - 43_200, 0.0, 1_700_000_000.0, AT):
        assert weight(SHELF.dearest(seller, at)) == max(weight(x.at(at)) for x in listings)


def test_a_model_that_becomes_the_dearest_is_it_from_that_moment_on() -> None:
    prices = [{"r": {"i": rate, "o": rate}} for rate in ("1", "2", "3")]
    entries = [["steady", None, None, [[0, 0, 1]]], ["rising", None, None, [[0, 0, 0], [int(AT), 0, 2]]]]  # fmt: skip
    shop = {"else": [], "exact": {"steady": 0, "rising": 1}, "rules": []}
    data = {"source": "a", "version": "1", "read_on": "2026-01-01", "prices": prices}
    shelf = Shelf(books=[Book({**data, "entries": entries, "sellers": {"shop": shop}})])
    names = [shelf.dearest("shop", AT + after) for after in (-1, 0, 1, -1)]
    assert [one and one.name for one in names] == ["steady", "rising", "rising", "steady"]
