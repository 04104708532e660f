"""When a scheduled agent is started: zones, changes of the clock, distances, single times, jitter."""

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


# -- at its times ----------------------------------------------------------------------------------


def test_a_scheduled_agent_waits_runs_and_waits_again(nights: Any) -> None:
    house = nights(HOURLY).begin()
    assert house.keeper.state is State.SCHEDULED
    assert house.keeper.reason == "next run at 2026-06-10 13:00 UTC"
    house.system.advance(31 * 60)
    assert house.keeper.state is State.SCHEDULED
    assert house.keeper.next_start_at == at("2026-06-10T14:00")
    house.system.advance(2 * HOUR)
    assert house.starts() == ["10 13:00", "10 14:00", "10 15:00"]
    assert house.events("schedule.missed") == []
    assert {e["end"] for e in house.events("run.ended")} == {"finished"}


def test_while_it_runs_its_next_start_is_known(nights: Any) -> None:
    house = nights(HOURLY, script=()).begin()
    house.system.advance(31 * 60)
    assert house.keeper.state is State.RUNNING
    assert house.events("agent.state")[-1]["next_start_at"] == at("2026-06-10T14:00")


@pytest.mark.parametrize(
    ("schedule", "now", "length_s", "zone", "expected"),
    [
        ({"cron": "30 2 * * *", "timezone": "Europe/Paris"}, "2026-03-28T00:00", 3 * DAY, "Europe/Paris",
         ["28 02:30", "29 03:00", "30 02:30"]),
        ({"cron": "30 2 * * *", "timezone": "Europe/Paris"}, "2026-10-24T00:00", 3 * DAY, "Europe/Paris",
         ["24 02:30", "25 02:30", "26 02:30"]),
        ({"cron": "30 1 * * *", "timezone": "America/New_York"}, "2026-10-31T00:00", 3 * DAY, "America/New_York",
         ["31 01:30", "01 01:30", "02 01:30"]),
        ({"cron": "15 2 * * *", "timezone": "Australia/Lord_Howe"}, "2026-10-02T14:00", 3 * DAY,
         "Australia/Lord_Howe", ["03 02:15", "04 02:30", "05 02:15"]),
        ({"cron": "0 */2 * * *", "timezone": "Europe/Paris"}, "2026-03-28T23:30", 6 * HOUR, "Europe/Paris",
         ["29 04:00", "29 06:00"]),
        ({"cron": "0 0 29 2 *"}, "2028-02-28T12:00", 3 * DAY, "UTC", ["29 00:00"]),
        # the distance stays; the time of day moves with the clock
        ({"every": 6 * HOUR, "timezone": "Europe/Paris"}, "2026-03-28T20:00", DAY, "Europe/Paris",
         ["29 00:00", "29 07:00", "29 13:00", "29 19:00"]),
        ({"every": 7 * HOUR}, "2026-06-10T00:30", DAY, "UTC", ["10 01:00", "10 08:00", "10 15:00", "10 22:00"]),
        ({"at": "2026-06-10 14:30", "timezone": "Europe/Paris"}, "2026-06-10T00:00", DAY, "Europe/Paris",
         ["10 14:30"]),
        ({"at": "2026-03-29 02:30", "timezone": "Europe/Paris"}, "2026-03-28T20:00", DAY, "Europe/Paris",
         ["29 03:00"]),
        ({"at": "2026-10-25 02:30", "timezone": "Europe/Paris"}, "2026-10-24T20:00", DAY, "UTC", ["25 00:30"]),
        ({"at": "2026-10-25T02:30+01:00"}, "2026-10-24T20:00", DAY, "UTC", ["25 01:30"]),
        ({"every": HOUR, "between": "22:00..01:00"}, "2026-06-10T12:30", DAY, "UTC",
         ["10 22:00", "10 23:00", "11 00:00"]),
    ],
)  # fmt: skip
def test_starts_come_exactly_when_the_rule_says(
    nights: Any, schedule: Any, now: str, length_s: float, zone: str, expected: list[str]
) -> None:
    house = nights(schedule, now=now).begin()
    house.system.advance(length_s)
    assert house.starts(zone) == expected
    assert house.events("schedule.missed") == []


def test_a_start_is_not_off_by_drift_after_a_week(nights: Any) -> None:
    house = nights({"every": 900.0}).begin()
    house.system.advance(7 * DAY)
    times = [i["at"] for _, i in house.recorder.items if i.get("kind") == "run.started"]
    assert len(times) == 7 * 96
    assert max(t % 900 for t in times) < 0.001


def test_jitter_is_the_agents_own_and_stays_what_it_is(nights: Any) -> None:
    house = nights({**HOURLY, "jitter": 600.0}).begin()
    house.system.advance(3 * HOUR)
    house.again(0.0)
    house.system.advance(2 * HOUR)
    times = [i["at"] % HOUR for _, i in house.recorder.items if i.get("kind") == "run.started"]
    assert len(times) == 5
    assert 0 < times[0] < 600
    assert max(times) - min(times) < 0.01
    assert house.dues == ["10 13:00", "10 14:00", "10 15:00", "10 16:00", "10 17:00"]


# -- once ------------------------------------------------------------------------------------------


def test_a_single_start_is_done_for_ever(nights: Any) -> None:
    house = nights({"at": "2026-06-10 14:00"}).begin()
    house.system.advance(2 * HOUR)
    assert (house.keeper.state, house.starts()) == (State.STOPPED, ["10 14:00"])
    assert house.keeper.reason == "done: its schedule names no other time"
    house.again(HOUR)
    house.again(DAY, killed=True)
    house.system.advance(DAY)
    assert (house.keeper.state, house.starts()) == (State.STOPPED, ["10 14:00"])
    assert house.events("schedule.missed") == []


def test_a_single_start_that_is_past_at_first_sight_was_missed(nights: Any) -> None:
    house = nights({"at": "2026-06-10 06:00"}).begin()
    house.system.advance(5.0)
    assert house.starts() == ["10 12:30"]
    (missed,) = house.events("schedule.missed")
    assert (missed["count"], missed["made_up"], missed["due_at"]) == (1, 1, at("2026-06-10T06:00"))


def test_a_past_single_start_is_left_out_where_that_is_asked_for(nights: Any) -> None:
    house = nights({"at": "2026-06-10 06:00", "missed": "skip"}).begin()
    house.system.advance(5.0)
    assert (house.keeper.state, house.starts()) == (State.STOPPED, [])
    assert house.events("schedule.missed")[0]["made_up"] == 0


def test_a_single_start_that_fails_is_tried_again(nights: Any) -> None:
    house = nights({"at": "2026-06-10 14:00"}, script=[(1.0, "exit 1")]).begin()
    house.system.advance(3 * HOUR)
    assert len(house.starts()) == 4
    assert house.keeper.state is State.PARKED
