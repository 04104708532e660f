"""The page of a scheduled agent: its rule, its next run on its own clock, and its last runs."""

from __future__ import annotations

import re
from typing import Any

from demo_hub import NOW, Demo
from starlette.testclient import TestClient

from midwatch.core.fleet import Fleet
from midwatch.core.view import FleetView
from midwatch.wire.items import Kind


def page(state: dict[str, Any]) -> str:
    schedule = {"cron": "0 6 * * *", "timezone": "America/New_York"}
    fleet = Fleet.model_validate(
        {"timezone": "Europe/Paris", "agents": {"report": {"command": ["x"], "schedule": schedule}}}
    ).resolved()
    demo = Demo()
    reader: Any = FleetView(fleet, node="lighthouse", now=NOW)
    item = {"id": "s", "agent": "report", "at": NOW - 5, "kind": "agent.state", "data": state}
    reader.apply(Kind.EVENT, item, NOW)
    demo.reader = reader
    html = TestClient(demo.app()).get("/agents/report").text
    return " ".join(re.sub(r"<[^>]+>", " ", html.replace("\n", " ")).split())


def test_the_next_run_is_named_with_the_schedules_zone() -> None:
    text = page({"state": "scheduled", "next_start_at": NOW + 34_200.0})
    assert "Schedule at 06:00 every day America/New_York" in text
    assert "Next run in 9 hours 2026-01-15 05:58 America/New_York" in text
    assert "Next start" not in text


def test_a_restart_that_waits_is_shown_beside_the_next_run() -> None:
    text = page({"state": "backing-off", "next_start_at": NOW + 60.0})
    assert "Next run in 9 hours 2026-01-15 06:00 America/New_York" in text
    assert "Next start in 1 minute" in text


def test_a_stopped_agent_has_no_next_run() -> None:
    assert "Next run none" in page({"state": "stopped"})
