"""Clock changes: exact times of cron expressions against a clock that is read minute by minute."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.core.walltime import instant, local, next_cron, turn

PARIS, NEW_YORK = ZoneInfo("Europe/Paris"), ZoneInfo("America/New_York")
LORD_HOWE, LONDON = ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Europe/London")
CHANGES = {
    "Europe/Paris": ("2026-03-29", "2026-10-25"),
    "America/New_York": ("2026-03-08", "2026-11-01"),
    "Australia/Lord_Howe": ("2026-10-04", "2026-04-05"),
    "America/St_Johns": ("2026-03-08", "2026-11-01"),
}


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def shown(text: str) -> datetime:
    """What a clock on the wall shows."""
    return datetime.fromisoformat(text)


def times(expression: str, zone: str, after: str, count: int) -> list[str]:
    """The next `count` times, as the wall shows them, with the offset from UTC."""
    tz = ZoneInfo(zone)
    now = instant(datetime.fromisoformat(after), tz)
    found: list[str] = []
    for _ in range(count):
        due = next_cron(expression, tz, now)
        assert due is not None
        assert due > now
        now = due
        found.append(datetime.fromtimestamp(due, tz).isoformat()[5:].removesuffix(":00"))
    return found


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        # fixed times: one run a day, whatever the clock does
        ("30 2 * * *", "Europe/Paris", "2026-03-28T00:00",
         ["03-28T02:30:00+01", "03-29T03:00:00+02", "03-30T02:30:00+02"]),
        ("30 2 * * *", "Europe/Paris", "2026-10-24T00:00",
         ["10-24T02:30:00+02", "10-25T02:30:00+02", "10-26T02:30:00+01"]),
        ("30 2 * * *", "America/New_York", "2026-03-07T00:00",
         ["03-07T02:30:00-05", "03-08T03:00:00-04", "03-09T02:30:00-04"]),
        ("30 1 * * *", "America/New_York", "2026-10-31T00:00",
         ["10-31T01:30:00-04", "11-01T01:30:00-04", "11-02T01:30:00-05"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00",
         ["10-03T02:15:00+10:30", "10-04T02:30:00+11", "10-05T02:15:00+11"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00",
         ["04-04T01:45:00+11", "04-05T01:45:00+11", "04-06T01:45:00+10:30"]),
        ("30 2 * * *", "UTC", "2026-03-28T00:00",
         ["03-28T02:30:00+00", "03-29T02:30:00+00", "03-30T02:30:00+00"]),
        # two times in the gap, and one right after it, are one run
        ("0,30 2,3 * * *", "Europe/Paris", "2026-03-29T00:00",
         ["03-29T03:00:00+02", "03-29T03:30:00+02", "03-30T02:00:00+02"]),
        # running times: as the clock really goes
        ("*/30 * * * *", "Europe/Paris", "2026-03-29T01:00",
         ["03-29T01:30:00+01", "03-29T03:00:00+02", "03-29T03:30:00+02"]),
        ("*/30 * * * *", "Europe/Paris", "2026-10-25T01:45",
         ["10-25T02:00:00+02", "10-25T02:30:00+02", "10-25T02:00:00+01", "10-25T02:30:00+01",
          "10-25T03:00:00+01"]),
        ("0 * * * *", "Australia/Lord_Howe", "2026-04-05T00:30",
         ["04-05T01:00:00+11", "04-05T02:00:00+10:30", "04-05T03:00:00+10:30"]),
        # cronsim alone leaves out 02:00 and 02:15 here
        ("*/15 2 * * *", "Australia/Lord_Howe", "2026-04-05T00:00",
         ["04-05T02:00:00+10:30", "04-05T02:15:00+10:30", "04-05T02:30:00+10:30"]),
        ("0 0 29 2 *", "Europe/Paris", "2026-01-01T00:00",
         ["02-29T00:00:00+01"] * 3),
        ("*/20 0 29 2 *", "America/New_York", "2026-01-01T00:00",
         ["02-29T00:00:00-05", "02-29T00:20:00-05", "02-29T00:40:00-05", "02-29T00:00:00-05"]),
        ("* 2 * * *", "Europe/Paris", "2026-03-29T00:00", ["03-30T02:00:00+02"]),
    ],
)  # fmt: skip
def test_a_change_of_the_clock_moves_a_run_and_neither_drops_nor_doubles_it(
    expression: str, zone: str, after: str, expected: list[str]
) -> None:
    assert times(expression, zone, after, len(expected)) == expected


def test_leap_days_are_found_over_the_year_that_has_none() -> None:
    due = at("2096-02-29T00:00")
    assert next_cron("0 0 29 2 *", ZoneInfo("UTC"), due) == at("2104-02-29T00:00")


def test_the_second_pass_through_an_hour_does_not_bring_back_the_first() -> None:
    second_pass = datetime(2026, 10, 25, 2, 45, fold=1, tzinfo=PARIS).timestamp()
    due = next_cron("50 2 * * *", PARIS, second_pass)
    assert due == datetime(2026, 10, 26, 2, 50, tzinfo=PARIS).timestamp()


def test_what_never_comes_has_no_time() -> None:
    assert next_cron("0 0 30 2 *", PARIS, 0.0) is None
    assert next_cron("* 0 30 2 *", PARIS, 0.0) is None


def test_a_time_that_the_clock_leaves_out_is_the_moment_of_the_jump() -> None:
    assert instant(shown("2026-03-29T02:30"), PARIS) == at("2026-03-29T01:00")
    assert instant(shown("2026-03-29T02:00"), PARIS) == at("2026-03-29T01:00")
    assert instant(shown("2026-10-04T02:10"), LORD_HOWE) == at("2026-10-03T15:30")


def test_a_time_that_the_clock_shows_twice_is_the_first_unless_the_second_is_asked_for() -> None:
    assert instant(shown("2026-10-25T02:30"), PARIS) == at("2026-10-25T00:30")
    assert instant(shown("2026-10-25T02:30"), PARIS, fold=1) == at("2026-10-25T01:30")


def test_a_turn_is_found_to_the_second() -> None:
    change = at("2026-03-29T01:00")
    assert turn(LONDON, change - 5000, change + 5000) == change
    assert turn(LONDON, change - 1, change) == change
    assert turn(LONDON, change, change + 5000) is None


def _shows(expression: str, at: float, zone: ZoneInfo) -> bool:
    sim = CronSim(expression, shown("2000-01-01"))
    clock = local(at, zone)
    return (
        clock.minute in sim.minutes
        and clock.hour in sim.hours
        and clock.month in sim.months
        and sim.match_day(clock.date())
    )


@settings(max_examples=40, deadline=None)
@given(
    zone=st.sampled_from(sorted(CHANGES)),
    season=st.sampled_from([0, 1]),
    expression=st.sampled_from(
        [
            "*/15 * * * *",
            "*/7 1-3 * * *",
            "5 * * * *",
            "* 2 * * *",
            "*/10 0,2 * * SUN",
            "59 */2 * * *",
        ]
    ),
    start=st.integers(-30, 20),
)
def test_a_running_expression_is_due_exactly_when_the_clock_shows_it(
    zone: str, season: int, expression: str, start: int
) -> None:
    tz = ZoneInfo(zone)
    begin = at(CHANGES[zone][season] + "T00:00") + start * 1800.0
    end = begin + 12 * 3600
    expected = [m for m in range(int(begin) + 60, int(end) + 1, 60) if _shows(expression, m, tz)]
    found: list[float] = []
    due = next_cron(expression, tz, begin)
    while due is not None and due <= end:
        found.append(due)
        due = next_cron(expression, tz, due)
    assert found == expected


@settings(max_examples=60, deadline=None)
@given(
    zone=st.sampled_from(sorted(CHANGES)),
    hour=st.integers(0, 23),
    minute=st.integers(0, 59),
    month=st.integers(1, 12),
)
def test_a_fixed_time_comes_once_on_every_day_of_the_year(
    zone: str, hour: int, minute: int, month: int
) -> None:
    tz = ZoneInfo(zone)
    now = instant(shown(f"2026-{month:02}-01"), tz) - 1
    days: list[int] = []
    dues: list[float] = []
    for _ in range(28):
        due = next_cron(f"{minute} {hour} * * *", tz, now)
        assert due is not None
        dues.append(due)
        days.append(local(due, tz).day)
        now = due
    assert days == list(range(1, 29))
    assert all(b > a for a, b in pairwise(dues))
