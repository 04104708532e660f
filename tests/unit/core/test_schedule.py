"""A schedule on the calendar, and what a look at it leads to. Clock changes are in test_walltime."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from midwatch.core.fleet import Agent
from midwatch.core.schedule import (
    MAX_MADE_UP,
    SET_BACK_S,
    Due,
    Plan,
    Situation,
    Step,
    backlog,
    decide,
    exactly,
    in_words,
    show_day,
)
from midwatch.core.terms import Schedule

HOUR = 3600.0
ZONES = ["UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def plan(agent: str = "report", zone: str = "UTC", **terms: Any) -> Plan:
    return Plan(Schedule.model_validate(terms), zone, agent)


def dues(of: Plan, since: str, count: int) -> list[Due]:
    found: list[Due] = []
    last = at(since)
    for _ in range(count):
        due = of.after(last)
        assert due is not None
        found.append(due)
        last = due.of
    return found


# -- the calendar -------------------------------------------------------------------------------


def test_cron_is_read_in_the_schedules_own_zone_and_in_the_fleets_without_one() -> None:
    own = plan(cron="0 6 * * *", timezone="Europe/Paris", zone="Asia/Tokyo")
    assert dues(own, "2026-07-01T00:00", 1)[0].of == at("2026-07-01T04:00")
    fleets = plan(cron="0 6 * * *", zone="Asia/Tokyo")
    assert dues(fleets, "2026-01-01T00:00", 1)[0].of == at("2026-01-01T21:00")


def test_every_is_counted_from_a_mondays_midnight_of_the_zone() -> None:
    weekly = plan(every=7 * 24 * HOUR, zone="Asia/Kathmandu")
    shown = datetime.fromtimestamp(
        dues(weekly, "2026-06-10T00:00", 1)[0].of, ZoneInfo("Asia/Kathmandu")
    )
    assert f"{shown:%a %H:%M}" == "Mon 00:00"


def test_a_daily_distance_moves_with_the_clock_and_keeps_its_length() -> None:
    daily = plan(every=24 * HOUR, zone="Europe/Paris")
    found = dues(daily, "2026-03-27T12:00", 4)
    assert {b.of - a.of for a, b in pairwise(found)} == {24 * HOUR}
    shown = [datetime.fromtimestamp(d.of, ZoneInfo("Europe/Paris")).hour for d in found]
    assert shown == [0, 0, 1, 1]


def test_hours_leave_out_what_is_due_outside_them_over_midnight_too() -> None:
    night = plan(every=2 * HOUR, between="22:00..06:00")
    hours = [datetime.fromtimestamp(d.of, UTC).hour for d in dues(night, "2026-06-10T12:00", 5)]
    assert hours == [22, 0, 2, 4, 22]


def test_the_end_of_the_hours_is_not_in_them() -> None:
    morning = plan(cron="0 * * * *", between="08:00..10:00")
    assert [
        datetime.fromtimestamp(d.of, UTC).hour for d in dues(morning, "2026-06-10T00:00", 3)
    ] == [8, 9, 8]
    assert (morning.open(at("2026-06-10T08:00")), morning.open(at("2026-06-10T10:00"))) == (
        True,
        False,
    )
    assert morning.opens(at("2026-06-10T10:00")) == at("2026-06-11T08:00")
    assert morning.opens(at("2026-06-10T09:00")) == at("2026-06-10T09:00")


def test_an_expression_that_never_fires_has_no_start() -> None:
    never = Plan(Schedule.model_construct(cron="0 0 30 2 *"), "UTC")
    assert never.after(0.0) is None


def test_agents_of_one_schedule_start_apart_and_each_at_its_own_time() -> None:
    starts = {
        name: dues(plan(name, cron="0 6 * * *", jitter=600.0), "2026-06-10T00:00", 2)
        for name in "abcdefgh"
    }
    offsets = {name: {round(d.at - d.of, 6) for d in found} for name, found in starts.items()}
    assert all(len(o) == 1 for o in offsets.values())
    assert len({min(o) for o in offsets.values()}) == 8
    assert all(0 <= min(o) < 600 for o in offsets.values())


RULES = st.one_of(
    st.sampled_from(
        [
            "*/5 * * * *",
            "0 6 * * 1-5",
            "15 14 1 * *",
            "30 2 * * *",
            "*/20 1-3 * * *",
            "0 0 29 2 *",
            "5 */3 * * *",
        ]
    ).map(lambda cron: {"cron": cron}),
    st.floats(1.0, 30_000.0, allow_nan=False).map(lambda every: {"every": every}),
)


@settings(max_examples=150, deadline=None)
@given(
    rule=RULES,
    zone=st.sampled_from(ZONES),
    since=st.integers(at_ := 1_767_225_600, at_ + 366 * 86_400),
    share=st.floats(0, 0.99),
    hours=st.sampled_from([None, (22, 6), (1, 4), (0, 12)]),
    agent=st.sampled_from(["a", "b", "report"]),
)
def test_starts_come_one_after_the_other_and_within_their_hours(
    rule: dict[str, Any],
    zone: str,
    since: int,
    share: float,
    hours: tuple[int, int] | None,
    agent: str,
) -> None:
    jitter = share * min(rule.get("every", 7000.0), 7000.0)
    document = {**rule, "jitter": jitter}
    if hours:
        document["between"] = f"{hours[0]:02}:00..{hours[1]:02}:00"
    try:
        terms = Schedule.model_validate(document)
    except ValueError:
        reject()
    found = Plan(terms, zone, agent)
    last = Due(float(since), float(since))
    for _ in range(12):
        due = found.after(last.of)
        if due is None:
            break
        assert due.of > last.of
        assert due.at > last.at or last.of == since
        assert due.of <= due.at <= due.of + jitter
        assert found.open(due.at)
        if hours is not None:
            hour = datetime.fromtimestamp(due.at, ZoneInfo(zone)).hour
            assert hours[0] <= hour < hours[1] or (hours[0] > hours[1] and (hour >= 22 or hour < 6))
        last = due


# -- what a look leads to -----------------------------------------------------------------------


def look(of: Plan, now: str, settled: str, **more: Any) -> Step:
    return decide(of, Situation(now=at(now), settled=at(settled), **more))


def test_nothing_is_due_before_its_time() -> None:
    step = look(plan(cron="0 * * * *"), "2026-06-10T12:59:59", "2026-06-10T12:00")
    assert (step.start, step.owed, step.missed, step.overlap) == (False, (), None, None)
    assert step.wake_at == at("2026-06-10T13:00")


@pytest.mark.parametrize("policy", ["skip", "once", "all"])
def test_a_start_within_its_window_is_late_and_not_missed(policy: str) -> None:
    step = look(plan(cron="0 * * * *", missed=policy), "2026-06-10T13:00:59", "2026-06-10T12:00")
    assert (step.start, step.owed, step.missed) == (True, ((at("2026-06-10T13:00"), "due"),), None)


def test_of_two_that_are_due_together_the_earlier_was_missed_and_the_later_serves_for_both() -> (
    None
):
    step = look(plan(every=10.0), "2026-06-10T13:00:25", "2026-06-10T13:00:00")
    assert step.owed == ((at("2026-06-10T13:00:20"), "due"),)
    assert step.missed is not None
    assert (step.missed.count, step.missed.made_up) == (1, 1)


def test_what_makes_up_waits_for_its_hours_and_for_the_run_that_works() -> None:
    night = plan(cron="0 23 * * *", between="22:00..06:00")
    step = look(night, "2026-06-11T12:00", "2026-06-10T12:00")
    assert (step.start, step.wake_at) == (False, at("2026-06-11T22:00"))
    assert step.missed is not None
    assert step.missed.at == at("2026-06-11T22:00")
    busy = look(
        plan(cron="0 * * * *"),
        "2026-06-10T14:30",
        "2026-06-10T13:00",
        busy_since=at("2026-06-10T14:20"),
    )
    assert (busy.start, busy.owed, busy.overlap) == (
        False,
        ((at("2026-06-10T14:00"), "missed"),),
        None,
    )


def test_what_fell_due_before_the_run_was_missed_and_after_it_overlaps() -> None:
    step = look(
        plan(cron="0 * * * *", missed="all", overlap="queue"),
        "2026-06-10T16:30",
        "2026-06-10T13:00",
        busy_since=at("2026-06-10T15:30"),
    )
    assert step.missed is not None
    assert step.overlap is not None
    assert (step.missed.count, step.overlap.count, step.overlap.then) == (2, 1, "full")
    assert [of for of, _ in step.owed] == [at("2026-06-10T14:00"), at("2026-06-10T15:00")]


def test_a_replacement_asks_for_the_end_of_the_run_and_takes_the_newest() -> None:
    step = look(
        plan(cron="0 * * * *", overlap="replace"),
        "2026-06-10T16:00:30",
        "2026-06-10T14:00",
        busy_since=at("2026-06-10T14:00"),
    )
    assert (step.replace, step.start) == (True, False)
    assert step.owed == ((at("2026-06-10T16:00"), "replacing"),)


def test_what_is_owed_does_not_break_into_restarts_and_what_falls_due_does() -> None:
    hourly = plan(cron="0 * * * *")
    owed = ((at("2026-06-10T12:00"), "queued"),)
    waits = look(hourly, "2026-06-10T12:30", "2026-06-10T12:00", owed=owed, idle=False)
    assert (waits.start, waits.owed) == (False, owed)
    due = look(hourly, "2026-06-10T13:00", "2026-06-10T12:00", owed=owed, idle=False)
    assert (due.start, due.owed) == (True, ((at("2026-06-10T13:00"), "due"),))


def test_a_barred_agent_owes_nothing_afterwards() -> None:
    owed = ((at("2026-06-10T12:00"), "queued"), (at("2026-06-10T11:00"), "missed"))
    step = look(
        plan(cron="0 * * * *", missed="all"),
        "2026-06-10T13:30",
        "2026-06-10T12:00",
        owed=owed,
        barred=True,
    )
    assert (step.start, step.owed) == (False, ())
    assert step.missed is not None
    assert step.missed.count == 2  # the third was told before


def test_a_small_step_back_repeats_nothing_and_a_large_one_follows_the_new_time() -> None:
    hourly = plan(cron="0 * * * *")
    settled = at("2026-06-10T13:00")
    small = decide(hourly, Situation(now=settled - SET_BACK_S, settled=settled))
    assert small.wake_at == settled + HOUR
    large = decide(hourly, Situation(now=settled - SET_BACK_S - 1, settled=settled))
    assert (large.settled, large.wake_at) == (settled - SET_BACK_S - 1, settled - SET_BACK_S)


def test_a_single_start_that_was_made_stays_made_when_the_clock_goes_back() -> None:
    once = plan(at="2026-06-10 13:00")
    made = at("2026-06-10T13:00")
    assert decide(once, Situation(now=made - 10 * HOUR, settled=made)).wake_at is None


def test_the_newest_are_kept_of_a_year_that_was_missed_and_it_is_quick() -> None:
    found = backlog(plan(cron="*/10 * * * *"), at("2025-06-10T00:00"), at("2026-06-10T00:05"))
    assert found is not None
    assert (found.count, found.more, len(found.newest)) == (1000, True, MAX_MADE_UP + 1)
    assert found.newest[-1].of == at("2026-06-10T00:00")
    assert {b.of - a.of for a, b in pairwise(found.newest)} == {600.0}


@settings(max_examples=100, deadline=None)
@given(
    missed=st.sampled_from(["skip", "once", "all"]),
    overlap=st.sampled_from(["skip", "queue", "replace"]),
    gaps=st.lists(st.tuples(st.integers(1, 30_000), st.booleans(), st.booleans()), max_size=15),
)
def test_a_due_time_is_owed_at_most_once_and_what_is_settled_only_grows(
    missed: str, overlap: str, gaps: list[tuple[int, bool, bool]]
) -> None:
    of = plan(cron="*/30 * * * *", missed=missed, overlap=overlap)
    now = settled = at("2026-06-10T12:00")
    owed: tuple[tuple[float, str], ...] = ()
    made: list[float] = []
    for gap, busy, barred in gaps:
        began = now
        now += gap
        step = decide(of, Situation(now, settled, owed, began if busy else None, barred))
        assert step.settled >= settled
        assert len(step.owed) <= MAX_MADE_UP + 1
        assert step.next is None or step.next.at > now
        settled, owed = step.settled, step.owed
        if step.start:
            made.append(owed[0][0])
            owed = owed[1:]
        assert len({o for o, _ in owed} | set(made)) == len(owed) + len(made)


# -- words --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"cron": "0 6 * * *"}, "at 06:00 every day"),
        (
            {"cron": "*/15 9-17 * * MON-FRI"},
            "every 15th minute from 09:00 through 17:59 on Monday through Friday",
        ),
        ({"every": 5400.0, "between": "22:00..06:00"}, "every 1h30m, between 22:00 and 06:00"),
        ({"every": 900.0, "jitter": 90.0}, "every 15m, put off by up to 1m30s"),
        ({"at": "2026-11-30T06:00"}, "once, at 2026-11-30 06:00"),
    ],
)
def test_a_rule_is_told_in_words(terms: dict[str, Any], words: str) -> None:
    assert in_words(Schedule.model_validate(terms)) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(86_400, "1d"), (90_061.5, "1d1h1m1s500ms"), (0.0001, "0s")]
)
def test_a_distance_is_told_exactly(seconds: float, words: str) -> None:
    assert exactly(seconds) == words


def test_a_time_is_shown_on_the_schedules_clock() -> None:
    paris = plan(cron="0 6 * * *", timezone="Europe/Paris")
    assert show_day(at("2026-07-02T04:00"), paris) == "2026-07-02 06:00"
    assert (
        show_day(at("2026-07-02T04:00") + timedelta(seconds=9).total_seconds(), paris)
        == "2026-07-02 06:00:09"
    )


def test_every_cron_of_the_checks_has_words() -> None:
    for cron in ("0 0 L * *", "30 4 1,15 * 5", "0 0 * * 5L", "0 0 * * MON#2", "0 0 LW * *"):
        agent = Agent(command=["x"], schedule=Schedule(cron=cron))
        assert agent.schedule is not None
        assert in_words(agent.schedule)
