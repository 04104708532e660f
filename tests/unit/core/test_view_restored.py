"""The fleet view after a restart of the hub, and cycles that never end."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.core.fleet import Agent, Fleet
from midwatch.core.history import AgentHistory, DaySums
from midwatch.core.terms import Heartbeat
from midwatch.core.view import FleetView
from midwatch.wire import items as wire
from midwatch.wire.items import Item, Kind

NOW = 1_750_000_000.0
FLEET = Fleet(
    agents={
        "inbox": Agent(command=["run"]),
        "cron": Agent(external=True, heartbeat=Heartbeat(every=60.0, missed=2)),
    }
)


def _view(fleet: Fleet = FLEET) -> FleetView:
    return FleetView(fleet, node="home", now=NOW)


def _beat(agent: str = "inbox", at: float = NOW, **more: Any) -> Item:
    return wire.read(Kind.BEAT, {"agent": agent, "at": at, **more}, NOW)


def _event(kind: str, agent: str = "inbox", at: float = NOW, **data: Any) -> Item:
    return wire.read(Kind.EVENT, {"agent": agent, "at": at, "kind": kind, "data": data}, NOW)


def _state(state: str, at: float = NOW, **data: Any) -> Item:
    return _event("agent.state", at=at, state=state, **data)


def _feed(view: FleetView, *items: Item, now: float = NOW) -> None:
    for item in items:
        view.apply(Kind.EVENT if "kind" in item else Kind.BEAT, item, now)


def _agent(view: FleetView, name: str = "inbox", now: float = NOW) -> dict[str, Any]:
    agent = view.agent(name, now)
    assert agent is not None
    return agent


# --- restoring


def test_after_a_restart_the_view_is_what_it_was() -> None:
    before = _view()
    beats = [_beat(at=NOW - 600 + n, tokens=190, cost_usd=0.01, unit="mails") for n in range(60)]
    started = _event("run.started", run_id="r2", attempt=2, why="restart", at=NOW - 700)
    ended = _event("run.ended", run_id="r1", end="silent", at=NOW - 701)
    state = _state("running", at=NOW - 699, pid=4, run_id="r2")
    _feed(before, ended, started, state, *beats)
    after = _view()
    sums = DaySums(cycles=60, tokens=60 * 190, cost_nusd=600_000_000, unit="mails", restarts=1)
    after.restore([AgentHistory("inbox", beats, state, started, ended, None, sums)], NOW)
    assert _agent(after) == _agent(before)
    _feed(after, *beats)
    assert _agent(after)["today"]["cycles"] == 60


def test_a_restored_external_agent_gets_its_intervals_anew() -> None:
    view = _view()
    view.restore([AgentHistory("cron", [_beat("cron", at=NOW - 3_000)])], NOW)
    assert view.overdue(NOW + 119) == []
    assert [a.name for a in view.overdue(NOW + 120)] == ["cron"]


def test_agents_that_left_the_fleet_long_ago_are_not_restored() -> None:
    view = _view()
    gone = _event("agent.state", agent="old", state="stopped", at=NOW - 90_000)
    view.restore(
        [
            AgentHistory("old", state=gone),
            AgentHistory("stranger", [_beat("stranger", at=NOW - 90_000)]),
            AgentHistory("midwatch"),
        ],
        NOW,
    )
    assert list(view.names()) == ["cron", "inbox"]


# --- cycles that never end


def _run(at: float = NOW, **fields: Any) -> Item:
    return wire.read(Kind.RUN, {"agent": "inbox", "run_id": "r1", "at": at, **fields}, NOW)


def test_an_agent_that_left_the_file_is_shown_until_it_has_stopped() -> None:
    view = _view()
    _feed(view, _state("running"))
    assert view.reload(FLEET.model_copy(update={"agents": {}})) == ["cron"]
    assert view.forget(NOW) == []
    _feed(view, _state("stopped"))
    assert view.forget(NOW) == ["inbox"]


@pytest.mark.parametrize(
    ("tokens", "seen"),
    [(10 * 600 + 41_200, True), (10 * 600 + 900, False)],
    ids=["runaway", "usual"],
)
def test_what_a_run_used_beyond_its_beats_is_judged_before_the_beat(
    tokens: int, seen: bool
) -> None:
    view = _view()
    _feed(view, _event("run.started", run_id="r1"))
    _feed(view, *[_beat(at=NOW - 50 + n, tokens=600, run_id="r1") for n in range(10)])
    change = view.apply(Kind.RUN, _run(tokens=tokens), NOW)
    assert change is not None
    assert (change.cycle is not None) is seen


def test_a_run_whose_beginning_was_not_seen_is_not_judged() -> None:
    view = _view()
    _feed(view, *[_beat(at=NOW - 50 + n, tokens=600, run_id="r1") for n in range(10)])
    change = view.apply(Kind.RUN, _run(tokens=10**6), NOW)
    assert change is not None
    assert change.cycle is None
