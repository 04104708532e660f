"""Whose word a cost is: one's own price, the provider's, the lists', or nobody's."""

from datetime import UTC, datetime
from typing import Any

import pytest

from midwatch.core.pricing import anthropic
from midwatch.core.pricing.book import Book, bundled
from midwatch.core.pricing.own import read_prices
from midwatch.core.pricing.shelf import MAX_FOUND, Basis, Shelf
from midwatch.core.pricing.usage import Part, Tier, Usage

AT = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
CALL = Usage(input_text=1000, output_text=100)


def book(source: str, seller: str = "shop", **models: dict[str, Any]) -> Book:
    """Return a list of one shop; each model is given as {i: "1", o: "2"} or a whole price."""
    prices = [entry if "r" in entry else {"r": entry} for entry in models.values()]
    return Book(
        {
            "source": source,
            "version": "1",
            "read_on": "2026-01-01",
            "prices": prices,
            "entries": [[name, 1000 + n, 100 + n, [[0, 0, n]]] for n, name in enumerate(models)],
            "sellers": {
                seller: {
                    "else": [],
                    "exact": {name: n for n, name in enumerate(models)},
                    "rules": [],
                }
            },
        }
    )


def quote(shelf: Shelf, usage: Usage = CALL, model: str = "one", provider: str = "shop"):
    return shelf.quote(usage, provider, "shop", model, AT)


def test_two_lists_that_agree_within_two_percent_give_the_higher() -> None:
    shelf = Shelf(
        books=[book("a", one={"i": "1", "o": "2"}), book("b", one={"i": "1.02", "o": "2"})]
    )
    quoted = quote(shelf)
    assert (quoted.nusd, quoted.basis, quoted.disputed) == (1_220_000, Basis.AGREED, False)
    assert [bill.nusd for bill in quoted.bills] == [1_200_000, 1_220_000]
    assert quoted.version == "a 1 + b 1"


@pytest.mark.parametrize(("other", "disputed"), [("1", False), ("0.981", False), ("0.98", True)])
def test_two_percent_of_the_lower_is_the_edge(other: str, disputed: bool) -> None:
    shelf = Shelf(books=[book("a", one={"i": "1"}), book("b", one={"i": other})])
    assert quote(shelf, Usage(input_text=1_000_000)).disputed is disputed


def test_two_lists_that_differ_by_more_are_disputed_and_the_higher_is_charged() -> None:
    shelf = Shelf(books=[book("a", one={"i": "2", "o": "2"}), book("b", one={"i": "1", "o": "2"})])
    quoted = quote(shelf)
    assert (quoted.nusd, quoted.basis, quoted.disputed) == (2_200_000, Basis.DISPUTED, True)
    assert quoted.reason == "disputed: a 1"


def test_free_in_one_list_and_not_in_the_other_is_disputed() -> None:
    shelf = Shelf(books=[book("a", one={"i": "0", "o": "0"}), book("b", one={"i": "1", "o": "2"})])
    assert quote(shelf).disputed


def test_a_nano_dollar_of_rounding_is_no_dispute() -> None:
    shelf = Shelf(books=[book("a", one={"i": "0.001"}), book("b", one={"i": "0.0009999"})])
    assert quote(shelf, Usage(input_text=1)).basis is Basis.AGREED


def test_a_part_that_one_list_leaves_out_is_taken_from_the_other() -> None:
    usage = Usage(cache_read=1_000_000)
    shelf = Shelf(books=[book("a", one={"i": "4"}), book("b", one={"i": "4", "c": "1"})])
    quoted = quote(shelf, usage)
    assert (quoted.nusd, quoted.basis, quoted.assumed) == (1_000_000_000, Basis.AGREED, ())


def test_a_part_that_both_leave_out_is_told_as_assumed() -> None:
    shelf = Shelf(books=[book("a", one={"i": "4"}), book("b", one={"i": "4"})])
    quoted = quote(shelf, Usage(cache_read=1_000_000))
    assert (quoted.nusd, quoted.assumed) == (4_000_000_000, ("cache_read",))


