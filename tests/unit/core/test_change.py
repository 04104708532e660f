"""What a new fleet file asks of each agent: the table of keys, and the plan that follows from it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from midwatch.core.change import (
    EFFECTS,
    ENV_FILE_CONTENT,
    Difference,
    Do,
    Effect,
    Entry,
    Wake,
    compare,
    effect_of,
    fixed,
    flat,
    plan,
    wakes,
)
from midwatch.core.fleet import Agent, Fleet
from midwatch.core.states import State

BASE: dict[str, Any] = {"command": ["run"], "heartbeat": {"every": 60.0}}


def entry(content: str = "", **changes: Any) -> Entry:
    return Entry(Agent.model_validate({**BASE, **changes}), content)


def test_every_key_of_an_entry_stands_in_the_table() -> None:
    """A key that a later version adds is decided on purpose, not by the default."""
    keys = set(flat(entry().agent))
    assert {
        key for key in keys if key not in EFFECTS and key.partition(".")[0] not in EFFECTS
    } == set()
    assert {
        k for k in EFFECTS if k not in keys and not any(f.startswith(f"{k}.") for f in keys)
    } == set()


def test_an_unknown_key_needs_a_restart() -> None:
    assert effect_of("limits.something_new") is Effect.RESTART
    assert effect_of("budget.per_day") is Effect.LIVE


@pytest.mark.parametrize(
    ("change", "keys", "restart"),
    [
        ({"command": ["run", "-v"]}, ("command",), True),
        ({"env": {"A": "1"}}, ("env",), True),
        ({"cwd": "sub"}, ("cwd",), True),
        ({"sandbox": {"network": "off"}}, ("sandbox",), True),
        ({"limits": {"memory": 1024}}, ("limits.memory",), True),
        ({"liveness": "none"}, ("liveness",), True),
        ({"heartbeat": {"every": 30.0}}, ("heartbeat.every",), True),
        ({"heartbeat": {"every": 90.0}}, ("heartbeat.every",), False),
        ({"heartbeat": {"every": 60.0, "missed": 5}}, ("heartbeat.missed",), False),
        ({"group": "support"}, ("group",), False),
        ({"budget": {"per_day": 1}}, ("budget.per_day",), False),
        ({"loop": {"action": "notify"}}, ("loop.action",), False),
        ({"restart": {"attempts": 9}}, ("restart.attempts",), False),
        ({"limits": {"stop_grace": 1.0}}, ("limits.stop_grace",), False),
        ({"schedule": {"cron": "0 6 * * *"}}, ("schedule",), True),
        ({}, (), False),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_what_a_living_run_can_take(
    change: dict[str, Any], keys: tuple[str, ...], restart: bool
) -> None:
    found = compare(entry(), entry(**change))
    assert (found.keys, found.restart) == (keys, restart)


def test_another_time_in_the_same_schedule_disturbs_no_run() -> None:
    six, seven = ({"schedule": {"cron": f"0 {hour} * * *"}} for hour in (6, 7))
    assert compare(entry(**six), entry(**seven)) == Difference(("schedule",), False)


def test_a_longer_wall_counts_from_the_next_run_on() -> None:
    found = compare(entry(), entry(limits={"wall": 60.0}))
    assert (found.keys, found.restart, found.later) == (("limits.wall",), False, ("limits.wall",))


def test_the_content_of_an_env_file_is_part_of_the_entry() -> None:
    found = compare(entry("h1", env_file=".env"), entry("h2", env_file=".env"))
    assert (found.keys, found.restart) == ((ENV_FILE_CONTENT,), True)
    moved = compare(entry("h1", env_file=".env"), entry("h2", env_file="other.env"))
    assert moved.keys == ("env_file",)


def test_the_plan_names_each_agent_once_new_ones_in_the_order_of_the_file() -> None:
    old = {"a": entry(), "b": entry(), "c": entry(), "d": entry()}
    new = {"e": entry(), "a": entry(), "b": entry(command=["x"]), "c": entry(group="g")}
    steps = [(s.name, s.do) for s in plan(old, new)]
    assert steps == [
        ("e", Do.START), ("a", Do.NOTHING), ("b", Do.RESTART), ("c", Do.APPLY), ("d", Do.STOP),
    ]  # fmt: skip


def test_ports_cannot_be_changed_while_it_runs() -> None:
    old = Fleet.model_validate({"agents": {}})
    new = Fleet.model_validate(
        {"agents": {}, "hub": {"listen": "127.0.0.1:9000"}, "fleet": "other"}
    )
    assert fixed(old, old) == []
    assert fixed(old, new) == ["hub.listen"]


COMMAND, LIVE = Difference(("command",), True), Difference(("group",))
ENABLED, TIMES = Difference(("enabled",)), Difference(("schedule",))


@pytest.mark.parametrize(
    ("job", "state", "held", "changed", "wake"),
    [
        (False, State.PARKED, True, LIVE, Wake.START),
        (False, State.STOPPED, True, COMMAND, Wake.STAY),
        (False, State.SUSPENDED, True, COMMAND, Wake.STAY),
        (False, State.STOPPED, False, COMMAND, Wake.START),
        (False, State.STOPPED, False, LIVE, Wake.STAY),
        (False, State.STOPPED, False, ENABLED, Wake.START),
        (False, State.BACKING_OFF, False, COMMAND, Wake.START),
        (False, State.BACKING_OFF, False, LIVE, Wake.STAY),
        (True, State.PARKED, True, LIVE, Wake.WAIT),
        (True, State.STOPPED, True, ENABLED, Wake.STAY),
        (True, State.STOPPED, False, ENABLED, Wake.WAIT),
        (True, State.STOPPED, False, COMMAND, Wake.WAIT),
        (True, State.STOPPED, False, TIMES, Wake.WAIT),
        (True, State.STOPPED, False, LIVE, Wake.STAY),
        (True, State.SCHEDULED, False, COMMAND, Wake.STAY),
        (True, State.BACKING_OFF, False, COMMAND, Wake.START),
        (True, State.BACKING_OFF, False, TIMES, Wake.STAY),
    ],
)
def test_a_service_is_started_because_its_entry_changed_and_a_job_waits_for_its_time(
    job: bool, state: State, held: bool, changed: Difference, wake: Wake
) -> None:
    assert wakes(state, held=held, changed=changed, job=job, was_job=job) is wake


@pytest.mark.parametrize("state", [State.STOPPED, State.BACKING_OFF, State.PARKED])
def test_what_becomes_a_job_waits_and_what_was_one_starts(state: State) -> None:
    turned = Difference(("schedule",), restart=True)
    assert wakes(state, held=False, changed=turned, job=True, was_job=False) is Wake.WAIT
    assert wakes(state, held=False, changed=turned, job=False, was_job=True) is Wake.START


def test_a_model_inside_an_entry_is_compared_key_by_key() -> None:
    assert not any(
        isinstance(value, BaseModel)
        for key, value in flat(entry().agent).items()
        if key not in ("sandbox", "schedule")
    )
