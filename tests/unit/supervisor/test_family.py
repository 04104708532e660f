"""Sub-agents of a run: reported under their parent, held to their limits, ended with it."""

from __future__ import annotations

import json
from typing import Any

from midwatch.supervisor.machine.system import Exit, Member
from midwatch.wire.notify import Notice


def say(house: Any, **fields: Any) -> None:
    house.keeper.hear(Notice(child=json.dumps({"run": "r2"} | fields)))


def member(pid: int, run_id: str = "r2", parent: int = 1, rss: int = 1000) -> Member:
    return Member(pid, 5.0, parent, pid, "python", "S", 1.0, rss, run_id)


def begun(make: Any, *members: Member, **fields: Any) -> Any:
    house = make(command=["agent"])
    house.keeper.begin(resumed=False)
    house.process.members.extend(members)
    say(house, agent="inbox:search", **fields)
    return house


def kinds(house: Any, agent: str = "inbox:search") -> list[str]:
    return [
        item["kind"]
        for kind, item in house.recorder.items
        if item["agent"] == agent and kind.value == "event"
    ]


def test_a_sub_agent_is_reported_under_its_parent(make: Any) -> None:
    house = begun(make, member(70), member(71, "", 70, 500))
    started = house.recorder.events("run.started", "inbox:search")
    assert started[0]["parent"] == "inbox"
    assert started[0]["parent_run_id"] == house.keeper.run.run_id
    house.system.advance(1.1)
    samples = [i for k, i in house.recorder.items if k.value == "sample" and i.get("pid") == 70]
    assert [(s["agent"], s["rss_bytes"], s["children"]) for s in samples] == [
        ("inbox:search", 1500, 1)
    ]
    say(house, code=0)
    ended = house.recorder.events("run.ended", "inbox:search")
    assert [(e["end"], e["expected"], e["exit_code"]) for e in ended] == [("finished", True, 0)]
    assert house.recorder.events("agent.state", "inbox:search")[-1]["state"] == "stopped"


def test_a_failed_sub_agent_is_a_failure_and_its_parent_goes_on(make: Any) -> None:
    house = begun(make, member(70))
    say(house, code=3)
    ended = house.recorder.events("run.ended", "inbox:search")
    assert (ended[0]["end"], ended[0]["expected"]) == ("failed", False)
    assert house.keeper.run is not None


def test_an_end_of_which_nobody_told_is_not_called_a_success(make: Any) -> None:
    house = begun(make, member(70))
    house.system.advance(1.5)
    house.process.members.clear()
    house.system.advance(4)
    ended = house.recorder.events("run.ended", "inbox:search")
    assert [e["reason"] for e in ended] == ["ended; its parent did not say how"]


def test_one_over_its_time_to_live_is_killed_with_all_below_it(make: Any) -> None:
    house = begun(make, member(70), member(71, "", 70), member(80, "other"), ttl_s=5)
    house.system.advance(4.5)
    assert house.recorder.events("run.ended", "inbox:search") == []
    house.system.advance(4)
    assert {m.pid for m in house.process.members} == {80}
    ended = house.recorder.events("run.ended", "inbox:search")
    assert [e["end"] for e in ended] == ["wall-clock"]
    assert "5 seconds" in ended[0]["reason"]


def test_one_over_its_memory_is_killed(make: Any) -> None:
    house = begun(make, member(70, rss=3000), memory_bytes=2000)
    house.system.advance(4)
    assert house.process.members == []
    assert house.recorder.events("run.ended", "inbox:search")[0]["end"] == "out-of-memory"


def test_sub_agents_end_with_their_parent(make: Any) -> None:
    house = begun(make, member(70))
    house.process.launch.on_exit(Exit(0, None))
    ended = house.recorder.events("run.ended", "inbox:search")
    assert [(e["end"], e["reason"]) for e in ended] == [("operator", "ended with its parent")]
    house.system.advance(30)
    assert len(house.recorder.events("run.ended", "inbox:search")) == 1


def test_one_that_outlives_its_parent_is_followed_to_its_own_end(make: Any) -> None:
    house = begun(make, member(70), outlive=True, ttl_s=20)
    process = house.process
    house.system.end(process, code=0)
    house.system.advance(10)
    assert house.recorder.events("run.ended", "inbox:search") == []
    house.system.advance(30)
    assert process.members == []
    assert [e["end"] for e in house.recorder.events("run.ended", "inbox:search")] == ["wall-clock"]


