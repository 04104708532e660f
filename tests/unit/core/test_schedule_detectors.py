"""missed-schedule and overlapping-run: what they say, how loud, and when they are over."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from midwatch.core.detection import Facts, Verdict, load
from midwatch.core.fleet import Agent
from midwatch.core.incident import Clear, Finding
from midwatch.core.terms import Schedule

NOW = datetime(2026, 6, 11, 7, 32, 5, tzinfo=UTC).timestamp()
NIGHTLY = Agent(command=["run"], schedule=Schedule(cron="0 6 * * *"))
ALL = load()


def at(clock: str, day: int = 11) -> float:
    return datetime.fromisoformat(f"2026-06-{day:02} {clock}+00:00").timestamp()


def judge(
    kind: str, event: str, open_since: float | None = None, when: float = NOW, **data: Any
) -> Verdict:
    config = data.pop("config", NIGHTLY)
    item = {"id": "i", "agent": "nightly-report", "at": when, "kind": event, "data": data}
    kinds = {} if open_since is None else {kind: open_since}
    return ALL[kind].judge(
        Facts(
            agent="nightly-report",
            item=item,
            now=NOW,
            config=config,
            managed=True,
            open_kinds=kinds,
        )
    )


def missed(**data: Any) -> Finding:
    usual: dict[str, Any] = {
        "due_at": at("06:00"),
        "last_due_at": at("06:00"),
        "count": 1,
        "more": False,
        "reason": "the machine was asleep",
        "from": at("05:10"),
        "to": at("07:32"),
        "expected": False,
        "parked": False,
        "policy": "once",
        "made_up": 1,
        "dropped": 0,
        "starts_at": at("07:32"),
        "timezone": "UTC",
    }
    found = judge("missed-schedule", "schedule.missed", **usual | data)
    assert isinstance(found, Finding)
    return found


@pytest.mark.parametrize(
    ("data", "severity", "sentence"),
    [
        (
            {},
            "warning",
            "the run of 06:00 did not happen (the machine was asleep from 05:10 to 07:32); made up for at 07:32",
        ),
        (
            {"timezone": "Europe/Paris"},
            "warning",
            "the run of 08:00 did not happen (the machine was asleep from 07:10 to 09:32); made up for at 09:32",
        ),
        (
            {"policy": "skip", "made_up": 0, "starts_at": None},
            "warning",
            "the run of 06:00 did not happen (the machine was asleep from 05:10 to 07:32); left out",
        ),
        (
            {
                "policy": "all",
                "made_up": 100,
                "dropped": 50,
                "count": 150,
                "due_at": at("03:00", 9),
            },
            "warning",
            "150 runs from 03:00 on 9 Jun to 06:00 did not happen (the machine was asleep from 05:10 to 07:32); "
            "made up for from 07:32, one by one; 50 older ones are left out",
        ),
        (
            {"count": 1000, "more": True, "due_at": at("03:00", 9), "starts_at": None},
            "warning",
            "more than 1,000 runs from 03:00 on 9 Jun to 06:00 did not happen (the machine was asleep from 05:10 "
            "to 07:32); made up for when the last run ends",
        ),
        (
            {
                "reason": "it is stopped: stopped by a person",
                "from": None,
                "to": None,
                "expected": True,
                "made_up": 0,
            },
            "info",
            "the run of 06:00 did not happen (it is stopped: stopped by a person); left out",
        ),
        (
            {
                "reason": "it is parked: its credential was refused",
                "from": None,
                "parked": True,
                "made_up": 0,
            },
            "critical",
            "the run of 06:00 did not happen (it is parked: its credential was refused); "
            "none will before a person starts it",
        ),
        (
            {"reason": "it could not be started: no program 'x'", "from": None, "made_up": 0},
            "warning",
            "the run of 06:00 did not happen (it could not be started: no program 'x'); not made up for",
        ),
    ],
    ids=["once", "in its own zone", "skip", "all", "a great many", "stopped", "parked", "no start"],
)
def test_a_missed_run_is_told_with_its_reason_and_what_follows(
    data: dict[str, Any], severity: str, sentence: str
) -> None:
    found = missed(**data)
    assert (found.severity, found.sentence) == (severity, f"nightly-report: {sentence}")


def test_short_times_are_told_with_their_seconds() -> None:
    assert "from 07:31:00 to 07:32:00" in missed(**{"from": at("07:31")}).sentence


@pytest.mark.parametrize(
    "data", [{"due_at": "x"}, {"due_at": 1e14}, {"count": None}, {"timezone": "Nowhere/x"}]
)
def test_a_strange_report_is_told_all_the_same(data: dict[str, Any]) -> None:
    assert "did not happen" in missed(**data).sentence


def test_a_run_on_time_ends_the_incident_and_one_that_makes_up_does_when_it_has_finished() -> None:
    kind, since = "missed-schedule", NOW - 100
    made_up = judge(kind, "run.started", since, due_at=at("06:00"), made_up=True)
    assert made_up is None
    finished = judge(kind, "run.ended", since, end="finished", duration_s=95.0)
    assert isinstance(finished, Clear)
    on_time = judge(kind, "run.started", since, due_at=at("06:00"), made_up=False)
    assert isinstance(on_time, Clear)
    assert on_time.reason == "a run began on time again"


@pytest.mark.parametrize(
    "data",
    [
        {"end": "failed", "duration_s": 95.0},
        {"end": "finished", "duration_s": 5000.0},
        {"end": "finished"},
    ],
    ids=["failed", "began long before", "unknown length"],
)
def test_a_run_that_failed_or_was_in_the_way_does_not_end_it(data: dict[str, Any]) -> None:
    assert judge("missed-schedule", "run.ended", NOW - 100, **data) is None


def test_without_an_incident_nothing_is_cleared() -> None:
    assert judge("missed-schedule", "run.started", due_at=1.0, made_up=False) is None
    assert judge("overlapping-run", "run.ended", end="finished", duration_s=1.0) is None


@pytest.mark.parametrize("kind", ["missed-schedule", "overlapping-run"])
def test_an_agent_without_a_schedule_has_neither(kind: str) -> None:
    verdict = judge(kind, "sample", NOW - 10, config=Agent(command=["run"]))
    assert isinstance(verdict, Clear)


@pytest.mark.parametrize(
    ("then", "severity", "words"),
    [
        ("skip", "warning", "left out"),
        ("queue", "info", "put off until it ends"),
        ("full", "warning", "left out, one waits already"),
        ("replace", "warning", "it is stopped, and a new run takes its place"),
    ],
)
def test_an_overlap_is_told_with_what_the_policy_did(then: str, severity: str, words: str) -> None:
    found = judge(
        "overlapping-run",
        "schedule.overlap",
        due_at=at("06:00"),
        last_due_at=at("06:00"),
        count=1,
        policy=then,
        then=then,
        ran_s=4200.0,
        timezone="UTC",
    )
    assert isinstance(found, Finding)
    assert found.severity == severity
    assert found.sentence == (
        f"nightly-report: the run of 06:00 was due while the last one still works, since 1 hour; {words}"
    )


def test_an_overlap_is_over_when_a_later_run_fits() -> None:
    since = NOW - 3600
    in_the_way = judge("overlapping-run", "run.ended", since, end="finished", duration_s=4000.0)
    assert in_the_way is None
    fits = judge("overlapping-run", "run.ended", since, end="finished", duration_s=100.0)
    assert isinstance(fits, Clear)
