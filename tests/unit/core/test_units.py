"""Quantities as people write them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        ("2h", 7200),
        ("1d", 86_400),
        ("500ms", 0.5),
        ("1h30m", 5400),
        ("1 h 5 s", 3605),
        ("0s", 0),
        ("1.5m", 90),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("512MiB", 512 * 2**20), ("5GB", 5 * 10**9), ("1 KiB", 1024), ("0.5GiB", 2**29), ("7B", 7)],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "nusd"),
    [("$1.50", 1_500_000_000), ("$0.000000001", 1), ("$10", 10**10), ("$ 3", 3 * 10**9)],
)
def test_money_is_read_without_rounding(text: str, nusd: int) -> None:
    assert units.parse_money(text) == nusd


@pytest.mark.parametrize(
    ("text", "ratio"), [("80%", 0.8), ("10x", 10.0), ("1.5x", 1.5), ("0%", 0.0)]
)
def test_a_ratio_is_read(text: str, ratio: float) -> None:
    assert units.parse_ratio(text) == ratio


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (
            units.parse_duration,
            "5min",
            "expected a duration such as 90s, 5m, 2h or 1d, got '5min'; did you mean 5m?",
        ),
        (
            units.parse_duration,
            "60",
            "expected a duration such as 90s, 5m, 2h or 1d, got '60'; did you mean 60s?",
        ),
        (units.parse_duration, "soon", "expected a duration such as 90s, 5m, 2h or 1d, got 'soon'"),
        (units.parse_duration, "", "expected a duration such as 90s, 5m, 2h or 1d, got ''"),
        (units.parse_duration, "-5s", "expected a duration such as 90s, 5m, 2h or 1d, got '-5s'"),
        (
            units.parse_duration,
            "99999999999d",
            "expected a duration of at most 100 years, got '99999999999d'",
        ),
        (
            units.parse_size,
            "1G",
            "expected a size such as 512MiB or 5GB, got '1G'; did you mean 1GiB?",
        ),
        (
            units.parse_size,
            "10m",
            "expected a size such as 512MiB or 5GB, got '10m'; did you mean 10MiB?",
        ),
        (
            units.parse_size,
            "512",
            "expected a size such as 512MiB or 5GB, got '512'; did you mean 512MiB?",
        ),
        (
            units.parse_size,
            "999999999999TiB",
            "expected a size of at most 1048576TiB, got '999999999999TiB'",
        ),
        (
            units.parse_money,
            "10",
            "expected money in dollars such as $1.50, got '10'; did you mean $10?",
        ),
        (
            units.parse_money,
            "$1,000",
            "expected money in dollars such as $1.50, got '$1,000'; did you mean $1000?",
        ),
        (
            units.parse_money,
            "5 USD",
            "expected money in dollars such as $1.50, got '5 USD'; did you mean $5?",
        ),
        (units.parse_money, "€5", "expected money in dollars such as $1.50, got '€5'"),
        (units.parse_ratio, "80", "expected a ratio such as 80% or 10x, got '80'"),
    ],
)
def test_what_is_refused_says_what_to_write(
    parse: Callable[[str], object], text: str, message: str
) -> None:
    with pytest.raises(units.Unexpected) as caught:
        parse(text)
    assert str(caught.value) == message


@given(st.text(max_size=30))
def test_arbitrary_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    for parse in (units.parse_duration, units.parse_size, units.parse_money, units.parse_ratio):
        with contextlib.suppress(units.Unexpected):
            assert parse(text) >= 0


@given(st.integers(0, 10**18 - 1))
def test_every_amount_of_money_survives_being_written_and_read(nusd: int) -> None:
    assert units.parse_money(f"${nusd // 10**9}.{nusd % 10**9:09}") == nusd


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 seconds"),
        (0.4, "400 ms"),
        (0.9999, "999 ms"),
        (1, "1 second"),
        (2, "2 seconds"),
        (59.7, "1 minute"),
        (60, "1 minute"),
        (480, "8 minutes"),
        (3600, "1 hour"),
        (90_000, "1 day"),
    ],
)
def test_a_duration_is_shown_in_words(seconds: float, text: str) -> None:
    assert units.show_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (40 * 2**20, "40 MiB"),
        (2**30, "1.0 GiB"),
        (-(2**30), "-1.0 GiB"),
        (2**20 - 1, "1.0 MiB"),
        (9.97 * 2**30, "10 GiB"),
        (3 * 2**40, "3.0 TiB"),
    ],
)
def test_a_size_is_shown_in_its_largest_unit(count: float, text: str) -> None:
    assert units.show_size(count) == text