def births(house: Any, *numbers: int) -> None:
    for number in numbers:
        say(house, run=f"n{number}", agent=f"inbox:n{number}", ttl_s=5)


def withheld(house: Any) -> dict[str, int]:
    return {str(why): count for why, count in house.around.reports.withheld.items() if count}


def test_lies_about_children_change_nothing_and_are_counted(make: Any) -> None:
    house = begun(make)
    say(house, agent="other:x")
    house.keeper.hear(Notice(child="{"))
    assert {item["agent"] for _, item in house.recorder.items} <= {"inbox", "inbox:search"}
    assert withheld(house) == {"sub_agents_malformed": 2}
    (told,) = house.recorder.events("run.sub_agents")
    assert told["why"] == "sub_agents_malformed"
    assert "'inbox:'" in told["reason"]


def test_only_so_many_are_followed(make: Any) -> None:
    house = begun(make)
    births(house, *range(150))
    started = house.recorder.events("run.started")
    assert len(started) == 1 + 100
    assert withheld(house) == {"sub_agents_too_many": 51}
    (line,) = [line for line in house.said if "sub-agents" in line]
    assert line.startswith("inbox: it has more than 100 sub-agents at one time")


def test_a_tight_loop_of_births_and_ends_is_told_at_its_ration_and_said_once(make: Any) -> None:
    house = begun(make)
    for number in range(10_000):
        births(house, number)
        say(house, run=f"n{number}", code=0)
        if number % 500 == 0:
            house.system.advance(1.0)
    own = [item for _, item in house.recorder.items if item["agent"].startswith("inbox:n")]
    told = 300 + 20
    assert told - 5 <= len({item["agent"] for item in own}) <= told
    assert len(own) == 6 * len({item["agent"] for item in own})  # each that is told is told whole
    assert withheld(house)["sub_agents_too_fast"] > 10_000 - told - 5
    assert len([line for line in house.said if "sub-agents" in line]) == 1
    assert len(house.recorder.events("run.sub_agents")) == 1


def test_an_orchestrator_with_five_a_second_for_a_minute_is_told_whole(make: Any) -> None:
    house = begun(make)
    for number in range(300):
        births(house, number)
        house.system.advance(0.2)
        say(house, run=f"n{number}", code=0)
    assert withheld(house) == {}
    assert len(house.recorder.events("run.ended")) == 300 + 1  # with the one that left no process
    assert house.recorder.events("run.sub_agents") == []


def test_who_is_not_told_of_is_held_to_its_limits_and_spared_all_the_same(make: Any) -> None:
    house = begun(make)
    for number in range(310):
        births(house, number)
        say(house, run=f"n{number}", code=0)
    house.process.members.extend([member(90, "last"), member(91, "free")])
    say(house, run="last", agent="inbox:last", ttl_s=5)
    say(house, run="free", agent="inbox:free", outlive=True)
    assert kinds(house, "inbox:last") == []
    house.system.advance(8)
    assert [m.pid for m in house.process.members] == [91]
    assert kinds(house, "inbox:last") == []
    house.system.end(house.process, code=0)
    assert [m.pid for m in house.process.members] == [91]


def test_the_next_run_is_told_again_what_it_does(make: Any) -> None:
    house = begun(make)
    house.keeper.hear(Notice(child="{"))
    house.system.end(house.process, code=1)
    house.system.advance(10)
    house.keeper.hear(Notice(child="{"))
    assert len(house.recorder.events("run.sub_agents")) == 2


def test_sub_agents_that_ended_are_not_remembered_but_what_still_carries_their_id_is(
    make: Any,
) -> None:
    house = begun(make, member(90, "n7"))
    for number in range(3000):
        say(house, run=f"n{number}", agent="inbox:x", outlive=True)
        say(house, run=f"n{number}", code=0)
    assert len(house.system.belonging) < 250
    assert len(house.system.outliving[house.process.run_id]) < 250
    assert "n7" in house.system.belonging
    house.system.end(house.process, code=0)
    assert [m.pid for m in house.process.members] == [90]  # it was declared to outlive the run
