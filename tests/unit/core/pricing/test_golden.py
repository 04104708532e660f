"""The golden file: what providers say, taken apart, and its cost to the nano-dollar.

Expected figures were worked out by hand from the providers' published rules; here they are only compared.
"""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from midwatch.core.pricing import anthropic, cost, gemini, openai
from midwatch.core.pricing.own import read_price
from midwatch.core.pricing.price import Price
from midwatch.core.pricing.usage import Tier, Usage

GOLDEN: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("golden.yaml").read_text("utf-8"))
CASES: list[dict[str, Any]] = GOLDEN["cases"]
READERS = {
    "chat": openai,
    "responses": openai,
    "embeddings": openai,
    "messages": anthropic,
    "generate": gemini,
}


def price_of(name: str) -> Price:
    price = read_price(GOLDEN["prices"][name], "golden", name).price
    assert price is not None
    return price


def read(case: dict[str, Any]) -> Usage | None:
    reader = READERS[case["dialect"]]
    asked = Tier(case.get("asked", "default"))
    if "stream" not in case:
        return reader.read(case["answer"], asked)
    stream = reader.Stream(asked)
    for event in case["stream"]:
        stream.feed(event)
    return stream.usage()


def expected(case: dict[str, Any]) -> Usage:
    return Usage(
        **case["usage"],
        tier=Tier(case.get("tier", "default")),
        region=case.get("region", ""),
        reported_nusd=case.get("reported"),
        doubts=frozenset(case.get("doubts", ())),
        aside=tuple((model, Usage(**parts)) for model, parts in case.get("aside", ())),
    )


def by_hand(reckoning: str) -> int:
    """Return the value of `a*b + c*d`, rounded up, without any of the code that is tested."""
    products = (math.prod(map(Fraction, term.split("*"))) for term in reckoning.split("+"))
    return math.ceil(sum(products))


def test_there_are_at_least_eighty_payloads_of_all_dialects_streamed_and_not() -> None:
    assert len(CASES) >= 80
    kinds = {(case["dialect"], "stream" in case) for case in CASES}
    whole = {(dialect, False) for dialect in READERS}
    streamed = {(dialect, True) for dialect in READERS if dialect != "embeddings"}
    assert kinds == whole | streamed
    assert all(len(case["rule"]) > 15 for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_usage_is_what_the_provider_means_and_its_cost_is_right_to_the_nano_dollar(
    case: dict[str, Any],
) -> None:
    usage = read(case)
    if case.get("none"):
        assert usage is None
        return
    assert usage == expected(case)
    price = price_of(case["price"])
    bill = cost.bill(usage, price)
    assert bill.nusd == case["cost"] == by_hand(str(case["sum"]))
    assert sorted(bill.assumed) == sorted(case.get("assumed", ()))
    assert cost.cost(usage, price) == case["cost"]
    assert sum(line.nusd for line in cost.lines(usage, price)) == case["cost"]
    if "sum_aside" in case:
        inner = cost.cost(usage.aside[0][1], price)
        assert inner == case["cost_aside"] == by_hand(case["sum_aside"])


def test_what_is_stored_comes_back() -> None:
    usages = [expected(case) for case in CASES if not case.get("none")]
    assert [Usage.from_json(usage.to_json()) for usage in usages] == usages
