"""What is said of an agent, state by state."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.agentview import AgentView
from midwatch.core.fleet import Agent, Fleet
from midwatch.core.plain import clean
from midwatch.core.sentence import sentence_of
from midwatch.core.states import State
from midwatch.core.terms import Budget
from midwatch.core.times import day_end, day_start, show_time, zone_of
from midwatch.core.view import FleetView
from midwatch.wire import items as wire
from midwatch.wire.items import Kind

NOW = 1_750_000_000.0  # 17:06:40 in Paris
PARIS = "Europe/Paris"
OOM = {
    "end": "out-of-memory",
    "rss_bytes": 2**30,
    "rss_slope_bytes_h": 40 * 2**20,
    "next": "restart",
}


def _sentence(*steps: tuple[str, float, dict[str, Any]], **config: Any) -> str:
    """Return the sentence after `steps`: event kind (or `beat`), seconds ago, data."""
    config.setdefault("command", ["run"])
    fleet = Fleet(timezone=PARIS, agents={"prices": Agent(**config)})
    view = FleetView(fleet, node="home", now=NOW - 90_000)
    for kind, ago, data in steps:
        raw = {"agent": "prices", "at": NOW - ago}
        if kind == "beat":
            item = wire.read(Kind.BEAT, {**raw, **data}, NOW)
        else:
            item = wire.read(Kind.EVENT, {**raw, "kind": kind, "data": data}, NOW)
        view.apply(Kind.BEAT if kind == "beat" else Kind.EVENT, item, NOW - ago)
    agent = view.agent("prices", NOW)
    assert agent is not None
    return agent["sentence"]


RUNNING = ("agent.state", 30.0, {"state": "running"})


@pytest.mark.parametrize(
    ("steps", "config", "sentence"),
    [
        pytest.param(
            [RUNNING, ("beat", 480, {"items": 31, "unit": "mails", "cost_usd": 0.42})],
            {"budget": Budget(per_day=10_000_000_000)},
            "last worked 8 minutes ago, 31 mails today, $0.42 of $10",
            id="works",
        ),
        pytest.param(
            [RUNNING, ("beat", 5, {"items": 1, "unit": "entries"})],
            {},
            "last worked 5 seconds ago, 1 entry today",
            id="one piece of work, no cost known",
        ),
        pytest.param(
            [RUNNING, ("beat", 60, {}), ("beat", 2, {"cost_usd": 0.5})],
            {},
            "last worked 2 seconds ago, 2 cycles today, $0.50 today",
            id="cycles, when items are not counted",
        ),
        pytest.param(
            [
                ("run.ended", 110, OOM),
                ("run.started", 100, {"run_id": "b", "attempt": 2, "why": "restart"}),
                RUNNING,
            ],
            {},
            "restarted at 17:05 after running out of memory (1.0 GiB, +40 MiB an hour)",
            id="restarted",
        ),
        pytest.param(
            [
                ("run.ended", 3_710, OOM),
                ("run.started", 3_700, {"run_id": "b", "attempt": 2}),
                RUNNING,
                ("beat", 3, {}),
            ],
            {},
            "last worked 3 seconds ago, 1 cycle today",
            id="a restart is old news after an hour",
        ),
        pytest.param(
            [RUNNING, ("beat", 3, {"result": "failed", "error": "no\nmail \x1b[31mserver"})],
            {},
            "its last cycle failed 3 seconds ago (no mail [31mserver), 1 cycle today",
            id="failed cycle",
        ),
        pytest.param(
            [
                RUNNING,
                ("beat", 300, {}),
                ("agent.step", 240, {"text": "downloading", "expect_s": 999}),
            ],
            {},
            "in a long step for 4 minutes (downloading); last worked 5 minutes ago, 1 cycle today",
            id="long step",
        ),
        pytest.param(
            [RUNNING, ("agent.progress", 5, {"done": 60, "total": 89})],
            {},
            "60 of 89 done",
            id="progress",
        ),
        pytest.param([RUNNING], {}, "running for 30 seconds, no beat yet", id="no beat"),
        pytest.param([], {}, "starting", id="before any report"),
        pytest.param(
            [], {"command": None, "external": True}, "waiting for its first beat", id="external"
        ),
        pytest.param([], {"enabled": False}, "stopped", id="switched off"),
        pytest.param(
            [
                ("run.ended", 60, {**OOM, "failures": 1}),
                ("agent.state", 60, {"state": "backing-off", "next_start_at": NOW + 47}),
            ],
            {},
            "ran out of memory (1.0 GiB, +40 MiB an hour) at 17:05; next start at 17:07:27",
            id="backs off",
        ),
        pytest.param(
            [
                ("run.ended", 90_000, {"end": "failed", "exit_code": 2, "tail": ["KeyError: 'x'"]}),
                ("agent.state", 90_000, {"state": "parked"}),
            ],
            {},
            "parked at 16:06 on 14 Jun after an exit with code 2 (KeyError: 'x'), until a person starts it",
            id="parked yesterday",
        ),
        pytest.param(
            [("agent.state", 60, {"state": "suspended", "reason": "by ann"})],
            {},
            "suspended at 17:05 (by ann), until it is resumed",
            id="suspended by a person",
        ),
        pytest.param(
            [("run.ended", 60, {"end": "operator"}), ("agent.state", 60, {"state": "stopped"})],
            {},
            "was stopped by a person at 17:05",
            id="stopped",
        ),
        pytest.param(
            [("agent.state", 60, {"state": "draining"})],
            {},
            "finishing its work for 1 minute",
            id="drains",
        ),
        pytest.param(
            [("agent.state", 60, {"state": "waiting", "reason": "an approval"})],
            {},
            "waits: an approval since 17:05",
            id="waits",
        ),
        pytest.param(
            [("agent.state", 60, {"state": "waiting", "reason": "waits for input: 'y/N'"})],
            {},
            "waits for input: 'y/N' since 17:05",
            id="waits for input",
        ),
        pytest.param(
            [("beat", 300, {}), ("agent.state", 60, {"state": "unhealthy"})],
            {},
            "no beat for 5 minutes, one is due every 1 minute; 1 cycle today",
            id="unhealthy",
        ),
        pytest.param(
            [
                ("run.ended", 3_600, {"end": "finished"}),
                ("agent.state", 3_600, {"state": "scheduled", "next_start_at": NOW + 46_400}),
            ],
            {},
            "next run at 06:00 on 16 Jun, last run finished at 16:06",
            id="scheduled",
        ),
        pytest.param(
            [
                ("beat", 3_590, {"items": 1, "unit": "reports"}),
                ("run.ended", 3_600, {"end": "finished"}),
                ("agent.state", 3_600, {"state": "scheduled", "next_start_at": NOW + 46_400}),
            ],
            {},
            "next run at 06:00 on 16 Jun, last run finished at 16:06; 1 report today",
            id="scheduled, and it beat",
        ),
        pytest.param(
            [("agent.state", 3_600, {"state": "scheduled", "next_start_at": NOW + 46_400})],
            {"schedule": {"cron": "0 6 * * *", "timezone": "America/New_York"}},
            "next run at 00:00 on 16 Jun America/New_York, has not run yet",
            id="scheduled, in a zone of its own",
        ),
    ],
)
def test_a_sentence_says_what_a_person_wants_to_know(
    steps: list[tuple[str, float, dict[str, Any]]], config: dict[str, Any], sentence: str
) -> None:
    assert _sentence(*steps, **config) == sentence


def test_there_is_a_sentence_for_every_state() -> None:
    for state in State:
        assert _sentence(("agent.state", 60, {"state": state.value}))


def test_a_lost_agent_names_its_node() -> None:
    fleet = Fleet(agents={"a": Agent(command=["x"])})
    view = FleetView(fleet, node="home", now=NOW)
    item = wire.read(
        Kind.EVENT,
        {
            "agent": "a",
            "kind": "agent.state",
            "at": NOW,
            "data": {"state": "running", "node": "attic"},
        },
        NOW,
    )
    view.apply(Kind.EVENT, item, NOW)
    view.lose_silent(NOW + 60)
    agent = view.agent("a", NOW + 60)
    assert agent is not None
    assert agent["sentence"] == "lost: node attic no longer reports since 15:07"


@given(st.text(max_size=5_000), st.integers(1, 300))
def test_foreign_text_becomes_one_bounded_printable_line(text: str, limit: int) -> None:
    line = clean(text, limit)
    assert line.isprintable()
    assert len(line) <= limit
    assert clean(line, limit) == line


def test_an_agents_units_and_reasons_cannot_disturb_the_page() -> None:
    said = _sentence(
        RUNNING,
        ("beat", 5, {"items": 2, "unit": "x" * 128}),
        ("agent.step", 1, {"text": "\u202egnp.exe\x07" + "y" * 5_000}),
    )
    assert said.isprintable()
    assert len(said) <= 400


def test_days_with_a_clock_change_are_23_and_25_hours_long() -> None:
    zone = ZoneInfo(PARIS)
    for day, hours in ((1_743_300_000.0, 23), (1_761_450_000.0, 25), (NOW, 24)):
        assert day_end(day, zone) - day_start(day, zone) == hours * 3_600


@pytest.mark.parametrize("at", [1e15, -1e15, 1e300])
def test_a_time_outside_the_calendar_is_said_to_be_unknown(at: float) -> None:
    assert show_time(at, NOW, zone_of("UTC")) == "an unknown time"


def test_an_unknown_time_zone_falls_back_to_utc() -> None:
    assert show_time(NOW, NOW, zone_of("Mars/Base")) == "15:06"


def test_an_agent_that_runs_elsewhere_needs_no_person_to_start_it() -> None:
    agent = AgentView("a", Agent(command=["run"]), declared=True)
    agent.state, agent.reason = State.PARKED, "runs already under pid 7"
    assert sentence_of(agent, NOW, zone_of(PARIS)).endswith(", until a person starts it")
    agent.incidents = [{"kind": "duplicate-instance", "actions": []}]
    assert sentence_of(agent, NOW, zone_of(PARIS)) == "parked: runs already under pid 7"


def test_an_agent_view_alone_needs_no_fleet() -> None:
    agent = AgentView("a", Agent(external=True), declared=False)
    assert agent.strip() == []
    assert set(agent.resources(NOW).values()) == {None}
