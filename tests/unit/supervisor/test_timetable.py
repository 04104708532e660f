"""A scheduled agent, on a fake clock: when it is started, what it missed, and what a sudden death cannot undo."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from midwatch.core.exits import Wish
from midwatch.core.fleet import Agent
from midwatch.core.states import State
from midwatch.supervisor.fake import FakeSystem
from midwatch.supervisor.journal import Journal
from midwatch.supervisor.keeper import Keeper
from midwatch.supervisor.output import Capture, Writer
from midwatch.supervisor.reporter import Recorder, Reports
from midwatch.supervisor.surroundings import Surroundings

HOUR, DAY = 3600.0, 86_400.0
HOURLY = {"cron": "0 * * * *"}


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@dataclass
class Nights:
    """One scheduled agent under one supervisor after another."""

    folder: Path
    writer: Writer
    schedule: dict[str, Any]
    system: FakeSystem
    entry: dict[str, Any] = field(default_factory=dict[str, Any])
    recorder: Recorder = field(default_factory=Recorder)
    said: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.journal = Journal(self.folder / "journal")
        self.keeper = self._make(None)

    def _make(self, away_since: float | None) -> Keeper:
        around = Surroundings(
            system=self.system,
            journal=self.journal,
            reports=Reports(self.recorder, "here"),
            say=self.said.append,
            environment=lambda *_: {},
            directory=lambda _: "/",
            fingerprint=lambda entry: str(entry.command),
            hear_now=lambda _: None,
            random=lambda: 0.0,
            away_since=away_since,
        )
        restart = {"attempts": 3, "backoff": (1.0, 8.0), "stable_after": 60.0}
        document = {"command": ["agent"], "restart": restart, **self.entry}
        agent = Agent.model_validate({**document, "schedule": self.schedule})
        return Keeper("report", agent, around, Capture(self.writer, self.folder))

    def begin(self) -> Nights:
        self.keeper.begin(resumed=False)
        return self

    def again(self, after_s: float, *, killed: bool = False, **changes: Any) -> Nights:
        """Another supervisor, `after_s` after this one stopped, or was killed, with what its journal holds."""
        since = self.system.wall()
        if killed:
            self.keeper.timers.cancel()
            if self.keeper._timetable is not None:
                self.keeper._timetable.cancel()
            for process in self.system.launched:
                process.launch.__dict__ if hasattr(process.launch, "__dict__") else None
                self.system._living.pop(process.pid, None)
        else:
            self.keeper.shut_down()
            self.system.advance(0.001)
        self.journal.close()
        self.system.advance(after_s)
        self.schedule = {**self.schedule, **changes}
        self.journal = Journal(self.folder / "journal")
        self.keeper = self._make(since)
        self.keeper.begin(resumed=killed)
        self.system.advance(0.001)
        return self

    def events(self, kind: str) -> list[dict[str, Any]]:
        return self.recorder.events(kind)

    @property
    def dues(self) -> list[str]:
        """The times in the rule for which runs were started, in UTC."""
        return [_clock(e["due_at"]) for e in self.events("run.started") if "due_at" in e]

    def starts(self, zone: str = "UTC") -> list[str]:
        """When runs were started."""
        items = [i for k, i in self.recorder.items if i.get("kind") == "run.started"]
        return [_clock(item["at"], zone) for item in items]


def _clock(moment: float, zone: str = "UTC") -> str:
    return f"{datetime.fromtimestamp(round(moment), ZoneInfo(zone)):%d %H:%M:%S}".removesuffix(
        ":00"
    )


@pytest.fixture(scope="module")
def writer() -> Any:
    shared = Writer()
    yield shared
    shared.close()


@pytest.fixture
def nights(tmp_path: Path, writer: Writer) -> Any:
    def make(
        schedule: dict[str, Any],
        now: str = "2026-06-10T12:30",
        script: Any = ((1.0, "exit 0"),),
        **entry: Any,
    ) -> Nights:
        system = FakeSystem(wall=at(now))
        system.programs["agent"] = script
        return Nights(tmp_path, writer, schedule, system, entry)

    return make


# -- at its times -------------------------------------------------------------------------------


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


# -- once ---------------------------------------------------------------------------------------


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


# -- missed -------------------------------------------------------------------------------------


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
    assert _clock(missed["from"]) == "10 05:10:30"
    assert _clock(missed["to"]) == "10 07:33"
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


# -- held ---------------------------------------------------------------------------------------


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


# -- overlap ------------------------------------------------------------------------------------


def test_an_overlapping_start_is_left_out_and_told(nights: Any) -> None:
    house = nights(HOURLY, script=[(4000.0, "exit 0")]).begin()
    house.system.advance(2.6 * HOUR)
    assert house.dues == ["10 13:00", "10 15:00"]
    (overlap,) = house.events("schedule.overlap")
    assert (overlap["then"], overlap["count"], overlap["due_at"]) == (
        "skip",
        1,
        at("2026-06-10T14:00"),
    )
    assert overlap["ran_s"] == pytest.approx(HOUR)
    assert house.events("schedule.missed") == []


def test_a_queued_start_is_made_when_the_run_before_ends_and_only_one_waits(nights: Any) -> None:
    house = nights({**HOURLY, "overlap": "queue"}, script=[(9000.0, "exit 0")]).begin()
    house.system.advance(4 * HOUR)
    assert [e["then"] for e in house.events("schedule.overlap")] == ["queue", "full", "queue"]
    assert house.starts() == ["10 13:00", "10 15:30"]
    assert house.dues == ["10 13:00", "10 14:00"]


def test_a_run_is_replaced_by_the_next_start_with_its_grace(nights: Any) -> None:
    house = nights({**HOURLY, "overlap": "replace"}, script=[(0.0, "ignore TERM")]).begin()
    house.keeper.agent = house.keeper.agent.model_copy(
        update={"limits": house.keeper.agent.limits.model_copy(update={"stop_grace": 5.0})}
    )
    house.system.advance(1.6 * HOUR)
    assert house.dues == ["10 13:00", "10 14:00"]
    assert house.starts() == ["10 13:00", "10 14:00:05"]
    (ended,) = house.events("run.ended")
    assert (ended["end"], ended["expected"]) == ("changed", True)
    assert house.events("run.started")[1]["why"] == "replaced by the run of 14:00"
    assert house.keeper.restarts == 1


def test_a_person_who_stops_the_run_is_not_overruled_by_a_replacement(nights: Any) -> None:
    house = nights({**HOURLY, "overlap": "replace"}, script=[(0.0, "ignore TERM")]).begin()
    house.system.advance(1800 + 3598)
    house.keeper.finish(Wish.STOP, "stopped by a person")
    house.system.advance(HOUR)
    assert (house.keeper.state, len(house.starts())) == (State.STOPPED, 1)


def test_what_is_queued_waits_for_its_hours(nights: Any) -> None:
    plan = {"every": HOUR, "overlap": "queue", "between": "12:00..15:00"}
    house = nights(plan, script=[(2.5 * HOUR, "exit 0")]).begin()
    house.system.advance(4 * HOUR)
    assert house.starts() == ["10 13:00"]
    assert house.keeper.next_start_at == at("2026-06-11T12:00")


# -- sudden death -------------------------------------------------------------------------------


def test_a_start_that_was_noted_and_not_made_is_made_by_the_next_supervisor(nights: Any) -> None:
    house = nights(HOURLY).begin()

    def killed(_launch: Any) -> Any:
        raise KeyboardInterrupt

    spawn, house.system.spawn = house.system.spawn, killed
    with pytest.raises(KeyboardInterrupt):
        house.system.advance(31 * 60)
    house.system.spawn = spawn
    assert house.journal.of("report").owed
    house.again(10.0, killed=True)
    assert house.dues[-1] == "10 13:00"
    assert house.journal.of("report").owed == []
    house.system.advance(1800.0)
    assert len(house.system.launched) == 1


def test_a_start_that_was_noted_long_ago_is_told_as_missed(nights: Any) -> None:
    house = nights(HOURLY).begin()
    house.journal.schedule(
        "report", fired=at("2026-06-10T13:00"), owed=[(at("2026-06-10T13:00"), "due")]
    )
    house.again(50 * 60.0, killed=True)
    (missed,) = house.events("schedule.missed")
    assert (missed["count"], missed["made_up"], missed["due_at"]) == (1, 1, at("2026-06-10T13:00"))
    assert house.events("run.started")[-1]["made_up"] is True
    assert len(house.starts()) == 1


def test_a_run_that_died_with_its_supervisor_is_resumed_and_not_started_twice(nights: Any) -> None:
    house = nights(HOURLY, script=[(600.0, "exit 0")]).begin()
    house.system.advance(31 * 60)
    house.again(20.0, killed=True)
    house.system.advance(25 * 60)
    assert [e["why"] for e in house.events("run.started")] == [
        "scheduled for 13:00",
        "resumed after the supervisor had died",
    ]


def test_queued_starts_survive_the_supervisor(nights: Any) -> None:
    house = nights({**HOURLY, "overlap": "queue"}, script=[(5000.0, "exit 0")]).begin()
    house.system.advance(1.6 * HOUR)
    house.again(5.0)
    assert house.dues == ["10 13:00", "10 14:00"]


# -- whatever happens ---------------------------------------------------------------------------

DEEDS = st.one_of(
    st.tuples(st.just("advance"), st.floats(0.5, 4000)),
    st.tuples(st.just("sleep"), st.floats(1, 20_000)),
    st.tuples(st.just("jump"), st.floats(-10_000, 10_000)),
    st.tuples(st.just("stop"), st.floats(0, 20_000)),
    st.tuples(st.just("kill"), st.floats(0, 20_000)),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    deeds=st.lists(DEEDS, max_size=12),
    missed=st.sampled_from(["skip", "once", "all"]),
    overlap=st.sampled_from(["skip", "queue", "replace"]),
    rule=st.sampled_from(
        [{"cron": "*/20 * * * *"}, {"every": 900.0}, {"every": 3600.0, "jitter": 1000.0}]
    ),
    between=st.sampled_from([None, "22:00..02:00", "12:00..13:00"]),
    length=st.sampled_from([1.0, 1500.0]),
)
def test_no_due_time_is_started_twice_and_none_outside_its_hours(
    tmp_path_factory: pytest.TempPathFactory,
    writer: Writer,
    deeds: list[tuple[str, float]],
    missed: str,
    overlap: str,
    rule: dict[str, Any],
    between: str | None,
    length: float,
) -> None:
    system = FakeSystem(wall=at("2026-10-24T20:10", "Europe/Paris"))
    system.programs["agent"] = [(length, "exit 0")]
    plan = {**rule, "missed": missed, "overlap": overlap, "timezone": "Europe/Paris"}
    house = Nights(
        tmp_path_factory.mktemp("nights"),
        writer,
        plan | ({"between": between} if between else {}),
        system,
    ).begin()
    for deed, amount in deeds:
        match deed:
            case "advance":
                system.advance(amount)
            case "sleep":
                system.sleep(amount)
            case "jump":
                system.jump_wall(amount)
            case _:
                house.again(amount, killed=deed == "kill")
        alive = sum(not p.ended for p in system._living.values())
        assert alive <= 1
    system.advance(1.0)
    dues = [e["due_at"] for e in house.events("run.started") if "due_at" in e]
    assert len(dues) == len(set(dues))
    for _, item in house.recorder.items:
        if item.get("kind") == "run.started" and "due_at" in item["data"] and between:
            shown = datetime.fromtimestamp(item["at"], UTC).astimezone(ZoneInfo("Europe/Paris"))
            inside = (
                shown.hour >= 22 or shown.hour < 2 if between.startswith("22") else shown.hour == 12
            )
            # a run that replaces one begins when that one has ended
            assert inside or overlap == "replace"
