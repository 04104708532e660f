"""Sub-agents of a run: reported under their parent, held to their limits, ended with it."""

from __future__ import annotations

import json
from typing import Any

from midwatch.supervisor.machine.system import Exit, Member
from midwatch.wire.notify import Notice


def say(house: Any, **fields: Any) -> None:
    house.keeper.hear(Notice(child=json.dumps({"run": "r2", **fields})))


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


def test_lies_about_children_change_nothing_and_are_counted(make: Any) -> None:
    house = begun(make)
    say(house, agent="other:x")
    house.keeper.hear(Notice(child="{"))
    assert {item["agent"] for _, item in house.recorder.items} <= {"inbox", "inbox:search"}


def test_only_so_many_are_followed(make: Any) -> None:
    house = begun(make)
    for number in range(150):
        house.keeper.hear(
            Notice(child=json.dumps({"run": f"n{number}", "agent": f"inbox:n{number}"}))
        )
    started = house.recorder.events("run.started")
    assert len(started) == 1 + 100
