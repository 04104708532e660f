from __future__ import annotations

import math
from typing import Any

import pytest

from midwatch.api.shapes import AgentShape, IncidentShape, moment, shown
from midwatch.api.traceshapes import WholeTrace

AT = 1_795_258_923.1236
TEXT = "2026-11-21T11:02:03.123Z"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(AT, TEXT), (0, "1970-01-01T00:00:00.000Z"), (1.0005, "1970-01-01T00:00:01.000Z")],
)
def test_a_moment_is_utc_with_milliseconds(seconds: float, text: str) -> None:
    assert moment(seconds) == text


@pytest.mark.parametrize("strange", [1e18, -1e18, math.inf, "soon"])
def test_what_no_calendar_holds_stays_as_it_is(strange: Any) -> None:
    assert moment(strange) is strange


def test_times_are_shown_at_every_depth_and_nothing_else_is_touched() -> None:
    incident = {
        "opened_at": AT,
        "resolved_at": None,
        "evidence": {"from": AT, "last_beat_at": AT, "rss_bytes": AT, "deployed_at": AT},
        "actions": [{"do": "restart", "at": AT, "result": "restarted"}],
    }
    agent = {"since": AT, "today": {"cost_usd": AT}, "incidents": [incident], "extra_at": AT}
    whole = {"spans": [{"at": AT, "attributes": {"at": AT}, "events": [{"name": "x", "at": AT}]}]}
    assert shown(AgentShape, agent) == {
        "since": TEXT,
        "today": {"cost_usd": AT},
        "incidents": [
            {
                "opened_at": TEXT,
                "resolved_at": None,
                "evidence": {
                    "from": TEXT,
                    "last_beat_at": TEXT,
                    "rss_bytes": AT,
                    "deployed_at": AT,
                },
                "actions": [{"do": "restart", "at": TEXT, "result": "restarted"}],
            }
        ],
        "extra_at": AT,
    }
    assert incident["opened_at"] == AT
    assert shown(IncidentShape, {}) == {}
    assert shown(WholeTrace, whole) == {
        "spans": [{"at": TEXT, "attributes": {"at": AT}, "events": [{"name": "x", "at": TEXT}]}]
    }
