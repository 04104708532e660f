"""Starts that were not made: why, what is told, and what makes up for them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from midwatch.core.states import State

HOUR, DAY = 3600.0, 86_400.0
HOURLY = {"cron": "0 * * * *"}


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def clock(moment: float) -> str:
    return f"{datetime.fromtimestamp(round(moment), UTC):%d %H:%M:%S}".removesuffix(":00")


# -- missed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "dues", "made_up"),
    [
        ("skip", ["10 13:00", "10 18:00"], 0),
        ("once", ["10 13:00", "10 17:00", "10 18:00"], 1),
        ("all", ["10 13:00", "10 14:00", "10 15:00", "10 16:00", "10 17:00", "10 18:00"], 4),
    ],
)
def test_what_a_stopped_supervisor_missed_is_told_and_made_up_for(
    nights: Any, policy: str, dues: list[str], made_up: int
) -> None:
    house = nights({**HOURLY, "missed": policy}).begin()
    house.system.advance(40 * 60)
    house.again(4 * HOUR + 600)
    house.system.advance(HOUR)
    assert house.dues == dues
    (missed,) = house.events("schedule.missed")
    assert (missed["count"], missed["made_up"], missed["dropped"]) == (4, made_up, 0)
    assert (missed["due_at"], missed["last_due_at"]) == (
        at("2026-06-10T14:00"),
        at("2026-06-10T17:00"),
    )
    assert missed["reason"] == "Midwatch was not running"
    assert round(missed["from"]) == at("2026-06-10T13:10")
    assert round(missed["to"]) == at("2026-06-10T17:20")


def test_one_run_for_each_is_one_after_the_other(nights: Any) -> None:
    house = nights({**HOURLY, "missed": "all"}, script=[(100.0, "exit 0")]).begin()
    house.again(3 * HOUR)
    house.system.advance(1000.0)
    whys = [e["why"] for e in house.events("run.started")]
    assert whys == [f"makes up for the run of 2026-06-10 {h}:00" for h in (13, 14, 15)]
    assert house.starts() == ["10 15:30", "10 15:31:40", "10 15:33:20"]


def test_one_run_for_each_is_bounded_and_the_rest_is_told(nights: Any) -> None:
    house = nights({"every": 60.0, "missed": "all"}, script=[(0.001, "exit 0")]).begin()
    house.again(150 * 60.0 + 30)
    (missed,) = house.events("schedule.missed")
    assert (missed["count"], missed["made_up"], missed["dropped"], missed["more"]) == (
        149,
        100,
        49,
        False,
    )
    house.system.advance(10.0)
    assert len(house.starts()) == 100 + 1
    assert (house.dues[0], house.dues[-1]) == ("10 13:20", "10 15:00")


def test_a_month_of_minutes_is_counted_as_far_as_it_is_wise(nights: Any) -> None:
    house = nights({"cron": "* * * * *", "missed": "all"}, script=[(0.001, "exit 0")]).begin()
    house.again(30 * DAY + 30)
    (missed,) = house.events("schedule.missed")
    assert (missed["count"], missed["more"], missed["made_up"]) == (1000, True, 100)
    house.system.advance(10.0)
    assert house.dues[-1] == "10 12:30"
    assert len(set(house.dues)) == len(house.dues) == 101


def test_what_the_host_slept_through_is_told_as_sleep(nights: Any) -> None:
    house = nights({"cron": "0 6 * * *"}, now="2026-06-10T05:10").begin()
    house.system.advance(30.0)
    house.system.sleep(2 * HOUR + 22 * 60)
    house.system.advance(31.0)
    (missed,) = house.events("schedule.missed")
    assert missed["reason"] == "the machine was asleep"
    assert clock(missed["from"]) == "10 05:10:30"
    assert clock(missed["to"]) == "10 07:33"
    assert house.dues == ["10 06:00"]
    assert house.events("run.started")[0]["made_up"] is True


def test_sleep_that_ends_within_the_window_is_a_late_start_and_no_missed_one(nights: Any) -> None:
    house = nights(HOURLY, now="2026-06-10T12:59:40").begin()
    house.system.sleep(60.0)
    house.system.advance(10.0)
    house.system.advance(21.0)
    assert house.dues == ["10 13:00"]
    assert house.events("schedule.missed") == []


def test_a_supervisor_that_stood_still_says_so(nights: Any) -> None:
    house = nights({"every": 10.0, "window": 2.0}).begin()
    house.system.advance(10.5)
    house.system._now += 25.0
    house.system._wall += 25.0
    house.system.advance(0.001)
    (missed,) = house.events("schedule.missed")
    assert (missed["count"], missed["reason"]) == (2, "Midwatch stood still")


def test_a_clock_set_forward_by_a_day_is_told_and_the_start_made_up_for(nights: Any) -> None:
    house = nights({"cron": "0 6 * * *"}).begin()
    house.system.advance(10.0)
    house.system.jump_wall(DAY)
    house.system.advance(31.0)
    assert house.dues == ["11 06:00"]
    (missed,) = house.events("schedule.missed")
    assert missed["reason"].startswith("the clock went forward by 1 day")


def test_a_clock_set_back_a_little_starts_nothing_twice(nights: Any) -> None:
    house = nights({"every": 600.0}).begin()
    house.system.advance(600.5)
    house.system.jump_wall(-1800.0)
    house.system.advance(2400.0)
    assert house.dues == ["10 12:40", "10 12:50"]
    assert house.events("schedule.missed") == []


def test_a_clock_set_back_by_a_day_is_followed_at_once(nights: Any) -> None:
    house = nights(HOURLY).begin()
    house.system.advance(HOUR)
    house.system.jump_wall(-DAY)
    house.system.advance(HOUR)
    assert house.dues == ["10 13:00", "09 14:00"]
    assert house.events("schedule.missed") == []


def test_a_clock_that_jumps_a_day_ahead_and_back_leaves_the_schedule_in_order(nights: Any) -> None:
    house = nights({**HOURLY, "missed": "skip"}).begin()
    house.system.jump_wall(DAY)
    house.system.advance(60.0)
    house.system.jump_wall(-DAY)
    house.system.advance(2 * HOUR)
    assert house.dues == ["10 13:00", "10 14:00"]


def test_a_changed_rule_missed_nothing_before_it_was_known(nights: Any) -> None:
    house = nights({"cron": "0 6 * * *"}).begin()
    house.again(3 * HOUR, cron="*/5 * * * *")
    house.system.advance(300.0)
    assert house.events("schedule.missed") == []
    assert house.dues == ["10 15:35"]


def test_a_disabled_agent_missed_nothing_when_it_is_enabled_again(nights: Any) -> None:
    house = nights(HOURLY).begin()
    house.entry = {"enabled": False}
    house.again(HOUR)
    assert house.keeper.state is State.STOPPED
    house.system.advance(5 * HOUR)
    house.entry = {}
    house.again(5 * HOUR)
    house.system.advance(HOUR)
    assert house.events("schedule.missed") == []
    assert len(house.dues) == 1


# -- held ------------------------------------------------------------------------------------------


def test_a_person_stopped_it_so_its_starts_are_left_out_and_expected(nights: Any) -> None:
    house = nights({**HOURLY, "missed": "all"}).begin()
    house.keeper.hold(State.STOPPED, "stopped by a person")
    house.system.advance(2 * HOUR)
    assert house.starts() == []
    missed = house.events("schedule.missed")
    assert [(m["count"], m["expected"], m["parked"], m["made_up"]) for m in missed] == [
        (1, True, False, 0)
    ] * 2
    assert missed[0]["reason"] == "it is stopped: stopped by a person"
    house.keeper.release("started by a person")
    house.system.advance(HOUR)
    assert len(house.starts()) == 2


def test_a_failed_run_is_tried_again_then_parked_until_its_next_time(nights: Any) -> None:
    house = nights(HOURLY, script=[(1.0, "exit 1")]).begin()
    house.system.advance(HOUR)
    assert (house.keeper.state, len(house.starts())) == (State.PARKED, 4)
    house.system.advance(HOUR)
    assert len(house.starts()) == 8
    assert house.events("schedule.missed") == []


def test_what_a_restart_cannot_cure_stays_parked_and_its_starts_are_missed(nights: Any) -> None:
    refused = [
        (0.1, "print openai.AuthenticationError: Incorrect API key provided"),
        (1.0, "exit 1"),
    ]
    house = nights(HOURLY, script=refused).begin()
    house.system.advance(3 * HOUR)
    assert (house.keeper.state, len(house.starts())) == (State.PARKED, 1)
    missed = house.events("schedule.missed")
    assert [(m["parked"], m["expected"]) for m in missed] == [(True, False)] * 2


def test_a_restart_that_waits_gives_way_to_the_next_start(nights: Any) -> None:
    house = nights({"every": 10.0}, script=[(8.0, "exit 1")]).begin()
    house.entry = {}
    house.keeper.agent = house.keeper.agent.model_copy(
        update={"restart": house.keeper.agent.restart.model_copy(update={"backoff": (5.0, 5.0)})}
    )
    house.system.advance(25.0)
    assert [s[3:] for s in house.starts()] == ["12:30:10", "12:30:20"]
    assert [e["failures"] for e in house.events("run.ended")] == [1]
    house.system.advance(4.0)
    assert [e["failures"] for e in house.events("run.ended")] == [1, 2]


def test_a_start_of_which_no_process_comes_is_missed_after_its_window(nights: Any) -> None:
    house = nights({**HOURLY, "window": 30.0}).begin()
    del house.system.programs["agent"]
    house.system.advance(31 * 60)
    assert house.keeper.state is State.PARKED
    (missed,) = house.events("schedule.missed")
    assert missed["due_at"] == at("2026-06-10T13:00")
    assert "could not be started" in missed["reason"]
