"""What API, page and status say of a schedule: the rule, its zone, and the next start as things are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from midwatch.core.fleet import Agent, Fleet
from midwatch.core.view import FleetView
from midwatch.wire import items as wire
from midwatch.wire.items import Kind


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


NOW = at("2026-06-10T12:30")


def told(state: str, next_start_at: float | None = None, **schedule: Any) -> dict[str, Any]:
    agent = Agent.model_validate(
        {"command": ["run"], "schedule": {"cron": "0 6 * * *", **schedule}}
    )
    view = FleetView(
        Fleet(timezone="Europe/Paris", agents={"report": agent}), node="home", now=NOW - 60
    )
    data = {"state": state, "next_start_at": next_start_at}
    item = wire.read(
        Kind.EVENT, {"agent": "report", "at": NOW - 1, "kind": "agent.state", "data": data}, NOW
    )
    view.apply(Kind.EVENT, item, NOW)
    found = view.agent("report", NOW)
    assert found is not None
    return found["schedule"]


def test_the_next_start_is_the_supervisors_and_shown_on_the_schedules_clock() -> None:
    found = told("scheduled", at("2026-06-11T04:00:20"), jitter=60.0)
    assert found == {
        "rule": "at 06:00 every day, put off by up to 1m",
        "timezone": "Europe/Paris",
        "next_at": at("2026-06-11T04:00:20"),
        "next": "2026-06-11 06:00:20",
        "missed": "once",
        "overlap": "skip",
    }


@pytest.mark.parametrize("state", ["running", "backing-off", "scheduled"])
def test_without_the_supervisors_word_the_calendar_tells(state: str) -> None:
    assert told(state, timezone="America/New_York")["next"] == "2026-06-11 06:00"


def test_the_next_restart_is_not_taken_for_the_next_run() -> None:
    assert told("backing-off", NOW + 5)["next"] == "2026-06-11 06:00"


@pytest.mark.parametrize("state", ["stopped", "parked", "suspended"])
def test_while_it_is_held_no_next_start_is_promised(state: str) -> None:
    found = told(state, NOW + 3600)
    assert (found["next_at"], found["next"]) == (None, None)


def test_an_agent_without_a_schedule_has_none() -> None:
    view = FleetView(Fleet(agents={"a": Agent(command=["run"])}), node="home", now=NOW)
    found = view.agent("a", NOW)
    assert found is not None
    assert found["schedule"] is None
