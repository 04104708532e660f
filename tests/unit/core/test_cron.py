"""Cron expressions and time zones, checked before anything depends on them."""

from __future__ import annotations

import contextlib
import zoneinfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from midwatch.core import cron
from midwatch.core.units import Unexpected


@pytest.mark.parametrize(
    "expression", ["0 6 * * *", "*/5 * * * MON-FRI", "0 0 29 2 *", "0 0 L * *", "30 4 1,15 * 5"]
)
def test_an_expression_that_fires_is_returned_as_it_is(expression: str) -> None:
    assert cron.check_cron(expression) == expression


@pytest.mark.parametrize(
    ("expression", "hint"),
    [
        ("0 0 31 2 *", "no such day is in any calendar"),
        ("0 0 31 4,6 *", "no such day is in any calendar"),
        ("0 0 * 2 MON#5 extra", "this has 6 fields"),
        ("61 * * * *", "minute is '61', it takes 0-59"),
        ("0 24 * * *", "hour is '24', it takes 0-23"),
        ("0 0 1 13 *", "month is '13', it takes 1-12 or JAN-DEC"),
        ("0 0 * * 8", "day of week is '8', it takes 0-7 or SUN-SAT"),
        ("*/0 * * * *", "minute is '*/0'"),
        ("@daily", "write '0 0 * * *'"),
        ("", "this has 0 fields"),
        ("* " * 200, "this has 200 fields"),
    ],
)
def test_an_expression_that_cannot_fire_is_refused_with_the_reason(
    expression: str, hint: str
) -> None:
    with pytest.raises(Unexpected) as caught:
        cron.check_cron(expression)
    assert hint in str(caught.value)


_FIELD = st.text("0123456789*/,-#LW MONFRI²", max_size=8)


@given(st.lists(_FIELD, min_size=4, max_size=6).map(" ".join))
@example("1#5 1 1 1 5L")
@example("0 0 LW-5 * 5L/2")
@example("9999999999999999999999 * * * *")
def test_arbitrary_fields_are_accepted_or_refused_and_nothing_else(expression: str) -> None:
    with contextlib.suppress(Unexpected):
        assert cron.check_cron(expression) == expression


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("Europe/Pariss", "Europe/Paris"),
        ("europe/paris", "Europe/Paris"),
        ("Paris", "Europe/Paris"),
        ("new york", "America/New_York"),
    ],
)
def test_a_time_zone_that_is_unknown_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(Unexpected, match=f"did you mean '{near}'"):
        cron.check_zone(name)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "Europe", "a\0b", "x" * 5000, "é"])
def test_a_name_that_is_no_zone_is_refused(name: str) -> None:
    with pytest.raises(Unexpected, match="expected a time zone such as Europe/Paris"):
        cron.check_zone(name)


def test_without_a_time_zone_database_only_utc_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> None:
        raise zoneinfo.ZoneInfoNotFoundError(name)

    monkeypatch.setattr(zoneinfo, "ZoneInfo", unknown)
    monkeypatch.setattr(zoneinfo, "available_timezones", set)
    assert cron.check_zone("UTC") == "UTC"
    with pytest.raises(Unexpected, match="install the package tzdata"):
        cron.check_zone("Europe/Paris")
