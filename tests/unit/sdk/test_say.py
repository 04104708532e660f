"""Steps, progress, outcomes and events."""

from __future__ import annotations

import pytest

import midwatch as mw
from midwatch.sdk import say
from midwatch.sdk.testing import Recording, recording


def test_a_step_tells_the_supervisor_how_long_it_takes(seen: Recording) -> None:
    mw.step("downloading 3 GB", expect_s=2400)
    mw.step("thinking")
    assert seen.notifier.steps == [("downloading 3 GB", 2400.0), ("thinking", None)]
    assert [event["data"] for event in seen.events] == [
        {"text": "downloading 3 GB", "expect_s": 2400.0},
        {"text": "thinking"},
    ]


def test_progress_is_told_once_a_second_and_at_the_end(
    seen: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    for done in range(1, 90):
        mw.progress(done=done, total=89)
    assert [event["data"]["done"] for event in seen.events] == [1, 89]
    monkeypatch.setattr(say, "PROGRESS_GAP_S", 0.0)
    mw.progress(done=90)
    assert seen.events[-1]["data"] == {"done": 90}


def test_the_outcome_of_the_whole_work_makes_the_exit_wanted(seen: Recording) -> None:
    mw.outcome("success", goal_met=True)
    assert seen.told == ["done"]
    assert seen.events[0]["kind"] == "agent.outcome"
    assert seen.events[0]["data"] == {"status": "success", "goal_met": True}


def test_the_outcome_of_a_session_or_in_a_cycle_is_not_the_end(seen: Recording) -> None:
    with mw.session("s"):
        mw.outcome("failed", goal_met=False)
    with mw.cycle():
        mw.outcome("success")
    assert "done" not in seen.told
    assert seen.events[0]["data"] == {"status": "failed", "goal_met": False, "session": "s"}


def test_an_event_takes_anything(seen: Recording) -> None:
    mw.event("decision", {"chosen": "refund"})
    mw.event("note", "text")
    mw.event("bare")
    assert [(event["kind"], event["data"]) for event in seen.events] == [
        ("decision", {"chosen": "refund"}),
        ("note", {"value": "text"}),
        ("bare", {}),
    ]
    assert all(event["agent"] == "inbox" and event["run_id"] == "run-1" for event in seen.events)


def test_data_that_is_too_large_is_clipped_and_counted(seen: Recording) -> None:
    mw.event("dump", {"text": "x" * 1_000_000})
    assert len(seen.events[0]["data"]["text"]) < 65_536
    assert seen.lost == {"clipped": 1}


def test_a_recording_puts_back_what_was_there() -> None:
    with recording("outer") as outer:
        with recording("inner") as inner:
            mw.event("in")
        mw.event("out")
    mw.event("nowhere")
    assert [inner.event_kinds(), outer.event_kinds()] == [["in"], ["out"]]
