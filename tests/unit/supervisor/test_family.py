"""Sub-agents of a run: reported under their parent, held to their limits, ended with it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from midwatch.core.family import Claim
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
    house.system.advance(2.5)  # it is known why: nobody waits for its parent's word
    assert {m.pid for m in house.process.members} == {80}
    ended = house.recorder.events("run.ended", "inbox:search")
    assert ended[0]["ttl_s"] == 5.0
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


# -- who says so itself --------------------------------------------------------------------------


def lone(make: Any) -> Any:
    house = make(command=["agent"])
    house.keeper.begin(resumed=False)
    house.system.advance(1.5)
    return house


def claims(house: Any, agent: str, pid: int = 70, parent: int = 0, **claim: str) -> Member:
    run, above = house.keeper.run, parent or house.process.pid
    one = Member(pid, 5.0, above, pid, "python", "S", 1.0, 1000, run.run_id, Claim(agent, **claim))
    house.process.members.append(one)
    return one


def look(house: Any) -> None:
    """Take the regular sample."""
    process = house.keeper.run.process
    house.keeper.sampled(house.system.sample([process])[process.pid])
    house.system.advance(0.2)


def says(house: Any, agent: str, sender: int = 70, **told: Any) -> None:
    text = json.dumps({"self": True, "run": "r9", "agent": agent} | told)
    house.keeper.hear(Notice(child=text, sender=sender), sender)
    house.system.advance(0.2)


def test_an_environment_that_names_a_sub_agent_is_noticed_by_a_sample(make: Any) -> None:
    house = lone(make)
    claims(house, "inbox:search", ttl="10m", memory="1MiB")
    house.process.members.append(member(71, house.keeper.run.run_id, 70, 500))
    look(house)
    (started,) = house.recorder.events("run.started", "inbox:search")
    run_id = f"{house.keeper.run.run_id}.search.5"
    assert (started["run_id"], started["parent"]) == (run_id, "inbox")
    assert (started["ttl_s"], started["rss_limit_bytes"]) == (600.0, 1 << 20)
    samples = [i for k, i in house.recorder.items if k.value == "sample" and i.get("pid") == 70]
    assert [(s["rss_bytes"], s["children"]) for s in samples] == [(1500, 1)]
    assert withheld(house) == {}


def test_its_time_counts_from_its_start_not_from_when_it_was_noticed(make: Any) -> None:
    house = lone(make)
    claims(house, "inbox:search", ttl="2s")
    look(house)
    house.system.advance(1.0)
    assert house.recorder.events("run.ended", "inbox:search") == []
    house.system.advance(5.0)
    assert house.process.members == []
    (ended,) = house.recorder.events("run.ended", "inbox:search")
    assert (ended["end"], ended["reason"]) == (
        "wall-clock",
        "reached its time to live of 2 seconds",
    )


def test_what_a_sub_agent_says_on_its_parents_socket_is_not_its_parents(make: Any) -> None:
    house = lone(make)
    claims(house, "inbox:search")
    look(house)
    house.keeper.hear(Notice(beat=True, draining=True, call="open"), 70)
    run = house.keeper.run
    assert (run.evidence.beat, run.evidence.call_open, run.said_done) == (None, None, False)
    assert house.keeper.state == "running"
    house.keeper.hear(Notice(beat=True), house.process.pid)
    assert run.evidence.beat is not None


@pytest.mark.parametrize(
    ("agent", "why"),
    [
        ("billing:search", "malformed"),
        ("billing", "malformed"),
        ("inbox:../x", "malformed"),
        ("inbox:a:b:c:d:e", "too_deep"),
    ],
)
def test_a_name_that_cannot_be_is_refused_and_counted_once(make: Any, agent: str, why: str) -> None:
    house = lone(make)
    claims(house, agent)
    claims(house, agent, pid=71, parent=70)  # has inherited it
    for _ in range(5):
        look(house)
        house.system.advance(10)
    assert withheld(house) == {f"sub_agents_{why}": 1}
    assert {item["agent"] for _, item in house.recorder.items} <= {"inbox"}


def test_a_limit_that_cannot_be_read_is_told(make: Any) -> None:
    house = lone(make)
    claims(house, "inbox:search", ttl="soon")
    look(house)
    assert withheld(house) == {"sub_agents_no_limit": 1}
    (told,) = house.recorder.events("run.sub_agents")
    assert "MIDWATCH_TTL is a duration such as 10m" in told["reason"]


def test_a_process_of_another_run_is_no_sub_agent_of_this(make: Any) -> None:
    house = lone(make)
    one = claims(house, "inbox:search")
    house.process.members[:] = [member(70, "another"), member(71, "")]
    del one
    look(house)
    says(house, "inbox:search", sender=4711)  # nothing below the agent has that number
    assert kinds(house) == []
    assert withheld(house) == {"sub_agents_malformed": 1}


def test_a_number_that_is_anothers_by_now_is_nobodys_word(make: Any) -> None:
    house = lone(make)
    text = json.dumps({"self": True, "run": "r9", "agent": "inbox:search"})
    house.keeper.hear(Notice(child=text, sender=70), 70)
    # the process that spoke has ended, and a younger one below the agent has its number
    house.process.members.append(
        Member(70, 9.0, house.process.pid, 70, "python", "S", 0.01, 1000, "")
    )
    house.system.advance(0.2)
    assert kinds(house) == []
    assert withheld(house) == {"sub_agents_malformed": 1}


def test_a_process_that_says_so_has_the_limits_that_it_says(make: Any) -> None:
    house = lone(make)
    house.process.members.append(member(70, house.keeper.run.run_id, house.process.pid))
    house.process.members.append(member(72, house.keeper.run.run_id, house.process.pid))
    says(house, "inbox:search", ttl_s=3, outlive=True)
    (started,) = house.recorder.events("run.started", "inbox:search")
    assert (started["run_id"], started["ttl_s"], started["outlive"]) == ("r9", 3.0, False)
    says(house, "inbox:search")
    says(house, "inbox:other", run="r10")  # one process is one agent
    assert len(house.recorder.events("run.started", "inbox:search")) == 1
    assert house.recorder.events("run.started", "inbox:other") == []
    house.system.advance(6)
    assert [m.pid for m in house.process.members] == [72]


def test_sub_agents_of_a_sub_agent_are_counted_within_it_and_end_with_it(make: Any) -> None:
    house = begun(make, member(70, rss=1000), memory_bytes=10_000)
    say(house, run="r3", agent="inbox:search:fetch", parent="r2")
    say(house, run="r4", agent="inbox:search:keep", parent="r2", outlive=True)
    house.process.members.extend(
        [member(80, "r3", 70, 4000), member(81, "", 80, 3000), member(90, "r4", 70, 50_000)]
    )
    house.system.advance(1.1)
    sizes = {i["agent"]: i["rss_bytes"] for _, i in house.recorder.items if i.get("rss_bytes")}
    assert sizes == {
        "inbox:search": 8000,
        "inbox:search:fetch": 7000,
        "inbox:search:keep": 50_000,
    }
    started = house.recorder.events("run.started", "inbox:search:fetch")[0]
    assert (started["parent"], started["parent_run_id"]) == ("inbox:search", "r2")
    house.process.members[0] = member(70, rss=9000)
    house.system.advance(6)
    assert [m.pid for m in house.process.members] == [90]
    (ended,) = house.recorder.events("run.ended", "inbox:search:fetch")
    assert (ended["reason"], ended["parent"]) == ("ended with its parent", "inbox:search")
    assert house.recorder.events("run.ended", "inbox:search:keep") == []


def test_one_whose_parent_is_not_known_yet_waits_for_it(make: Any) -> None:
    house = lone(make)
    claims(house, "inbox:a")
    house.process.members.append(member(80, "r3", 70))
    say(house, run="r3", agent="inbox:a:b", parent="not noticed yet")
    house.system.advance(0.2)
    top = house.recorder.events("run.started", "inbox:a")[0]
    below = house.recorder.events("run.started", "inbox:a:b")[0]
    assert (below["parent"], below["parent_run_id"]) == ("inbox:a", top["run_id"])


def test_a_birth_below_a_sub_agent_needs_its_name(make: Any) -> None:
    house = begun(make, member(70))
    say(house, run="r3", agent="inbox:other", parent="r2")
    say(house, run=house.keeper.run.run_id, agent="inbox:self")
    assert withheld(house) == {"sub_agents_malformed": 2}


def test_a_flood_of_words_about_oneself_costs_one_look(make: Any) -> None:
    house = lone(make)
    claims(house, "inbox:search")
    looks: list[int] = []
    members = house.system.members

    def counted(process: Any, **how: Any) -> Any:
        looks.append(1)
        return members(process, **how)

    house.system.members = counted
    for number in range(5000):
        text = json.dumps({"self": True, "run": f"x{number}", "agent": "inbox:search"})
        house.keeper.hear(Notice(child=text, sender=70), 70)
    house.system.advance(0.15)
    assert len(looks) == 1
    assert len(house.recorder.events("run.started", "inbox:search")) == 1
    assert withheld(house)["sub_agents_too_many"] == 4900


def test_who_goes_on_talking_does_not_put_off_the_look_at_its_limits(make: Any) -> None:
    house = begun(make, member(70), ttl_s=5)
    for number in range(90):  # fewer than are kept waiting
        text = json.dumps({"self": True, "run": f"x{number}", "agent": "inbox:other"})
        house.keeper.hear(Notice(child=text, sender=70), 70)
        house.system.advance(0.09)
    assert [e["end"] for e in house.recorder.events("run.ended", "inbox:search")] == ["wall-clock"]


def test_a_sub_agent_does_not_end_its_limits_by_its_own_word(make: Any) -> None:
    house = begun(make, member(70), ttl_s=5)
    house.system.advance(1.1)
    text = json.dumps({"run": "r2", "code": 0})
    house.keeper.hear(Notice(child=text, sender=70), 70)
    assert house.recorder.events("run.ended", "inbox:search") == []
    assert withheld(house) == {"sub_agents_malformed": 1}
    house.keeper.hear(Notice(child=text, sender=house.process.pid), house.process.pid)
    assert house.recorder.events("run.ended", "inbox:search")[0]["end"] == "finished"


def test_a_sub_agent_that_a_hasty_look_does_not_show_is_looked_for(make: Any) -> None:
    house = begun(make, member(70))
    members = house.system.members
    house.system.members = lambda process, *, certain=True: members(process) if certain else []
    house.system.advance(10)
    assert house.recorder.events("run.ended", "inbox:search") == []
    house.process.members.clear()
    house.system.advance(4)
    assert len(house.recorder.events("run.ended", "inbox:search")) == 1
