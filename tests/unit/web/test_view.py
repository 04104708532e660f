from datetime import UTC
from typing import Any

import pytest
from demo_fleets import agent

from midwatch.core.states import ALIVE, State
from midwatch.web import view


def seen(name: str, state: str = "running", **over: Any) -> view.AgentView:
    return view.see(agent(name, state, **over), UTC)


def test_every_state_has_a_tone_a_place_and_something_to_do() -> None:
    assert set(view.TONES) == set(view.ORDER) == set(State)
    assert all(view.deeds_for(state) for state in State)


def test_only_what_has_a_process_can_be_killed() -> None:
    killable = {s for s in State if view.DEEDS["kill"] in view.deeds_for(s)}
    assert killable == {*ALIVE, State.SUSPENDED}  # which may have kept its process


def test_what_cannot_be_undone_is_asked_first() -> None:
    assert {d.do for d in view.DEEDS.values() if d.ask} == {"stop", "kill", "suspend"}


def test_who_needs_a_person_comes_first_then_who_has_an_incident() -> None:
    agents = [
        seen("fine"),
        seen("asleep", "scheduled"),
        seen("troubled", incidents=["x"]),
        seen("held", "suspended"),
        seen("dead", "parked"),
        seen("later", "backing-off"),
    ]
    assert [a.name for a in view.in_order(agents)] == [
        "dead",
        "held",
        "later",
        "troubled",
        "fine",
        "asleep",
    ]


def test_groups_that_need_a_person_come_first_and_agents_without_one_last() -> None:
    groups = view.in_groups(
        [seen("a", group="alpha"), seen("z", "parked", group="zulu"), seen("alone")]
    )
    assert [(g.name, g.needing) for g in groups] == [("zulu", 1), ("alpha", 0), ("", 0)]


@pytest.mark.parametrize(
    ("states", "incidents", "sentence"),
    [
        ([], 0, "No agents yet."),
        (["running"], 0, "1 agent, working."),
        (["running"] * 3, 0, "3 agents, all working."),
        (["running", "running", "parked"], 1, "1 of 3 agents needs you: a2 is parked."),
        (
            ["lost", "suspended", "running"],
            0,
            "2 of 3 agents need you: a0 is lost and a1 is suspended.",
        ),
        (["parked"], 1, "Your one agent needs you: a0 is parked."),
        (
            ["running", "backing-off", "scheduled"],
            0,
            "3 agents: 1 backing off, 1 working, 1 scheduled.",
        ),
        (["running"] * 3, 2, "3 agents, all working; 2 incidents are open."),
        (["parked"] * 5, 0, "5 of 5 agents need you: a0 is parked, a1 is parked and 3 more."),
    ],
)
def test_one_sentence_says_how_the_fleet_is(
    states: list[str], incidents: int, sentence: str
) -> None:
    agents = [seen(f"a{i}", state) for i, state in enumerate(states)]
    assert str(view.lead(agents, incidents)) == sentence


def test_the_sentence_is_shown_without_the_name_that_stands_beside_it() -> None:
    assert (
        seen("inbox", sentence="inbox: last worked 8 minutes ago").sentence
        == "Last worked 8 minutes ago"
    )
    assert seen("inbox", sentence=None).sentence == "Has not reported anything yet."


def test_an_agent_that_has_told_nothing_is_shown_as_such() -> None:
    bare = view.see({"agent": "new", "state": "starting"}, UTC)
    assert (bare.strip, bare.cost.text, bare.memory, bare.restarts) == (
        None,
        "no data",
        "no process",
        None,
    )


def test_a_state_of_a_newer_version_is_shown_in_its_own_word() -> None:
    odd = seen("odd", "levitating")
    assert (odd.state, odd.tone, odd.needs) == ("levitating", "bad", False)


def test_names_travel_quoted_in_addresses() -> None:
    assert seen("a/b c?<").path == "a%2Fb%20c%3F%3C"


def test_resolved_incidents_are_not_counted() -> None:
    assert seen("a", incidents=[{"state": "resolved"}, {"state": "open"}, "id"]).incidents == 2
