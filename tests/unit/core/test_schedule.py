"""When scheduled agents run: zones, daylight saving, and runs that were missed."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.schedule import next_after, next_firing
from midwatch.core.terms import Schedule


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


SIX = Schedule(cron="0 6 * * *", timezone="Europe/Paris")


def test_cron_is_read_in_the_agents_own_zone() -> None:
    assert next_after(SIX, "UTC", at("2026-07-01T00:00")) == at("2026-07-01T04:00")
    assert next_after(SIX, "UTC", at("2026-01-01T00:00")) == at("2026-01-01T05:00")


def test_without_a_zone_the_fleets_counts() -> None:
    assert next_after(Schedule(cron="0 6 * * *"), "Asia/Tokyo", at("2026-01-01T00:00")) == at(
        "2026-01-01T21:00"
    )


def test_a_run_in_the_hour_that_spring_skips_still_happens_that_day() -> None:
    half_past_two = Schedule(cron="30 2 * * *", timezone="Europe/Paris")
    due = next_after(half_past_two, "UTC", at("2026-03-28T12:00"))
    assert due is not None
    assert at("2026-03-29T00:00") < due < at("2026-03-29T03:00")


def test_a_run_in_the_hour_that_autumn_repeats_happens_once() -> None:
    half_past_two = Schedule(cron="30 2 * * *", timezone="Europe/Paris")
    first = next_after(half_past_two, "UTC", at("2026-10-24T12:00"))
    assert first is not None
    assert next_after(half_past_two, "UTC", first) == at("2026-10-26T01:30")


def test_an_expression_that_never_fires_has_no_next() -> None:
    assert (
        next_after(
            Schedule.model_construct(cron="0 0 30 2 *", timezone=None),
            "UTC",
            at("2026-01-01T00:00"),
        )
        is None
    )


def test_what_was_missed_is_made_up_for_once() -> None:
    now = at("2026-07-04T12:00")
    firing = next_firing(SIX, "UTC", last=at("2026-07-01T04:00"), now=now)
    assert firing is not None
    assert (firing.at, firing.made_up) == (now, True)
    assert firing.reason == "makes up for the run of 2026-07-02 06:00"
    after = next_firing(SIX, "UTC", last=now, now=now)
    assert after is not None
    assert (after.at, after.made_up) == (at("2026-07-05T04:00"), False)


def test_what_was_missed_is_skipped_where_that_is_asked_for() -> None:
    skip = Schedule(cron="0 6 * * *", timezone="Europe/Paris", missed="skip")
    firing = next_firing(skip, "UTC", last=at("2026-07-01T04:00"), now=at("2026-07-04T12:00"))
    assert firing is not None
    assert (firing.at, firing.made_up) == (at("2026-07-05T04:00"), False)


def test_a_start_that_is_late_by_seconds_is_no_missed_run() -> None:
    due = at("2026-07-02T04:00")
    for policy in ("once", "skip"):
        plan = Schedule.model_validate(
            {"cron": "0 6 * * *", "timezone": "Europe/Paris", "missed": policy}
        )
        firing = next_firing(plan, "UTC", last=at("2026-07-01T04:00"), now=due + 2)
        assert firing is not None
        assert (firing.at, firing.made_up) == (due + 2, False)


@given(
    st.integers(0, 2**31),
    st.sampled_from(["*/5 * * * *", "0 6 * * 1-5", "15 14 1 * *", "0 0 * * *"]),
)
def test_the_next_time_is_always_later(after: int, cron: str) -> None:
    due = next_after(Schedule(cron=cron), "Europe/Paris", float(after))
    assert due is None or due > after


def test_a_clock_that_was_wrong_by_a_year_does_not_silence_the_schedule() -> None:
    plan = Schedule(cron="*/5 * * * *")
    wrong = at("2027-06-01T00:00")
    before, due = at("2026-06-01T00:01"), at("2026-06-01T00:05")
    waiting = next_firing(plan, "UTC", last=wrong, now=before)
    assert waiting is not None
    assert waiting.at == due
    firing = next_firing(plan, "UTC", last=wrong, now=due + 0.01)
    assert firing is not None
    assert firing.at == due + 0.01


def test_a_clock_that_steps_back_a_little_does_not_start_the_same_run_twice() -> None:
    plan = Schedule(cron="*/5 * * * *")
    fired, again = at("2026-06-01T00:05") + 0.01, at("2026-06-01T00:05") + 0.001
    firing = next_firing(plan, "UTC", last=fired, now=again - 1)
    assert firing is not None
    assert firing.at > again - 1
    later = next_firing(plan, "UTC", last=fired, now=again)
    assert later is not None
    assert later.at == at("2026-06-01T00:10")
