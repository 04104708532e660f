"""Incidents about what a run is like, which no time makes good, and those of sub-agents."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.core.detection import Facts, load
from midwatch.core.fleet import Agent
from midwatch.core.incident import Clear, Finding

NOW = 1_750_000_000.0
ALL = load()
LASTING = ("memory-leak", "fd-leak", "child-pileup")


def facts(
    kind: str, agent: str = "inbox", data: dict[str, Any] | None = None, **more: Any
) -> Facts:
    item = {"id": "i", "agent": agent, "at": NOW, "kind": kind, "data": data or {}}
    return Facts(agent, item, NOW, Agent(command=["x"]), managed=True, state="running", **more)


@pytest.mark.parametrize("kind", LASTING)
@pytest.mark.parametrize("event", ["sample", "agent.recovered"])
def test_a_leak_or_a_pile_that_goes_on_is_not_over_for_being_old(kind: str, event: str) -> None:
    told = {kind: NOW - 7200.0}
    assert ALL[kind].judge(facts(event, state_at=NOW - 9000.0, open_kinds=told)) is None


@pytest.mark.parametrize("kind", LASTING)
def test_it_is_over_when_a_later_run_did_well(kind: str) -> None:
    told = {kind: NOW - 7200.0}
    over = ALL[kind].judge(facts("sample", state_at=NOW - 7000.0, open_kinds=told))
    assert isinstance(over, Clear)


def test_what_happened_to_a_run_is_over_in_time() -> None:
    told = {"crash": NOW - 7200.0}
    over = ALL["crash"].judge(facts("sample", state_at=NOW - 9000.0, open_kinds=told))
    assert isinstance(over, Clear)


def test_a_flood_whose_supervisor_died_is_over_with_the_next_run() -> None:
    judge = ALL["pipe-flood"].judge
    assert isinstance(judge(facts("run.started", open_kinds={"pipe-flood": NOW - 60.0})), Clear)
    assert judge(facts("run.started")) is None


@pytest.mark.parametrize(("end", "kind"), [("wall-clock", "wall-clock-over"), ("failed", "crash")])
def test_the_end_of_a_sub_agent_is_its_parents_business(end: str, kind: str) -> None:
    data = {"end": end, "next": "stop", "exit_code": 1, "duration_s": 60.0}
    own = ALL[kind].judge(facts("run.ended", data=data))
    sub = ALL[kind].judge(facts("run.ended", "inbox:search", data))
    assert isinstance(own, Finding)
    assert isinstance(sub, Finding)
    assert (own.severity, own.transient) == ("critical", False)
    assert (sub.severity, sub.transient) == ("warning", True)
    assert "limits.wall" not in sub.reason
