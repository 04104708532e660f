"""Calls are priced when they arrive, as the shelf quotes them, and nobody's own word is overruled."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.pricing.flat import flat
from midwatch.core.pricing.own import read_prices
from midwatch.core.pricing.shelf import Shelf
from midwatch.core.spans import form
from midwatch.core.spans.form import CostFrom, Rank, Role, Row
from midwatch.core.spans.priced import Pricer
from midwatch.core.spans.usage import parts

NOON_NS = 1_790_000_000 * 10**9
SHELF = Shelf()
OWN = Shelf(read_prices({"my-model": {"input": "$2/M", "output": "$4/M"}}, "fleet file"))

KNOWN = [("openai", "gpt-4o-mini"), ("anthropic", "claude-haiku-4-5"), ("google", "gemini-2.5-pro")]


def call(**more: Any) -> Row:
    said = {
        "provider": "openai",
        "model": "gpt-4o-mini",
        "input_tokens": 1_000,
        "output_tokens": 100,
    }
    row = form.NO_SPAN[:]
    row[form.ROLE], row[form.RANK], row[form.START_NS] = Role.CALL.value, Rank.ENDED.value, NOON_NS
    for name, value in {**said, **more}.items():
        row[form.SPANS.at[name]] = value
    return row


def cost(row: Row, shelf: Shelf = SHELF, **more: Any) -> tuple[int | None, int | None]:
    Pricer(lambda: shelf, **more).price([row])
    return row[form.COST_NUSD], row[form.COST_FROM]


COUNT = st.integers(0, 3_000_000)


@given(st.sampled_from(KNOWN), st.integers(0, 2**31), COUNT, COUNT, COUNT, COUNT, COUNT, COUNT)
def test_a_price_is_what_the_shelf_quotes_whatever_the_figures(
    of: tuple[str, str],
    at: int,
    given_: int,
    made: int,
    read: int,
    written: int,
    hour: int,
    thought: int,
) -> None:
    provider, model = of
    row = call(
        provider=provider, model=model, start_ns=at * 10**9, input_tokens=given_, output_tokens=made, cached_tokens=read,
        cache_write_tokens=written, cache_write_1h_tokens=hour, reasoning_tokens=thought,
    )  # fmt: skip
    quoted = SHELF.quote(parts(row), provider, provider, model, float(at))
    assert cost(row) == (quoted.nusd, CostFrom.PRICED.value)
    assert row[form.PRICE_VERSION] == SHELF.version


def test_most_models_need_no_more_than_six_rates() -> None:
    """Else the hot path is not the one that is fast."""
    for provider, model in KNOWN[:2]:
        assert len(flat(SHELF.find(provider, provider, model)).lists) == 2
    # its price depends on the length
    assert flat(SHELF.find("google", "google", "gemini-2.5-pro")).lists == ()


@pytest.mark.parametrize(
    "said",
    [
        {"cost_nusd": 5, "cost_from": CostFrom.REPORTED.value},
        {"cost_nusd": 0, "cost_from": CostFrom.LEDGER.value},
        {"cost_nusd": 7, "cost_from": CostFrom.LEDGER.value},
    ],
    ids=str,
)
def test_who_says_what_it_cost_is_believed(said: dict[str, int]) -> None:
    assert cost(call(**said)) == (said["cost_nusd"], said["cost_from"])


def test_a_reported_0_is_the_word_of_one_that_knows_no_prices() -> None:
    row = call(cost_nusd=0, cost_from=CostFrom.REPORTED.value)
    assert cost(row) == (210_000, CostFrom.PRICED.value)


@pytest.mark.parametrize(
    "said",
    [
        {"model": None},
        {"model": "nobody-sells-it"},
        {"role": Role.AGENT.value},
        {"rank": Rank.OPEN.value},
        {"input_tokens": None, "output_tokens": None},
    ],
    ids=str,
)
def test_what_cannot_be_priced_has_no_cost(said: dict[str, Any]) -> None:
    assert cost(call(**said)) == (None, None)


def test_a_name_of_a_proxys_own_is_priced_as_the_model_that_was_asked_for() -> None:
    assert cost(call(response_model="our-deployment"))[0] == 210_000


def test_a_model_tells_its_maker_where_nobody_names_a_provider() -> None:
    assert cost(call(provider=None))[0] == 210_000


def test_ones_own_prices_come_first_and_say_whose_they_are() -> None:
    row = call(provider="mine", model="my-model")
    assert cost(row, OWN) == (2_400_000, CostFrom.PRICED.value)
    assert row[form.PRICE_VERSION] == "fleet file"


def test_a_provider_of_the_fleet_file_goes_by_the_list_that_it_names() -> None:
    assert cost(call(provider="proxy"), sellers={"proxy": "openai"})[0] == 210_000


def test_sounds_and_pictures_are_priced_as_such() -> None:
    row = call(
        usage='{"v":1,"input_text":10,"input_audio":990,"output_text":100}', model="gpt-4o-mini"
    )
    assert cost(row)[0] is not None