def test_leaving_out_a_part_does_not_hide_a_difference_in_another() -> None:
    shelf = Shelf(books=[book("a", one={"i": "8"}), book("b", one={"i": "4", "c": "1"})])
    quoted = quote(shelf, Usage(input_text=1_000_000, cache_read=1_000_000))
    assert (quoted.nusd, quoted.disputed) == (9_000_000_000, True)


def test_a_list_that_does_not_know_the_tier_gives_way() -> None:
    batch = {"r": {"i": "4", "o": "8"}, "t": {"batch": {"r": {"i": "2", "o": "4"}}}}
    shelf = Shelf(books=[book("a", one={"i": "4", "o": "8"}), book("b", one=batch)])
    quoted = quote(shelf, Usage(input_text=1000, tier=Tier.BATCH))
    assert (quoted.nusd, quoted.basis, len(quoted.bills)) == (2_000_000, Basis.SINGLE, 2)


def test_a_price_of_ones_own_wins_over_lists_and_over_what_is_reported() -> None:
    own = read_prices({"one": {"input": "$7/M", "output": "$0/M"}}, "fleet file")
    shelf = Shelf(own, [book("a", one={"i": "1", "o": "2"})])
    quoted = quote(shelf, Usage(input_text=1000, reported_nusd=5))
    assert (quoted.nusd, quoted.basis, quoted.version) == (7_000_000, Basis.OWN, "fleet file")
    assert quoted.reported_nusd == 5


def test_what_a_seller_that_is_known_to_report_says_wins_over_the_lists_which_are_still_shown() -> (
    None
):
    shelf = Shelf(
        books=[book(name, seller="openrouter", one={"i": "1", "o": "2"}) for name in ("a", "b")]
    )
    usage = Usage(input_text=1000, reported_nusd=123)
    quoted = shelf.quote(usage, "router", "openrouter", "one", AT)
    assert (quoted.nusd, quoted.basis) == (123, Basis.REPORTED)
    assert [bill.nusd for bill in quoted.bills] == [1_000_000, 1_000_000]


@pytest.mark.parametrize(
    ("reported", "charged"), [(0, 1_000_000), (999_999, 1_000_000), (1_500_000, 1_500_000)]
)
def test_anybody_else_is_believed_only_upwards(reported: int, charged: int) -> None:
    shelf = Shelf(books=[book("a", one={"i": "1", "o": "2"}), book("b", one={"i": "1", "o": "2"})])
    quoted = quote(shelf, Usage(input_text=1000, reported_nusd=reported))
    assert (quoted.nusd, quoted.reported_nusd) == (charged, reported)
    assert quoted.basis is (Basis.REPORTED if reported == charged else Basis.AGREED)


def test_a_reported_cost_makes_an_unknown_model_known() -> None:
    quoted = quote(Shelf(books=[]), Usage(input_text=1000, reported_nusd=0))
    assert (quoted.nusd, quoted.basis) == (0, Basis.REPORTED)


def test_a_model_that_nobody_knows_has_no_cost_and_says_what_to_do() -> None:
    quoted = quote(Shelf(books=[book("a", one={"i": "1"})]), model="new\nmodel")
    assert quoted.nusd is None
    assert quoted.basis is Basis.UNKNOWN
    assert quoted.reason == (
        "no list knows the model 'new\\nmodel' of 'shop'; add it under models.prices"
    )


def test_a_provider_of_ones_own_machine_is_free_by_its_owners_word_only() -> None:
    shelf = Shelf(books=[], free=["local"])
    assert quote(shelf, model="qwen3", provider="local").nusd == 0
    assert quote(shelf, model="qwen3", provider="local").basis is Basis.FREE
    assert quote(shelf, model="qwen3", provider="other").nusd is None


def test_a_model_may_cost_like_another_one() -> None:
    own = read_prices({"night-deployment": {"like": "gpt-4o-mini"}}, "fleet file")
    shelf = Shelf(own)
    mine = shelf.quote(CALL, "azure", "azure", "night-deployment", AT)
    theirs = shelf.quote(CALL, "azure", "azure", "gpt-4o-mini", AT)
    assert mine.nusd == theirs.nusd
    assert mine.nusd


