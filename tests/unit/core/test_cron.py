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


# -- single times, and hours of the day ---------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["2026-11-30 06:00", "2026-11-30T06:00:30", "2026-11-30T06:00Z", "2026-11-30 06:00+05:30"],
)
def test_a_single_time_is_returned_as_it_is(text: str) -> None:
    assert cron.check_at(text) == text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("tomorrow", "expected a day and a time such as 2026-11-30 06:00, got 'tomorrow'"),
        ("2026-11-30", "add the time of day: '2026-11-30 06:00'"),
        ("2026-02-30 06:00", "no calendar or clock has that"),
        ("2026-11-30 25:00", "no calendar or clock has that"),
        ("1926-11-30 06:00", "between the years 2000 and 2199"),
        ("30.11.2026 06:00", "got '30.11.2026 06:00'"),
        ("", "got ''"),
    ],
)
def test_a_text_that_is_no_time_is_refused_with_what_to_write(text: str, hint: str) -> None:
    with pytest.raises(Unexpected) as caught:
        cron.check_at(text)
    assert hint in str(caught.value)


def test_a_time_with_an_offset_is_the_same_in_every_zone() -> None:
    for name in ("UTC", "Europe/Paris", "Australia/Lord_Howe"):
        assert cron.read_at("2026-11-30T06:00+01:00", zoneinfo.ZoneInfo(name)) == 1_796_014_800.0


@pytest.mark.parametrize("text", ["22:00..06:00", "8:30..17:00", "00:00..24:00", "18:00 .. 24:00"])
def test_hours_of_the_day_are_returned_as_they_are(text: str) -> None:
    if text == "00:00..24:00":
        with pytest.raises(Unexpected, match="for the whole day leave it out"):
            cron.check_between(text)
        return
    assert cron.check_between(text) == text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("25:00..06:00", "no clock shows 25:00"),
        ("22:60..06:00", "no clock shows 22:60"),
        ("24:30..06:00", "no clock shows 24:30"),
        ("06:00..06:00", "for the whole day leave it out"),
        ("22-6", "did you mean 22:00..06:00?"),
        ("22:00-06:00", "did you mean 22:00..06:00?"),
        ("night", "got 'night'"),
    ],
)
def test_a_text_that_is_no_hours_is_refused_with_what_to_write(text: str, hint: str) -> None:
    with pytest.raises(Unexpected) as caught:
        cron.check_between(text)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("expression", "every", "between", "hint"),
    [
        ("0 12 * * *", None, "22:00..06:00", "it has 12:00"),
        ("0,30 7-9 * * *", None, "10:00..12:00", "it has 07:00, 07:30, 08:00 …"),
        (None, 6 * 3600.0, "05:30..06:30", "write the times themselves, as cron"),
    ],
)
def test_hours_in_which_a_rule_never_starts_are_refused(
    expression: str | None, every: float | None, between: str, hint: str
) -> None:
    with pytest.raises(Unexpected) as caught:
        cron.check_meets(expression, every, between)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("expression", "every", "between"),
    [
        ("0 23 * * *", None, "22:00..06:00"),
        ("*/20 * * * *", None, "03:10..03:30"),
        (None, 900.0, "06:00..06:15"),
    ],
)
def test_hours_in_which_a_rule_starts_are_taken(
    expression: str | None, every: float | None, between: str
) -> None:
    cron.check_meets(expression, every, between)


@given(st.text("0123456789:-.T Z+..", max_size=24))
def test_any_text_is_a_time_or_hours_or_is_refused(text: str) -> None:
    for check in (cron.check_at, cron.check_between):
        with contextlib.suppress(Unexpected):
            assert check(text) == text
