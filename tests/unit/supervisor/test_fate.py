"""What follows an end: waits, parking by class, and the moment before an outside signal is judged."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.core.exits import Wish
from midwatch.core.restart import ALIKE, HOST_WAIT_S, QUOTA_WAIT_S, REFUSALS
from midwatch.core.states import State
from midwatch.supervisor.fate import DOUBT_S

RATE = "print openai.RateLimitError: Error code: 429 - Rate limit reached. Please try again in 20s."
QUOTA = "print openai.RateLimitError: Error code: 429 - You exceeded your current quota, please check your plan"
MODULE = "print ModuleNotFoundError: No module named 'langgraph'"


def _ends(house: Any) -> list[dict[str, Any]]:
    return house.events("run.ended")


# -- by class ---------------------------------------------------------------------------------------


def test_a_rate_limit_waits_as_long_as_the_provider_asks(make: Any) -> None:
    house = make([(0.1, RATE), (0.2, "exit 1")])
    house.keeper.begin(resumed=False)
    house.system.advance(1.0)
    (ended,) = _ends(house)
    assert {k: ended[k] for k in ("end", "next", "next_in_s", "retry_after_s", "failures")} == {
        "end": "rate-limited",
        "next": "restart",
        "next_in_s": 20.0,
        "retry_after_s": 20.0,
        "failures": 1,
    }
    assert house.keeper.state is State.BACKING_OFF
    house.system.advance(19.0)
    assert len(house.system.launched) == 1
    house.system.advance(1.0)
    assert len(house.system.launched) == 2


def test_refusals_do_not_use_up_the_attempts_of_crashes_and_end_some_day(make: Any) -> None:
    house = make([(0.1, RATE), (0.2, "exit 1")])
    house.keeper.begin(resumed=False)
    house.system.advance(5 * 3600.0)
    assert len(_ends(house)) == REFUSALS
    assert house.keeper.state is State.PARKED
    assert _ends(house)[-1]["next"] == "park"
    assert f"refused {REFUSALS} times in a row" in house.keeper.reason


def test_a_crash_after_many_refusals_is_the_first_crash(make: Any) -> None:
    house = make([(0.1, RATE), (0.2, "exit 1")])
    house.keeper.begin(resumed=False)
    house.system.advance(1200.0)
    assert len(_ends(house)) > house.keeper.agent.restart.attempts + 1
    house.system.programs["agent"] = [(0.1, "exit 7")]
    house.system.advance(900.0)
    crash = next(e for e in _ends(house) if e["end"] == "failed")
    assert (crash["next"], crash["identical"]) == ("restart", 1)
    assert any("exit code 7; restart 1 of" in line for line in house.said)


def test_a_used_up_quota_is_tried_each_hour_and_the_account_is_named(make: Any) -> None:
    house = make([(0.1, QUOTA), (0.2, "exit 1")])
    house.keeper.begin(resumed=False)
    house.system.advance(1.0)
    (ended,) = _ends(house)
    assert (ended["end"], ended["credential"], ended["next_in_s"]) == (
        "quota",
        "OPENAI_API_KEY",
        QUOTA_WAIT_S,
    )
    house.system.advance(8 * 3600.0)
    assert len(_ends(house)) == 8
    assert house.keeper.state is State.BACKING_OFF


def test_a_missing_module_is_parked_after_the_second_time(make: Any) -> None:
    house = make([(0.1, MODULE), (0.2, "exit 1")])
    house.keeper.begin(resumed=False)
    house.system.advance(1000.0)
    assert [(e["end"], e["identical"], e["next"]) for e in _ends(house)] == [
        ("missing-dependency", 1, "restart"),
        ("missing-dependency", ALIKE, "park"),
    ]
    assert "the same failure twice" in house.keeper.reason


def test_another_missing_module_each_time_goes_the_usual_way(make: Any) -> None:
    names = iter("abcdefgh")

    def complain(process: Any) -> None:
        line = f"ModuleNotFoundError: No module named {next(names)!r}\n"
        process.launch.on_output(line.encode())

    house = make([(0.1, complain), (0.2, "exit 1")])
    house.keeper.begin(resumed=False)
    house.system.advance(1000.0)
    assert [e["identical"] for e in _ends(house)] == [1, 1, 1, 1]
    assert house.keeper.state is State.PARKED


def test_a_new_supervisor_knows_the_first_failure(make: Any) -> None:
    house = make([(0.1, MODULE), (0.2, "exit 1")])
    house.keeper.begin(resumed=False)
    house.system.advance(0.5)
    later = house.another(house.journal)
    later.keeper.begin(resumed=True)
    later.system.advance(0.5)
    assert _ends(later)[-1]["next"] == "park"


def test_a_person_who_starts_it_gets_both_tries_again(make: Any) -> None:
    house = make([(0.1, MODULE), (0.2, "exit 1")])
    house.keeper.begin(resumed=False)
    house.system.advance(1000.0)
    house.keeper.release("started by a person")
    house.system.advance(0.5)
    assert (_ends(house)[-1]["identical"], _ends(house)[-1]["next"]) == (1, "restart")


# -- a signal from outside --------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["signal 15", "signal 1", "exit 143"])
def test_an_outside_sigterm_is_judged_a_moment_later(make: Any, end: str) -> None:
    house = make([(5.0, end)])
    house.keeper.begin(resumed=False)
    house.system.advance(5.0 + DOUBT_S / 2)
    assert _ends(house) == []
    house.system.advance(DOUBT_S)
    assert [(e["end"], e["expected"], e["next"]) for e in _ends(house)] == [
        ("signal", False, "restart")
    ]


@pytest.mark.parametrize("end", ["signal 9", "signal 11", "exit 1", "exit 0"])
def test_every_other_end_is_judged_at_once(make: Any, end: str) -> None:
    house = make([(5.0, end)])
    house.keeper.begin(resumed=False)
    house.system.advance(5.0)
    assert len(_ends(house)) == 1


def test_when_we_are_told_to_stop_as_well_it_was_part_of_that(make: Any) -> None:
    house = make([(5.0, "signal 15")])
    house.keeper.begin(resumed=False)
    house.system.advance(5.0 + DOUBT_S / 2)
    house.keeper.shut_down()
    assert [(e["end"], e["expected"], e["next"]) for e in _ends(house)] == [
        ("shutdown", True, "stop")
    ]
    house.system.advance(100.0)
    assert (house.keeper.state, len(house.system.launched)) == (State.STOPPED, 1)
    # the next supervisor starts it as if nothing had been
    assert house.journal.of("inbox").held is None


def test_a_person_who_stops_it_in_that_moment_is_obeyed(make: Any) -> None:
    house = make([(5.0, "signal 15")])
    house.keeper.begin(resumed=False)
    house.system.advance(5.0 + DOUBT_S / 2)
    house.keeper.hold(State.STOPPED, "stopped by a person")
    house.system.advance(100.0)
    assert (_ends(house)[0]["end"], house.keeper.state) == ("operator", State.STOPPED)
    assert len(house.system.launched) == 1


def test_a_person_who_starts_it_in_that_moment_has_one_process(make: Any) -> None:
    house = make([(5.0, "signal 15")])
    house.keeper.begin(resumed=False)
    house.system.advance(5.0 + DOUBT_S / 2)
    house.system.programs["agent"] = ()
    house.keeper.release("started by a person")
    house.system.advance(100.0)
    assert (len(_ends(house)), len(house.system.launched)) == (1, 2)
    assert house.keeper.state is State.RUNNING


@pytest.mark.parametrize("wish", [Wish.STOP, Wish.SUSPEND, Wish.KILL])
@pytest.mark.parametrize("end", ["exit 143", "exit 1", "signal 15"])
def test_what_an_operator_ended_is_told_at_once_and_not_undone(
    make: Any, wish: Wish, end: str
) -> None:
    house = make()
    house.keeper.begin(resumed=False)
    house.system.advance(1.0)
    house.process.ignores.add(15)
    house.keeper.finish(wish, "by a person")
    verb, _, number = end.partition(" ")
    house.system.end(house.process, **{"code" if verb == "exit" else "by": int(number)})
    house.system.advance(0.0)
    assert [(e["expected"], e["next"]) for e in _ends(house)] == [(True, "stop")]
    house.system.advance(1000.0)
    assert len(house.system.launched) == 1


def test_with_the_machine_nothing_has_failed_and_what_stays_up_is_started_again(make: Any) -> None:
    house = make([(5.0, "signal 15")])
    house.around.going_down = lambda: "it reboots"
    house.keeper.begin(resumed=False)
    house.system.advance(5.0)
    (ended,) = _ends(house)
    assert (ended["end"], ended["expected"], ended["failures"]) == ("host-shutdown", True, 0)
    house.system.advance(HOST_WAIT_S - 1.0)
    assert len(house.system.launched) == 1
    house.system.advance(1.0)
    assert len(house.system.launched) == 2
