"""Starts that fall due during a run, and what a sudden death of the supervisor cannot undo."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from midwatch.core.exits import Wish
from midwatch.core.states import State

HOUR, DAY = 3600.0, 86_400.0
HOURLY = {"cron": "0 * * * *"}


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def clock(moment: float) -> str:
    return f"{datetime.fromtimestamp(round(moment), UTC):%d %H:%M:%S}".removesuffix(":00")


# -- overlap ---------------------------------------------------------------------------------------


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


# -- sudden death ----------------------------------------------------------------------------------


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


# -- whatever happens ------------------------------------------------------------------------------

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
    nights: Any,
    deeds: list[tuple[str, float]],
    missed: str,
    overlap: str,
    rule: dict[str, Any],
    between: str | None,
    length: float,
) -> None:
    plan = {**rule, "missed": missed, "overlap": overlap, "timezone": "Europe/Paris"}
    if between:
        plan["between"] = between
    # the night in which Paris has 02:00 to 03:00 twice
    house = nights(plan, now="2026-10-24T18:10", script=[(length, "exit 0")]).begin()
    system = house.system
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
