"""Sub-agents in the fleet view: behind their parent, in its group, and over when its run is."""

from __future__ import annotations

from typing import Any

from midwatch.core.fleet import Agent, Fleet
from midwatch.core.view import FleetView
from midwatch.wire.ids import new_id
from midwatch.wire.items import Kind

NOW = 1_750_000_000.0


def view() -> FleetView:
    agents = {name: Agent(command=["x"], group="support") for name in ("inbox", "inbox-2", "other")}
    return FleetView(Fleet(agents=agents), node="here", now=NOW)


def event(view: FleetView, agent: str, kind: str, at: float, **data: Any) -> None:
    item = {"id": new_id(), "agent": agent, "kind": kind, "at": at, "data": data}
    view.apply(Kind.EVENT, item, at)


def state(view: FleetView, agent: str, at: float, state: str = "running") -> None:
    event(view, agent, "agent.state", at, state=state, since=at, pid=7, run_id=f"{agent}-{at}")


def shown(view: FleetView, name: str, at: float) -> dict[str, Any]:
    agent = view.agent(name, at)
    assert agent is not None
    return agent


def test_a_sub_agent_stands_behind_its_parent_and_in_its_group() -> None:
    fleet = view()
    state(fleet, "inbox:search", NOW)
    assert list(fleet.names()) == ["inbox", "inbox:search", "inbox-2", "other"]
    agent = shown(fleet, "inbox:search", NOW)
    assert (agent["parent"], agent["group"], agent["state"]) == ("inbox", "support", "running")
    assert shown(fleet, "inbox", NOW)["parent"] is None


def test_a_new_run_of_the_parent_ends_what_the_old_one_had_started() -> None:
    fleet = view()
    state(fleet, "inbox:search", NOW)
    state(fleet, "other:search", NOW)
    event(fleet, "inbox", "run.started", NOW + 5, run_id="r2", pid=8, attempt=1, why="resumed")
    agent = shown(fleet, "inbox:search", NOW + 5)
    assert (agent["state"], agent["reason"]) == ("stopped", "ended with inbox")
    assert shown(fleet, "other:search", NOW + 5)["state"] == "running"


def test_what_outlives_its_parent_shows_it_by_its_next_sample() -> None:
    fleet = view()
    state(fleet, "inbox:search", NOW)
    event(fleet, "inbox", "run.started", NOW + 5, run_id="r2", pid=8, attempt=1, why="restart")
    sample = {"id": new_id(), "agent": "inbox:search", "at": NOW + 9, "state": "running", "pid": 7}
    fleet.apply(Kind.SAMPLE, sample, NOW + 9)
    assert shown(fleet, "inbox:search", NOW + 9)["state"] == "running"


def test_of_sub_agents_that_ended_the_last_are_shown_and_those_with_incidents() -> None:
    fleet = view()
    state(fleet, "inbox:forever", NOW)
    for number in range(200):  # an orchestrator that gives each a name of its own
        name = f"inbox:job-{number}"
        state(fleet, name, NOW + number)
        if number == 3:
            agent = fleet.apply(Kind.SAMPLE, _sample(name, NOW + number), NOW + number)
            assert agent is not None
            agent.agent.incidents = [{"kind": "crash-loop"}]
        state(fleet, name, NOW + number + 0.5, "stopped")
    jobs = [name for name in fleet.names() if name.startswith("inbox:job-")]
    assert sorted(jobs, key=lambda name: int(name.split("-")[1])) == [
        "inbox:job-3",
        *(f"inbox:job-{number}" for number in range(180, 200)),
    ]
    assert shown(fleet, "inbox:forever", NOW + 300)["state"] == "running"
    assert len([name for name in fleet.names() if ":" not in name]) == 3


def _sample(name: str, at: float) -> dict[str, Any]:
    return {"id": new_id(), "agent": name, "at": at, "state": "running", "pid": 7}
