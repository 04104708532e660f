"""Days, months and hours of budgets, where clocks change."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.calls.period import Calendar, Periods, Window, periods_on, slot_of, slot_start

PARIS = Calendar(ZoneInfo("Europe/Paris"))


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_a_moment_lies_in_a_day_a_month_and_five_minutes() -> None:
    assert PARIS.periods(at("2026-03-31T22:07:59")) == Periods(
        "t", "m2026-04", "d2026-04-01", "h2026-03-31T22:05"
    )


@pytest.mark.parametrize(
    ("zone", "now", "ends", "hours"),
    [
        ("Europe/Paris", "2026-03-28T23:00", "2026-03-29T22:00", 23),  # the clock is set forward
        ("Europe/Paris", "2026-10-24T22:00", "2026-10-25T23:00", 25),  # and back
        ("Africa/Cairo", "2026-04-22T22:00", "2026-04-23T22:00", 24),
        ("Africa/Cairo", "2026-04-23T22:30", "2026-04-24T21:00", 22.5),  # without a midnight
        ("America/Havana", "2026-11-01T04:30", "2026-11-02T05:00", 24.5),  # midnight twice
        ("Asia/Kathmandu", "2026-05-01T18:15", "2026-05-02T18:15", 24),
        ("UTC", "2026-12-31T23:59", "2027-01-01T00:00", 1 / 60),
    ],
)
def test_a_day_ends_when_the_date_on_the_wall_changes(
    zone: str, now: str, ends: str, hours: float
) -> None:
    calendar = Calendar(ZoneInfo(zone))
    end = calendar.ends(Window.DAY, at(now))
    assert end == at(ends)
    assert end - at(now) == pytest.approx(hours * 3600)
    assert calendar.periods(end - 1).day == calendar.periods(at(now)).day
    assert calendar.periods(end).day > calendar.periods(at(now)).day


def test_a_month_ends_at_its_last_midnight() -> None:
    assert PARIS.ends(Window.MONTH, at("2026-03-05T12:00")) == at("2026-03-31T22:00")
    assert PARIS.ends(Window.MONTH, at("2026-12-31T12:00")) == at("2026-12-31T23:00")


def test_what_does_not_renew_has_no_end() -> None:
    assert PARIS.ends(Window.TOTAL, 0.0) is None
    assert PARIS.ends(Window.CALL, 0.0) is None


@given(st.floats(at("2020-01-01"), at("2040-01-01")))
def test_periods_are_found_again_from_what_is_stored(now: float) -> None:
    periods = PARIS.periods(now)
    assert periods_on(periods.day[1:], periods.slot) == periods
    assert 0 <= now - slot_start(slot_of(now)) < 300


@given(st.lists(st.integers(int(at("2026-03-28")), int(at("2026-03-30"))), min_size=2, max_size=20))
def test_what_was_asked_before_changes_no_answer(moments: list[int]) -> None:
    used = Calendar(ZoneInfo("Europe/Paris"))
    for now in moments:
        assert used.periods(now) == Calendar(ZoneInfo("Europe/Paris")).periods(now)


def test_a_limit_is_told_of_once_in_its_period_and_that_of_an_hour_once_in_the_clocks() -> None:
    now = at("2026-03-28T11:07")
    assert [PARIS.period(w, now) for w in (Window.TOTAL, Window.MONTH, Window.DAY)] == [
        "t",
        "m2026-03",
        "d2026-03-28",
    ]
    assert PARIS.period(Window.HOUR, now) == "h2026-03-28T11"
