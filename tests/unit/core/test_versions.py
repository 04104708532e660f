"""Drift in sentences, and when a changed entry is taken back."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.core.change import Difference
from midwatch.core.exits import End, Verdict
from midwatch.core.versions import (
    Revision,
    Takeback,
    Version,
    code_change,
    drift,
    judge,
    shown,
    since_changed,
    stays,
)

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


def test_code_alone_is_reason_enough() -> None:
    found = judge(FAILED, **{**TRIAL, "changed": Difference(), "code": "its code moved"})
    assert (found.back, found.reason) == (True, "its code moved, and then: exit code 1")
    both = judge(FAILED, **{**TRIAL, "code": "its code moved"})
    assert both.reason == "command, env changed, its code moved, and then: exit code 1"


@pytest.mark.parametrize(
    ("good", "ran", "said"),
    [
        (None, Revision("a" * 40), ""),
        (Revision("a" * 40), None, ""),
        (Revision("a" * 40, "main", False), Revision("a" * 40, "other", False), ""),
        (
            Revision("a" * 40),
            Revision("b" * 40),
            "its code moved from aaaaaaaaaaaa to bbbbbbbbbbbb",
        ),
        (
            Revision("a" * 40, dirty=False),
            Revision("a" * 40, dirty=True),
            "its code was edited without a commit",
        ),
        (Revision("a" * 40, dirty=False), Revision("a" * 40), ""),
        (Revision("a" * 40, dirty=True), Revision("a" * 40, dirty=True), ""),
    ],
)
def test_what_has_changed_in_code_is_said_only_where_it_is_known(
    good: Revision | None, ran: Revision | None, said: str
) -> None:
    assert code_change(good, ran) == said


def test_only_code_that_git_has_can_be_had_again() -> None:
    assert stays(Revision("a" * 40, dirty=False)) == ""
    assert all(stays(r) for r in (None, Revision("a" * 40), Revision("a" * 40, dirty=True)))


def test_what_is_taken_back_travels_and_reads_well() -> None:
    taken = Takeback(("command",), True, ("b" * 40, "a" * 40), (("a part", "a reason"),))
    assert Takeback.of(taken.to_json()) == taken
    assert since_changed(taken, "failed") == (
        "the changed entry (command), its env file's content and its code (from bbbbbbbbbbbb back to aaaaaaaaaaaa) were"
        " taken back after it had failed (failed); a part stays as it is: a reason; change the fleet file, the env file"
        " or the code again to try anew"
    )
    edited = Takeback(code=("a" * 40, "a" * 40))
    assert edited.said == "its code (back to aaaaaaaaaaaa as committed)"
    assert not Takeback(left=(("a", "b"),))