def test_prices_of_ones_own_are_found_by_provider_by_pattern_and_without_a_date() -> None:
    own = read_prices(
        {
            "shop/one": {"input": "$1/M"},
            "one": {"input": "$2/M"},
            "lab/*": {"input": "$3/M"},
            "claude-x": {"input": "$4/M"},
        },
        "fleet file",
    )
    shelf = Shelf(own, [])
    million = Usage(input_text=1_000_000)
    found = {
        (provider, model): quote(shelf, million, model, provider).nusd
        for provider, model in [
            ("shop", "one"),
            ("else", "one"),
            ("lab", "anything"),
            ("else", "claude-x-20260101"),
            ("else", "ones"),
        ]
    }
    assert found == {
        ("shop", "one"): 1_000_000_000,
        ("else", "one"): 2_000_000_000,
        ("lab", "anything"): 3_000_000_000,
        ("else", "claude-x-20260101"): 4_000_000_000,
        ("else", "ones"): None,
    }


def test_a_call_within_the_call_is_billed_at_its_own_models_price() -> None:
    shelf = Shelf(books=[book("a", one={"i": "1", "o": "1"}, big={"i": "10", "o": "10"})])
    usage = anthropic.read(
        {
            "usage": {
                "input_tokens": 1000,
                "output_tokens": 0,
                "iterations": [
                    {
                        "type": "advisor_message",
                        "model": "big",
                        "input_tokens": 100,
                        "output_tokens": 0,
                    },
                    {"type": "compaction", "input_tokens": 500, "output_tokens": 0},
                ],
            }
        }
    )
    assert usage is not None
    assert quote(shelf, usage).nusd == 1_000_000 + 1_000_000 + 500_000


def test_a_call_within_the_call_of_an_unknown_model_makes_the_cost_unknown() -> None:
    usage = Usage(input_text=1, aside=(("nobody", Usage(input_text=1)),))
    quoted = quote(Shelf(books=[book("a", one={"i": "1"})]), usage)
    assert (quoted.nusd, quoted.basis) == (None, Basis.UNKNOWN)
    assert "nobody" in quoted.reason


def test_the_sellers_own_price_outweighs_a_borrowed_one() -> None:
    shelf = Shelf()
    found = shelf.find("bedrock", "aws", "us.anthropic.claude-sonnet-4-5-20250929-v1:0")
    assert found.listings
    assert not any(listing.borrowed for listing in found.listings)
    lent = shelf.find("somewhere", "somewhere", "claude-sonnet-4-5")
    assert all(listing.borrowed for listing in lent.listings)


def test_a_price_that_is_only_lent_does_not_dispute_the_sellers_own() -> None:
    dear = {"i": "2", "o": "2"}
    shelf = Shelf(
        books=[
            book("a", seller="reseller", **{"gpt-x": {"i": "1", "o": "1"}}),
            book("b", seller="openai", **{"gpt-x": dear}),
        ]
    )
    quoted = shelf.quote(CALL, "r", "reseller", "gpt-x", AT)
    assert (quoted.nusd, quoted.basis, len(quoted.bills)) == (1_100_000, Basis.SINGLE, 1)


def test_what_is_reserved_is_reckoned_at_the_tier_asked_for_and_never_below_the_usual() -> None:
    tiers = {
        "r": {"i": "2", "o": "2"},
        "t": {"flex": {"r": {"i": "1", "o": "1"}}, "priority": {"r": {"i": "4", "o": "4"}}},
    }
    shelf = Shelf(books=[book("a", one=tiers)])
    reserved = [
        shelf.find("shop", "shop", "one").worst_case(
            AT, input_tokens=1000, max_output=0, tier=tier, writes=""
        )
        for tier in (Tier.FLEX, Tier.DEFAULT, Tier.PRIORITY)
    ]
    assert reserved == [2_000_000, 2_000_000, 4_000_000]


