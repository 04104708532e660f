"""What `midwatch up` says that it watches."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.cli.up import watched
from midwatch.core.fleet import Fleet

DAILY = {"cron": "0 6 * * *"}


@pytest.mark.parametrize(
    ("agents", "said"),
    [
        ({}, "no agent of fleet 'night'"),
        ({"a": {}}, "1 agent of fleet 'night'"),
        ({"a": {}, "b": {"instances": 3}}, "4 agents of fleet 'night'"),
        ({"a": {}, "b": {"enabled": False}}, "1 agent of fleet 'night' (1 more disabled)"),
        ({"a": {"enabled": False, "instances": 2}}, "no agent of fleet 'night' (2 disabled)"),
        ({"a": {}, "b": {"schedule": DAILY}}, "2 agents of fleet 'night' (1 on a schedule)"),
        (
            {
                "a": {"command": None, "external": True},
                "b": {"schedule": DAILY},
                "c": {"schedule": DAILY, "enabled": False},
            },
            "2 agents of fleet 'night' (1 on a schedule, 1 started by others, 1 more disabled)",
        ),
    ],
)
def test_each_instance_counts_and_who_is_disabled_does_not(
    agents: dict[str, dict[str, Any]], said: str
) -> None:
    entries = {name: {"command": ["true"], **entry} for name, entry in agents.items()}
    fleet = Fleet.model_validate({"fleet": "night", "agents": entries})
    assert watched(fleet.resolved()) == said
