"""The incidents about change: a duplicate that was not started, and an entry that was taken back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from midwatch.core.detection import Facts
from midwatch.core.detectors.duplicate_instance import duplicate_instance
from midwatch.core.detectors.rolled_back import rolled_back
from midwatch.core.fleet import Agent
from midwatch.core.incident import Clear, Finding
from midwatch.core.terms import Schedule

NOW = 1_750_000_000.0


def facts(kind: str, open_kind: str | None = None, state: str | None = None, **data: Any) -> Facts:
    item = {"id": "i", "agent": "inbox", "at": NOW, "kind": kind, "data": data}
    open_kinds = {} if open_kind is None else {open_kind: NOW - 9}
    return Facts(
        "inbox", item, NOW, Agent(command=["run"]), state=state, open_kinds=open_kinds,
        state_before="parked" if state else None,
    )  # fmt: skip


def test_a_duplicate_says_who_has_it() -> None:
    held = "runs already under pid 7 (data directory '/x'), for 3 hours"
    found = duplicate_instance.judge(
        facts("agent.duplicate", reason=held, pid=7, data="/x", since=NOW)
    )
    assert isinstance(found, Finding)
    assert (found.kind, found.done) == ("duplicate-instance", ("park",))
    assert found.sentence == f"inbox: not started: {held}; started here when that one lets go"
    assert found.evidence == {"pid": 7, "data": "/x", "since": NOW}


def test_a_duplicate_of_a_job_is_not_started_when_the_other_one_ends() -> None:
    told = replace(
        facts("agent.duplicate", reason="runs already under pid 7"),
        config=Agent(command=["run"], schedule=Schedule(every=60.0)),
    )
    found = duplicate_instance.judge(told)
    assert isinstance(found, Finding)
    assert found.sentence.endswith("; its schedule is followed here when that one lets go")


def test_a_duplicate_is_over_when_the_agent_is_started_here() -> None:
    kind = "duplicate-instance"
    assert duplicate_instance.judge(facts("agent.state", kind, "parked")) is None
    assert duplicate_instance.judge(facts("agent.state", None, "running")) is None
    over = duplicate_instance.judge(facts("agent.state", kind, "starting"))
    assert isinstance(over, Clear)
    stopped = duplicate_instance.judge(facts("agent.state", kind, "stopped"))
    assert isinstance(stopped, Clear)


def test_a_rollback_says_what_changed_and_why_it_did_not_stay() -> None:
    found = rolled_back.judge(
        facts(
            "agent.rolled_back", keys=["command", "env"], reason="exit code 1: boom", end="failed"
        )
    )
    assert isinstance(found, Finding)
    assert found.kind == "rolled-back"
    assert found.sentence == (
        "inbox: its changed entry (command, env) was taken back because it failed: exit code 1: boom; "
        "the last good one runs again until the fleet file is changed"
    )


def test_a_rollback_says_what_was_and_what_was_not_taken_back() -> None:
    old, new = "a" * 40, "b" * 40
    left = [{"what": "its code", "why": "git is not installed"}]
    for data, sentence in (
        (
            {"code": {"from": new, "to": old}},
            "its code (from bbbbbbbbbbbb back to aaaaaaaaaaaa) was taken back because it failed: exit code 1; the last"
            " good one runs again until the code is changed",
        ),
        (
            {"keys": ["command"], "env_file": True, "code": {"from": new, "to": old}},
            "its changed entry (command), its env file's content and its code (from bbbbbbbbbbbb back to aaaaaaaaaaaa)"
            " were taken back because it failed: exit code 1; the last good one runs again until the fleet file, the"
            " env file or the code is changed",
        ),
        (
            {"keys": ["command"], "left": left},
            "its changed entry (command) was taken back because it failed: exit code 1; its code stays as it is: git is"
            " not installed; the last good one runs again until the fleet file is changed",
        ),
        (
            {"env_file": True},
            "its env file's content was taken back because it failed: exit code 1; the last good one runs again until"
            " the env file is changed",
        ),
    ):
        found = rolled_back.judge(facts("agent.rolled_back", reason="exit code 1", **data))
        assert isinstance(found, Finding)
        assert found.sentence == f"inbox: {sentence}"


@pytest.mark.parametrize(
    "data",
    [
        {"code": "x", "left": "y", "env_file": "z", "keys": 7},
        {"code": {"from": 1}, "left": [None, {"what": {}, "why": 3}] * 99},
    ],
)
def test_a_rollback_that_makes_no_sense_is_still_one_sentence(data: dict[str, Any]) -> None:
    found = rolled_back.judge(facts("agent.rolled_back", **data))
    assert isinstance(found, Finding)
    assert found.sentence.startswith("inbox: its changed entry was taken back")
    assert len(found.sentence) <= 400


def test_hostile_data_is_bounded() -> None:
    found = rolled_back.judge(
        facts("agent.rolled_back", keys=["\x1b[2J" * 99] * 99, reason="x" * 9999)
    )
    assert isinstance(found, Finding)
    assert len(found.sentence) <= 400
    assert "\x1b" not in found.sentence
