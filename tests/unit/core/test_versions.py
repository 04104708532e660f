"""Drift in sentences, and when a changed entry is taken back."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.core.change import Difference
from midwatch.core.exits import End, Verdict
from midwatch.core.versions import Revision, Version, drift, judge, shown

FAILED = Verdict(End.FAILED, "exit code 1")
CHANGED = Difference(("command", "env"), True)
TRIAL: dict[str, Any] = {"wanted": True, "proven": False, "good_known": True, "changed": CHANGED}


def test_a_changed_entry_that_fails_is_taken_back_with_what_changed_and_why() -> None:
    found = judge(FAILED, **TRIAL)
    assert (found.back, found.reason) == (True, "command, env changed, and then: exit code 1")
    assert judge(Verdict(End.HUNG, "no beat"), **TRIAL).back


@pytest.mark.parametrize(
    ("verdict", "facts"),
    [
        (FAILED, {"wanted": False}),
        (FAILED, {"proven": True}),
        (FAILED, {"good_known": False}),
        (FAILED, {"changed": Difference()}),
        (Verdict(End.OPERATOR, "stopped"), {}),
        (Verdict(End.RATE_LIMITED, "429"), {}),
        (Verdict(End.QUOTA, "no credit left"), {}),
        (Verdict(End.FINISHED, "done"), {}),
        (Verdict(End.SHUTDOWN, "stopped together"), {}),
    ],
)
def test_what_is_not_the_changes_fault_is_not_taken_back(
    verdict: Verdict, facts: dict[str, Any]
) -> None:
    assert not judge(verdict, **{**TRIAL, **facts}).back


def test_drift_says_what_to_do() -> None:
    old, new = Revision("a" * 40), Revision("b" * 40)
    assert drift(old, old, None) == []
    assert drift(None, new, None) == [], "what was not known at the start has not moved"
    assert drift(old, new, Difference(("env",), True)) == [
        "the fleet file says otherwise: env changed; midwatch reload takes it over",
        "its code moved from aaaaaaaaaaaa to bbbbbbbbbbbb since it was started",
    ]


def test_a_version_travels_and_comes_back_bounded() -> None:
    version = Version("c1", "e1", Revision("a" * 40, "main", True))
    assert shown({**version.to_json(), "command": ["x"]}) == {
        "configuration": "c1",
        "environment": "e1",
        "revision": {"commit": "a" * 40, "branch": "main", "dirty": True},
    }
    assert shown({}) is None
    hostile = {"configuration": 7, "revision": {"commit": "x\n" * 900, "dirty": "yes"}}
    found = shown(hostile)
    assert found is not None
    assert len(found["revision"]["commit"]) <= 64
    assert found["revision"]["dirty"] is None
