"""The fleet view: a fold that tolerates late, double and disordered items."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.core.fleet import Agent, Fleet
from midwatch.core.states import State
from midwatch.core.terms import Budget, Heartbeat
from midwatch.core.view import LOST_AFTER_S, MAX_AGENTS, FleetView
from midwatch.wire import items as wire
from midwatch.wire.items import Item, Kind

NOW = 1_750_000_000.0  # 2025-06-15 15:06:40 UTC
FLEET = Fleet(
    fleet="night-shift",
    agents={
        "inbox": Agent(command=["run"], group="support", budget=Budget(per_day=10_000_000_000)),
        "cron": Agent(external=True, heartbeat=Heartbeat(every=60.0, missed=2)),
    },
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


STRIP = {
    "at": NOW,
    "duration_s": None,
    "tokens": 1_200,
    "cost_usd": 0.42,
    "tool_calls": 3,
    "items": 31,
    "result": None,
}


RESOURCES = {
    "rss_bytes": 9,
    "pss_bytes": None,
    "open_files": 8,
    "children": 0,
    "threads": None,
    "zombies": 1,
}


def test_an_agent_is_told_in_the_shape_of_the_contract() -> None:
    view = _view()
    _feed(
        view,
        _event("run.started", run_id="r1", pid=4, attempt=1, why="first start"),
        _state("running", run_id="r1", pid=4, since=NOW - 60, node="home"),
        _beat(tokens=1_200, cost_usd=0.42, tool_calls=3, items=31, unit="mails", run_id="r1"),
    )
    view.apply(
        Kind.SAMPLE,
        wire.read(
            Kind.SAMPLE,
            {
                "agent": "inbox",
                "at": NOW,
                "rss_bytes": 9,
                "open_files": 8,
                "children": 0,
                "zombies": 1,
            },
            NOW,
        ),
        NOW,
    )
    agent = _agent(view)
    strip = agent.pop("recent_cycles")
    assert agent == {
        "agent": "inbox",
        "parent": None,
        "group": "support",
        "node": "home",
        "state": "running",
        "since": NOW - 60,
        "sentence": "last worked 1 second ago, 31 mails today, $0.42 of $10",
        "reason": None,
        "run_id": "r1",
        "pid": 4,
        "next_start_at": None,
        "schedule": None,
        "last_beat": NOW,
        "cycle": {"tokens": 1_200, "tokens_baseline": None, "cost_usd": 0.42, "tool_calls": 3},
        "today": {
            "cost_usd": 0.42,
            "budget_usd": 10.0,
            "cycles": 1,
            "restarts": 0,
            "tokens": 1_200,
            "items": 31,
            "unit": "mails",
        },
        "resources": RESOURCES,
        "version": None,
        "drift": [],
        "unwalled": None,
        "unmeasured": None,
        "incidents": [],
    }
    assert strip == [STRIP]
    json.dumps(agent, allow_nan=False)


def test_an_agent_that_runs_without_its_walls_says_so_while_it_lives() -> None:
    view = _view()
    _feed(view, _event("run.started", run_id="r1", unwalled="bubblewrap is not installed\x1b"))
    _feed(view, _state("running", run_id="r1"))
    assert _agent(view)["unwalled"] == "bubblewrap is not installed"
    _feed(view, _state("stopped", run_id="r1"))
    assert _agent(view)["unwalled"] is None


def test_a_limit_that_is_judged_late_is_said_as_long_as_that_lasts() -> None:
    view = _view()
    _feed(view, _event("run.started", run_id="r1"), _state("running", run_id="r1"))
    _feed(view, _event("run.unmeasured", run_id="r1", over=False, reason="takes long\x1b"))
    assert _agent(view)["unmeasured"] == "takes long"
    _feed(view, _event("run.unmeasured", run_id="r1", over=True, reason="in time"))
    assert _agent(view)["unmeasured"] is None
    _feed(view, _event("run.unmeasured", run_id="r0", over=False, reason="of another run"))
    assert _agent(view)["unmeasured"] is None


def test_what_nobody_reported_is_none_and_never_zero() -> None:
    agent = _agent(_view())
    assert agent["today"]["cost_usd"] is None
    assert agent["today"]["cycles"] is None
    assert set(agent["cycle"].values()) == {None}
    assert set(agent["resources"].values()) == {None}
    assert _view().fleet(NOW)["today"] == {"cost_usd": None, "cycles": 0}


def test_the_fleet_counts_its_agents() -> None:
    view = _view()
    _feed(view, _state("running"), _beat(cost_usd=0.5), _beat("cron"))
    assert view.fleet(NOW) == {
        "fleet": "night-shift",
        "node": "home",
        "timezone": "UTC",
        "agents": 2,
        "working": 2,
        "open_incidents": 0,
        "today": {"cost_usd": 0.5, "cycles": 2},
        "since": NOW,
        "lost": {},
    }


def test_what_sdks_and_supervisors_lost_is_added_up_by_reason() -> None:
    view = _view()
    _feed(
        view,
        _event("sdk.lost", counts={"queue_full": 2}),
        _event("sdk.lost", "midwatch", counts={"queue_full": 3}),
        _event("node.lost", "midwatch", counts={"notices_clipped": 1}, bytes={"output": 900}),
        _event("node.lost", "inbox", counts={"notices_clipped": 50}),  # not the agent's to say
    )
    assert view.fleet(NOW)["lost"] == {
        "sdk:queue_full": 2,
        "node:queue_full": 3,
        "node:notices_clipped": 1,
    }


def test_an_older_report_of_the_state_does_not_overtake_a_newer_one() -> None:
    view = _view()
    _feed(view, _state("stopped", at=NOW), _state("running", at=NOW - 5))
    assert _agent(view)["state"] == "stopped"


def test_a_sample_heals_a_lost_event_and_an_old_sample_does_not() -> None:
    view = _view()
    _feed(view, _state("running", at=NOW - 20, pid=7))
    for at, state, expected in ((NOW - 30, "parked", "running"), (NOW - 10, "parked", "parked")):
        sample = wire.read(Kind.SAMPLE, {"agent": "inbox", "at": at, "state": state}, NOW)
        view.apply(Kind.SAMPLE, sample, NOW)
        assert _agent(view)["state"] == expected
    assert _agent(view)["pid"] is None


def test_a_beat_that_arrives_twice_counts_once() -> None:
    view = _view()
    beat = _beat(tokens=5)
    _feed(view, beat, beat, dict(beat))
    assert _agent(view)["today"]["cycles"] == 1
    assert len(_agent(view)["recent_cycles"]) == 1


def test_a_run_that_is_reported_twice_is_one_restart() -> None:
    view = _view()
    started = _event("run.started", run_id="r2", attempt=2, why="restart after a crash")
    _feed(view, started, {**started, "id": "other"})
    assert _agent(view)["today"]["restarts"] == 1


def test_sums_are_kept_by_the_day_in_the_fleets_time_zone() -> None:
    view = _view(FLEET.model_copy(update={"timezone": "Pacific/Auckland"}))
    # 15:06 UTC is 03:06 of the next day in Auckland; its midnight was at 12:00 UTC
    _feed(view, _beat(at=NOW - 4 * 3600, tokens=1), _beat(at=NOW - 3600, tokens=10))
    assert _agent(view)["today"]["tokens"] == 10
    assert _agent(view, now=NOW + 86_400)["today"]["tokens"] is None


BEATS = st.lists(
    st.builds(
        lambda age, tokens, cost: _beat(
            at=NOW - age, **({} if tokens is None else {"tokens": tokens}), cost_usd=cost
        ),
        st.integers(0, 100_000),
        st.none() | st.integers(0, 50_000),
        st.integers(0, 500).map(lambda cents: cents / 100),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(BEATS, st.randoms(use_true_random=False))
def test_sums_strip_and_last_beat_do_not_depend_on_the_order_of_arrival(
    beats: list[Item], random: Any
) -> None:
    shuffled = [*beats, *beats[: len(beats) // 2]]
    random.shuffle(shuffled)
    told: list[dict[str, Any]] = []
    for order in (beats, shuffled):
        view = _view()
        _feed(view, *order)
        agent = _agent(view)
        agent["cycle"] = agent["sentence"] = None
        agent["recent_cycles"] = sorted(agent["recent_cycles"], key=repr)
        told.append(agent)
    assert told[0] == told[1]


JSON = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1e15, 1e15, 10**400, 2**63]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.lists(st.integers() | st.text(max_size=4), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)
EVENTS = st.sampled_from(
    [
        "agent.state",
        "run.started",
        "run.ended",
        "run.hung",
        "agent.recovered",
        "agent.draining",
        "agent.step",
        "agent.progress",
        "agent.outcome",
        "sdk.lost",
        "decision",
    ]
)
DATA = st.dictionaries(
    st.sampled_from(
        [
            "state",
            "since",
            "reason",
            "pid",
            "run_id",
            "attempt",
            "next_start_at",
            "node",
            "why",
            "end",
            "tail",
            "exit_code",
            "rss_bytes",
            "expect_s",
            "text",
            "done",
            "total",
            "counts",
            "stable_s",
            "credential",
        ]
    ),
    JSON | st.sampled_from([s.value for s in State]),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Kind)),
            st.dictionaries(
                st.sampled_from(sorted({f for k in Kind for f in wire.FIELDS[k]})), JSON
            ),
            EVENTS,
            DATA,
        ),
        max_size=6,
    )
)
def test_no_item_that_was_accepted_can_break_the_view(
    raws: list[tuple[Kind, dict[str, Any], str, dict[str, Any]]],
) -> None:
    view = _view()
    for kind, fields, event, data in raws:
        raw = {**fields, "agent": "inbox"}
        if kind is Kind.EVENT:
            raw |= {"kind": event, "data": data}
        if kind is Kind.RUN:
            raw.setdefault("run_id", "r")
        try:
            item = wire.read(kind, raw, NOW)
        except wire.BadItem:
            continue
        view.apply(kind, item, NOW)
        for agent in view.agents(NOW):
            assert agent["sentence"].isprintable()
            json.dumps(agent)
    view.overdue(NOW + 1_000)
    view.lose_silent(NOW + 1_000)
    json.dumps(view.fleet(NOW + 1_000))


# --- heartbeats that only the hub sees


def test_an_external_agent_is_overdue_two_intervals_after_its_last_beat_and_once() -> None:
    view = _view()
    _feed(view, _beat("cron", at=NOW))
    assert view.next_due() == NOW + 120
    assert view.overdue(NOW + 119.9) == []
    assert [a.name for a in view.overdue(NOW + 120)] == ["cron"]
    assert view.overdue(NOW + 500) == []
    assert _agent(view, "cron")["state"] == "unhealthy"
    _feed(view, _beat("cron", at=NOW + 600), now=NOW + 600)
    assert _agent(view, "cron")["state"] == "running"
    assert view.next_due() == NOW + 720


def test_beats_move_the_due_time_without_growing_the_index() -> None:
    view = _view()
    for second in range(500):
        _feed(view, _beat("cron", at=NOW + second), now=NOW + second)
    assert len(view._due) == 1
    assert view.overdue(NOW + 120) == []
    assert view.next_due() == NOW + 499 + 120


def test_a_declared_long_step_puts_the_due_time_off() -> None:
    view = _view()
    _feed(view, _beat("cron"), _event("agent.step", agent="cron", text="download", expect_s=2_400))
    assert view.overdue(NOW + 2_399) == []
    assert [a.name for a in view.overdue(NOW + 2_461)] == ["cron"]


def test_a_slow_clock_does_not_make_an_agent_late() -> None:
    view = _view()
    for second in range(0, 600, 60):
        _feed(view, _beat("cron", at=NOW + second - 300), now=NOW + second)
        assert view.overdue(NOW + second + 59) == []


def test_a_spool_that_is_delivered_late_does_not_make_a_dead_agent_alive_for_long() -> None:
    view = _view()
    _feed(view, _beat("cron", at=NOW))
    assert [a.name for a in view.overdue(NOW + 130)] == ["cron"]
    _feed(view, *[_beat("cron", at=NOW + s) for s in range(1, 20)], now=NOW + 3_600)
    assert [a.name for a in view.overdue(NOW + 3_601)] == ["cron"]


def test_an_agent_with_a_supervisor_is_never_overdue_here() -> None:
    view = _view()
    _feed(view, _state("running"), _beat())
    assert view.next_due() is None
    assert view.overdue(NOW + 10_000) == []


def test_nobody_is_late_because_the_hub_stood_still() -> None:
    view = _view()
    _feed(view, _beat("cron"))
    view.excuse(3_600)
    assert view.overdue(NOW + 3_600 + 119) == []
    assert [a.name for a in view.overdue(NOW + 3_600 + 120)] == ["cron"]


# --- nodes


def test_agents_of_a_silent_node_are_lost_and_come_back_with_its_next_word() -> None:
    view = _view()
    _feed(view, _state("running", node="home", pid=4))
    assert view.lose_silent(NOW + LOST_AFTER_S - 1) == []
    assert [a.name for a in view.lose_silent(NOW + LOST_AFTER_S)] == ["inbox"]
    assert view.lose_silent(NOW + 1_000) == []
    assert (_agent(view)["state"], _agent(view)["pid"]) == ("lost", None)
    sample = wire.read(
        Kind.SAMPLE, {"agent": "inbox", "at": NOW + 60, "state": "running", "pid": 4}, NOW
    )
    view.apply(Kind.SAMPLE, sample, NOW + 60)
    assert (_agent(view)["state"], _agent(view)["pid"]) == ("running", 4)


def test_a_stop_in_good_order_loses_nobody() -> None:
    view = _view()
    _feed(view, _state("running"), _event("node.stopping", agent="midwatch"))
    assert view.lose_silent(NOW + 1_000) == []


def test_agents_that_are_down_are_not_lost() -> None:
    view = _view()
    _feed(view, _state("parked"))
    assert view.lose_silent(NOW + 1_000) == []


# --- who is in the view


def test_midwatch_itself_is_no_agent() -> None:
    view = _view()
    _feed(view, _event("hub.down", agent="midwatch"))
    assert list(view.names()) == ["cron", "inbox"]


def test_strangers_are_taken_up_by_their_beats_and_not_by_their_last_words() -> None:
    view = _view()
    _feed(view, _event("run.ended", agent="ghost", end="failed"), _beat("visitor"))
    assert list(view.names()) == ["cron", "inbox", "visitor"]


def test_the_number_of_agents_is_bounded_and_the_rest_is_counted() -> None:
    view = _view()
    for number in range(MAX_AGENTS + 3):
        _feed(view, _beat(f"a{number}"))
    assert len(view.names()) == MAX_AGENTS
    assert view.refused_agents == 5


def test_a_new_fleet_file_adds_and_drops_agents() -> None:
    view = _view()
    _feed(view, _beat("cron"))
    agents = {"inbox": FLEET.agents["inbox"], "new": Agent(command=["x"])}
    assert view.reload(FLEET.model_copy(update={"agents": agents})) == []
    assert list(view.names()) == ["cron", "inbox", "new"]  # cron still works
    assert view.forget(NOW + 100) == []
    assert view.forget(NOW + 100_000) == ["cron"]
    _feed(view, _state("stopped"))
    assert view.reload(FLEET.model_copy(update={"agents": {"new": agents["new"]}})) == ["inbox"]


def test_each_of_several_instances_has_the_settings_of_its_entry() -> None:
    fleet = Fleet(agents={"crawl": Agent(command=["x"], instances=3, group="web")})
    view = _view(fleet)
    assert list(view.names()) == []
    _feed(view, _event("agent.state", agent="crawl.2", state="running"))
    assert _agent(view, "crawl.2")["group"] == "web"
