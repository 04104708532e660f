"""Children of a run, and what it leaves behind, with time by hand."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from typing import Any

import pytest

from midwatch.core.exits import Wish
from midwatch.core.states import State
from midwatch.wire.notify import Notice


def sample(house: Any, times: int = 1) -> None:
    for _ in range(times):
        house.system.advance(10.0)
        process = house.keeper.run.process
        house.keeper.sampled(house.system.sample([process]).get(process.pid))


def stages(house: Any) -> list[str]:
    return [e["stage"] for e in house.events("run.children")]


def test_more_children_than_expected_are_told_once_and_none_is_killed(make: Any) -> None:
    house = make(children={"max": 5})
    house.keeper.begin(resumed=False)
    members = [house.system.add_member(house.process) for _ in range(8)]
    sample(house, 30)
    (told,) = house.events("run.children")
    assert (told["stage"], told["children"], told["bound"]) == ("pileup", 8, 5)
    assert house.system.killed_members == []
    for member in members[:5]:
        house.system.kill_member(member)
    sample(house, 3)
    assert stages(house) == ["pileup", "over"]


def test_a_burst_of_children_is_no_pile(make: Any) -> None:
    house = make(children={"max": 5})
    house.keeper.begin(resumed=False)
    for _ in range(20):
        burst = [house.system.add_member(house.process) for _ in range(9)]
        sample(house)
        for member in burst:
            house.system.kill_member(member)
        house.system.advance(0.5)
        sample(house)
    assert stages(house) == []


def test_a_pile_that_doubles_is_told_again(make: Any) -> None:
    house = make(children={"max": 5})
    house.keeper.begin(resumed=False)
    for _ in range(40):
        house.system.add_member(house.process)
        sample(house)
    assert [e["children"] for e in house.events("run.children")] == [7, 14, 28]


def test_without_a_bound_the_warning_share_of_the_processes_is_one(make: Any) -> None:
    house = make(limits={"processes": 10})
    house.keeper.begin(resumed=False)
    for _ in range(9):
        house.system.add_member(house.process)
    sample(house, 3)
    (told,) = house.events("run.children")
    assert told["reason"] == "9 children, 80% of limits.processes is 8"


def test_zombies_are_told_as_the_agents_own_to_wait_for(make: Any) -> None:
    house = make()
    house.keeper.begin(resumed=False)
    house.process.zombies = 12
    house.process.children = 12
    sample(house, 3)
    (told,) = house.events("run.children")
    assert told["zombies"] == 12
    assert "only the agent itself can wait" in told["reason"]


def test_nine_zombies_for_a_day_are_nobodys_business(make: Any) -> None:
    house = make()
    house.keeper.begin(resumed=False)
    house.process.zombies = house.process.children = 9
    sample(house, 8640)
    assert stages(house) == []


def test_children_over_their_time_to_live_are_killed_and_named(make: Any) -> None:
    house = make(children={"ttl": 60.0})
    house.keeper.begin(resumed=False)
    old = house.system.add_member(house.process, "node server.js", age_s=61.0)
    young = house.system.add_member(house.process, "sh -c true", age_s=5.0)
    dead = house.system.add_member(house.process, "defunct", age_s=90.0, state="Z")
    sample(house, 4)
    assert house.system.killed_members == [old]
    assert house.system.members(house.process) == [young, dead]
    (told,) = house.events("run.children")
    assert (told["stage"], told["killed"], told["ttl_s"]) == ("killed", 1, 60.0)
    assert told["processes"] == [
        {"pid": old.pid, "name": "node server.js", "age_s": 61.0, "session": old.session}
    ]
    assert house.keeper.run is not None


def spawned(house: Any, run_id: str, **declared: Any) -> None:
    child = {"run": run_id, "agent": f"inbox:{run_id}", **declared}
    house.keeper.hear(Notice(child=json.dumps(child)))


def killed(house: Any, times: int = 4) -> set[str]:
    sample(house, times)
    return {member.name for member in house.system.killed_members}


@pytest.mark.parametrize("declared", [{"ttl_s": 3600}, {"outlive": True}], ids=str)
def test_a_sub_agent_with_a_time_of_its_own_has_that_one_with_all_that_it_started(
    make: Any, declared: dict[str, Any]
) -> None:
    house = make(children={"ttl": 60.0})
    house.keeper.begin(resumed=False)
    own = house.system.add_member(house.process, "search", age_s=900.0, run_id="s1")
    house.system.add_member(house.process, "its browser", age_s=800.0, parent=own.pid)
    house.system.add_member(house.process, "its orphan", age_s=700.0, parent=1, run_id="s1")
    house.system.add_member(house.process, "node", age_s=61.0)
    # who only calls itself a sub-agent is a plain child
    house.system.add_member(house.process, "liar", age_s=61.0, run_id="s2")
    spawned(house, "s1", **declared)
    assert killed(house) == {"node", "liar"}
    assert stages(house) == ["killed"]
    house.system.add_member(house.process, "late", age_s=61.0)
    assert killed(house) == {"node", "liar", "late"}


def test_a_sub_agent_without_a_time_of_its_own_has_that_of_all_children(make: Any) -> None:
    house = make(children={"ttl": 60.0})
    house.keeper.begin(resumed=False)
    house.system.add_member(house.process, "search", age_s=61.0, run_id="s1")
    spawned(house, "s1", memory_bytes=1 << 30)
    assert killed(house) == {"search"}


def test_what_a_sub_agent_leaves_behind_at_its_end_is_a_plain_child(make: Any) -> None:
    house = make(children={"ttl": 60.0})
    house.keeper.begin(resumed=False)
    house.system.add_member(house.process, "browser", age_s=61.0, parent=1, run_id="s1")
    spawned(house, "s1", ttl_s=3600)
    assert killed(house) == set()
    house.keeper.hear(Notice(child=json.dumps({"run": "s1", "code": 0})))
    assert killed(house) == {"browser"}


def test_a_sub_agent_of_which_nobody_has_heard_yet_is_not_taken_for_a_plain_child(
    make: Any,
) -> None:
    house = make(children={"ttl": 60.0})
    waiting = [{"run": "s1", "agent": "inbox:search", "ttl_s": 3600}]

    def hear_now(_name: str) -> None:
        while waiting:
            house.keeper.hear(Notice(child=json.dumps(waiting.pop())))

    house.around.hear_now = hear_now
    house.keeper.begin(resumed=False)
    house.system.add_member(house.process, "search", age_s=61.0, run_id="s1")
    assert killed(house) == set()


def test_without_a_time_to_live_children_grow_old_in_peace(make: Any) -> None:
    house = make()
    house.keeper.begin(resumed=False)
    house.system.add_member(house.process, age_s=1e6)
    sample(house, 100)
    assert house.system.killed_members == []


def test_what_outlives_a_run_is_told_with_names_ages_and_sessions(make: Any) -> None:
    house = make()
    house.keeper.begin(resumed=False)
    key = "sk-proj-" + "a" * 40
    escaped = house.system.add_member(house.process, f"chrome --key={key}", session=77, age_s=9.0)
    house.system.add_member(house.process, "in its own group")
    house.system.end(house.process, code=1)
    house.system.advance(0.1)
    (told,) = house.events("run.leftovers")
    assert told["count"] == 1
    assert told["asked"] is False
    (process,) = told["processes"]
    assert process["pid"] == escaped.pid
    assert process["session"] == 77
    assert process["age_s"] == 9.0
    assert key not in process["name"]


def test_helpers_in_sessions_of_their_own_are_no_news_while_the_run_lives(make: Any) -> None:
    house = make()
    house.keeper.begin(resumed=False)
    house.system.add_member(house.process, session=77, age_s=5000.0)
    sample(house, 500)
    assert house.events("run.leftovers") == []
    assert stages(house) == []


@pytest.mark.parametrize("count", [0, 3])
def test_who_ignores_sigterm_is_killed_and_told_with_the_count(make: Any, count: int) -> None:
    house = make(limits={"stop_grace": 5.0})
    house.keeper.begin(resumed=False)
    house.process.ignores.add(signal.SIGTERM)
    for _ in range(count):
        house.system.add_member(house.process)
    house.keeper.finish(Wish.STOP, "stopped by a person")
    house.system.advance(4.9)
    assert house.events("run.ignored_sigterm") == []
    house.system.advance(0.2)
    (told,) = house.events("run.ignored_sigterm")
    assert (told["grace_s"], told["killed"], told["asked"]) == (
        5.0,
        1 + count,
        "stopped by a person",
    )
    assert house.keeper.state is State.STOPPED


def test_who_stops_within_its_grace_ignores_nothing(make: Any) -> None:
    house = make(limits={"stop_grace": 5.0})
    house.keeper.begin(resumed=False)
    house.process.ignores.add(signal.SIGTERM)
    house.keeper.finish(Wish.STOP, "stopped by a person")
    house.system.advance(4.9)
    house.system.end(house.process, code=0)
    house.system.advance(60.0)
    assert house.events("run.ignored_sigterm") == []


def test_a_kill_without_grace_is_not_held_against_the_agent(make: Any) -> None:
    house = make()
    house.keeper.begin(resumed=False)
    house.process.ignores.add(signal.SIGTERM)
    house.keeper.finish(Wish.KILL, "killed by a person", kill=True)
    house.system.advance(60.0)
    assert house.events("run.ignored_sigterm") == []


def test_children_over_their_time_are_over_when_none_followed(make: Any) -> None:
    house = make(children={"ttl": 100.0})
    house.keeper.begin(resumed=False)
    house.system.add_member(house.process, age_s=99.0)
    sample(house, 12)
    house.process.members[:] = [replace(m, age_s=101.0) for m in house.process.members]
    sample(house, 8)
    assert stages(house) == ["killed"]
    sample(house, 5)
    assert stages(house) == ["killed", "over"]


def test_a_build_that_starts_many_children_for_a_second_each_time_is_no_pile(make: Any) -> None:
    house = make(children={"max": 5})
    house.keeper.begin(resumed=False)
    for tick in range(400):  # four looks a second, as when processes swarm
        house.process.children = 100 if tick % 12 < 6 else 0
        house.keeper.glanced(house.system.sample([house.process])[house.process.pid])
        house.system.advance(0.25)
    assert stages(house) == []