def test_what_is_reserved_covers_whatever_the_call_turns_out_to_be() -> None:
    shelf = Shelf()
    for seller, model in [
        ("openai", "gpt-5.6-sol"),
        ("anthropic", "claude-sonnet-4-5"),
        ("google", "gemini-2.5-flash"),
    ]:
        for length in (10, 300_000):
            reserved = shelf.find(seller, seller, model).worst_case(
                AT,
                input_tokens=length,
                max_output=1000,
                media_in=True,
                searches=1,
            )
            assert reserved is not None
            for part in (Part.INPUT_TEXT, Part.INPUT_AUDIO, Part.CACHE_READ, Part.CACHE_WRITE_1H):
                for out in (Part.OUTPUT_TEXT, Part.REASONING):
                    usage = Usage(**{part.value: length, out.value: 1000}, web_searches=1)
                    cost = shelf.quote(usage, seller, seller, model, AT).nusd
                    assert cost is not None
                    assert cost <= reserved


def test_nothing_can_be_reserved_for_a_model_that_nobody_knows() -> None:
    shelf = Shelf(books=[])
    assert shelf.find("x", "x", "y").worst_case(AT, input_tokens=1, max_output=1) is None


def test_sizes_come_from_the_lists() -> None:
    shelf = Shelf(books=[book("a", one={"i": "1"}), book("b", none={"i": "1"}, one={"i": "1"})])
    found = shelf.find("shop", "shop", "one")
    assert (found.window, found.max_output) == (1000, 101)
    assert Shelf(books=[]).find("shop", "shop", "one").window is None


def test_the_dearest_price_stands_in_for_an_unknown_one() -> None:
    shelf = Shelf(
        books=[book("a", one={"i": "1", "o": "2"}, big={"i": "9", "o": "9"}, odd={"i": "12"})]
    )
    dearest = shelf.dearest("shop", AT)
    assert dearest is not None
    assert dearest.name == "big"
    assert shelf.dearest("nobody", AT) == dearest
    assert Shelf(books=[]).dearest("shop", AT) is None


def test_made_up_names_do_not_fill_the_memory() -> None:
    shelf = Shelf(books=[])
    for n in range(MAX_FOUND + 10):
        shelf.find("shop", "shop", f"m{n}")
    assert len(shelf._found) <= MAX_FOUND


@pytest.mark.parametrize(
    ("seller", "model", "usage", "nusd", "basis"),
    [
        # 200*4000 + 800*400 + 50*20000, both lists of 2026-11-21
        ("openai", "gpt-5.6-sol", Usage(input_text=200, cache_read=800, output_text=50), 2_120_000, "agreed"),
        # 1000*5000 + 100*10000 (an hour's writes) + 10*25000
        ("anthropic", "claude-opus-4-8", Usage(input_text=1000, cache_write_1h=100, output_text=10), 6_250_000, "agreed"),
        # 100*2500 (batch) + 10*12500
        ("anthropic", "claude-opus-4-8", Usage(input_text=100, output_text=10, tier=Tier.BATCH), 375_000, "agreed"),
        # above 200k: 250001*2500 + 10*15000
        ("google", "gemini-2.5-pro", Usage(input_text=250_001, output_text=10), 625_152_500, "agreed"),
        # 1000*300 + 500*1000 (audio) + 10*2500
        ("google", "gemini-2.5-flash", Usage(input_text=1000, input_audio=500, output_text=10), 825_000, "agreed"),
        # 1000*150 + 1000*75 + 100*600
        ("openai", "gpt-4o-mini", Usage(input_text=1000, cache_read=1000, output_text=100), 285_000, "agreed"),
        # 1000*3300 + 10*16500: Bedrock in one region asks a tenth more
        ("aws", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", Usage(input_text=1000, output_text=10), 3_465_000, "agreed"),
    ],
)  # fmt: skip
def test_known_models_cost_what_they_cost_by_the_lists_of_this_day(
    seller: str, model: str, usage: Usage, nusd: int, basis: str
) -> None:
    if [b.source for b in bundled()] != ["genai-prices 0.2.3", "litellm 1.109.1"]:
        pytest.skip("other lists are bundled; work the figures out anew")
    quoted = Shelf().quote(usage, seller, seller, model, AT)
    assert (quoted.nusd, quoted.basis.value) == (nusd, basis)
