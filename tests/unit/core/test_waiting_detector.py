"""`waiting-for-input` as the hub words it, and when it is over."""

from __future__ import annotations

import json
from typing import Any

import pytest

from midwatch.core.detection import Facts
from midwatch.core.detectors.waiting_for_input import KIND, waiting_for_input
from midwatch.core.fleet import Agent
from midwatch.core.incident import Clear, Finding
from midwatch.core.states import State

NOW = 1_750_000_000.0
QUESTION = "Do you trust the files in this folder? (y/N)"
WAITING: dict[str, Any] = {
    "run_id": "r1",
    "pid": 7,
    "question": QUESTION,
    "screen": ["Welcome", "", f"  {QUESTION}"],
    "silent_s": 9.2,
    "reason": "reads its terminal, quiet for 9 seconds",
}


def facts(kind: str, data: dict[str, Any] | None = None, **more: Any) -> Facts:
    item = {"id": "i", "agent": "inbox", "at": NOW, "kind": kind, "data": data or {}}
    more.setdefault("config", Agent(command=["run"], tty=True))
    return Facts(agent="inbox", item=item, now=NOW, managed=True, **more)


def test_it_says_what_is_asked_and_shows_the_screen() -> None:
    found = waiting_for_input.judge(facts("run.waiting", WAITING, state=State.WAITING))
    assert isinstance(found, Finding)
    assert found.sentence == f"inbox: waits for input: {QUESTION!r}; quiet for 9 seconds"
    assert (found.kind, found.severity) == (KIND, "critical")  # nobody but a person can answer
    assert found.evidence["screen"] == ["Welcome", "", f"  {QUESTION}"]
    assert found.reason == "reads its terminal, quiet for 9 seconds"


def test_an_agent_that_is_meant_to_wait_calls_nobody() -> None:
    meant = Agent(command=["run"], tty=True, liveness="none")
    found = waiting_for_input.judge(facts("run.waiting", WAITING, config=meant))
    assert isinstance(found, Finding)
    assert found.severity == "info"


@pytest.mark.parametrize(
    "data", [{}, {"question": 7, "screen": "x", "silent_s": "long"}, {"screen": [7, None]}]
)
def test_a_report_that_says_little_is_told_all_the_same(data: dict[str, Any]) -> None:
    found = waiting_for_input.judge(facts("run.waiting", data))
    assert isinstance(found, Finding)
    assert found.sentence == "inbox: waits for input"


def test_a_hostile_screen_is_bounded_and_printable() -> None:
    screen = ["\x1b[2J\u202e" + "☠" * 9000] * 500
    found = waiting_for_input.judge(facts("run.waiting", {**WAITING, "screen": screen}))
    assert isinstance(found, Finding)
    assert len(json.dumps(found.evidence, ensure_ascii=False).encode()) < 16 * 1024
    assert all(line.isprintable() for line in found.evidence["screen"])


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("agent.state", State.RUNNING),
        ("agent.state", State.DRAINING),
        ("run.ended", State.BACKING_OFF),
        ("sample", State.RUNNING),
    ],
)
def test_it_is_over_when_the_agent_does_anything_else(kind: str, state: State) -> None:
    verdict = waiting_for_input.judge(facts(kind, state=state, open_kinds={KIND: NOW - 5}))
    assert isinstance(verdict, Clear)
    assert kind in waiting_for_input.on


@pytest.mark.parametrize("kind", ["agent.state", "sample"])
def test_it_stays_open_while_it_waits(kind: str) -> None:
    assert waiting_for_input.judge(facts(kind, state=State.WAITING, open_kinds={KIND: NOW})) is None


def test_nothing_is_cleared_that_was_not_told() -> None:
    assert waiting_for_input.judge(facts("agent.state", state=State.RUNNING)) is None
