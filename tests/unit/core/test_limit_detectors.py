"""How leaks, hogs, piles of children and what a run leaves are worded, and what must not be."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.core.detection import Facts, load
from midwatch.core.fleet import Agent
from midwatch.core.incident import Clear, Finding
from midwatch.core.terms import Limits

NOW = 1_750_000_000.0  # 15:06:40 UTC
GIB = 1024**3
ALL = load()


def judge(kind: str, event: str, open_kinds: tuple[str, ...] = (), **data: Any) -> Any:
    """Return the verdict of `kind` about an event; no other detector may have one."""
    item = {"id": "i", "agent": "inbox", "at": NOW, "kind": event, "data": data}
    config = Agent(command=["run"], limits=Limits(wall=3600.0))
    facts = Facts(
        "inbox", item, NOW, config, managed=True, open_kinds=dict.fromkeys(open_kinds, NOW)
    )
    woken = {k: d.judge(facts) for k, d in ALL.items() if event in d.on}
    others = {k: v for k, v in woken.items() if k != kind and v is not None}
    assert others == {}
    return woken.get(kind)


def leaking(kind: str, resource: str, **data: Any) -> Any:
    return judge(kind, "run.leaking", (), resource=resource, **data)


MEMORY = {
    "used": 0.6 * GIB,
    "limit": GIB,
    "per_hour": 40 * 1024**2,
    "reaches_at": NOW + 8 * 3600,
}


@pytest.mark.parametrize(
    ("stage", "sentence"),
    [
        (
            "forecast",
            "inbox: memory grows by 40 MiB an hour and reaches its limit of 1.0 GiB at about 23:06",
        ),
        (
            "near",
            "inbox: 614 MiB of 1.0 GiB memory in use (60%); memory grows by 40 MiB an hour and reaches its"
            " limit of 1.0 GiB at about 23:06",
        ),
        (
            "restart",
            "inbox: memory grows by 40 MiB an hour and reaches its limit of 1.0 GiB at about 23:06;"
            " restarted as planned before it fails",
        ),
    ],
)
def test_a_memory_leak_says_how_fast_and_when(stage: str, sentence: str) -> None:
    data: dict[str, Any] = {"stage": stage, **MEMORY}
    found = leaking("memory-leak", "memory", **data)
    assert isinstance(found, Finding)
    assert found.sentence == sentence
    assert found.done == (("restart",) if stage == "restart" else ())
    assert found.severity == "warning"


def test_a_level_without_growth_says_the_level() -> None:
    found = leaking("memory-leak", "memory", stage="near", used=0.92 * GIB, limit=GIB)
    assert found.sentence == "inbox: 942 MiB of 1.0 GiB memory in use (92%)"


@pytest.mark.parametrize(
    ("stage", "sentence"),
    [
        (
            "restart",
            "inbox: 942 MiB of 1.0 GiB memory in use (92%), over the soft limit for 10 minutes; restarted as planned"
            " before it fails",
        ),
        (
            "needs",
            "inbox: 942 MiB of 1.0 GiB memory in use (92%), over the soft limit for 10 minutes; 2 planned restarts did"
            " not change that; limits.memory is below what it needs: raise it; it is not restarted for this again",
        ),
    ],
)
def test_a_stay_above_the_soft_limit_is_told_with_what_is_done(stage: str, sentence: str) -> None:
    data = {"stage": stage, "used": 0.92 * GIB, "limit": GIB, "above_s": 605, "tries": 2}
    found = leaking("memory-leak", "memory", **data)
    assert found.sentence == sentence
    assert found.done == (("restart",) if stage == "restart" else ())
    assert found.evidence["above_s"] == 605


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            {"stage": "forecast", "used": 700, "per_hour": 120.4, "reaches_at": NOW + 9000},
            "inbox: open files grow by 120 an hour and reach their limit of 1,024 at about 17:36",
        ),
        (
            {"stage": "full", "used": 1024},
            "inbox: 1,024 of 1,024 open files in use (100%); what needs another one fails",
        ),
    ],
)
def test_an_fd_leak_is_worded_in_files(data: dict[str, Any], sentence: str) -> None:
    assert leaking("fd-leak", "open_files", limit=1024, **data).sentence == sentence


def test_calm_ends_a_leak_that_was_told_and_nothing_else() -> None:
    data: dict[str, Any] = {"resource": "memory", "stage": "calm", "used": 5, "limit": 10}
    assert isinstance(judge("memory-leak", "run.leaking", ("memory-leak",), **data), Clear)
    assert judge("memory-leak", "run.leaking", **data) is None


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"resource": "memory"},
        {"resource": "memory", "stage": "forecast"},
        {"resource": "memory", "stage": "forecast", "used": "much", "limit": 0},
        {"resource": ["memory"], "stage": {}},
        {"resource": "memory", "stage": "what?", "used": 1, "limit": 2},
    ],
)
def test_what_makes_no_sense_is_no_leak(data: dict[str, Any]) -> None:
    assert judge("memory-leak", "run.leaking", **data) is None


def test_a_hog_is_told_with_its_limit() -> None:
    found = judge(
        "resource-hog",
        "run.over_limit",
        limit="processes",
        used=201,
        bound=64,
        held="killed",
        reason="201 processes, limits.processes is 64",
    )
    assert found.sentence == "inbox: 201 processes, limits.processes is 64; its tree is stopped"
    assert found.done == ("kill",)


def test_an_end_at_a_limit_is_a_hog_and_nothing_else() -> None:
    found = judge(
        "resource-hog",
        "run.ended",
        end="limit",
        reason="a file reached limits.disk, 64 MiB",
        next="restart",
        next_in_s=5,
    )
    assert found.sentence == (
        "inbox: was stopped: a file reached limits.disk, 64 MiB; restart after 5 seconds"
    )


def test_time_has_a_kind_of_its_own() -> None:
    found = judge("wall-clock-over", "run.over_limit", limit="wall", used=3600, bound=3600)
    assert found.sentence == (
        "inbox: reached its time limit (1 hour); asked to finish within 20 seconds"
    )


def test_a_pile_of_children_is_told_with_counts() -> None:
    found = judge("child-pileup", "run.children", stage="pileup", children=48, zombies=12, bound=10)
    assert found.sentence == (
        "inbox: 48 children, 10 are expected; 12 of them have ended and wait for the agent to notice"
    )
    over = judge("child-pileup", "run.children", ("child-pileup",), stage="over", children=3)
    assert isinstance(over, Clear)


def test_children_over_their_time_are_told_with_it() -> None:
    found = judge(
        "child-pileup", "run.children", stage="killed", killed=2, ttl_s=3600, oldest_s=7300
    )
    assert found.sentence == (
        "inbox: 2 children over their time to live (1 hour); the oldest 2 hours; killed"
    )
    assert found.done == ("kill",)


def test_what_a_run_left_is_named_up_to_three_and_over_when_told() -> None:
    processes = [
        {"pid": 40 + n, "name": "/usr/lib/chromium/chrome --type=zygote", "age_s": 61, "session": 7}
        for n in range(5)
    ]
    found = judge("orphan-session", "run.leftovers", count=5, asked=False, processes=processes)
    one = "chrome --type=zygote (pid {}, 1 minute old)"
    assert found.sentence == (
        f"inbox: left 5 processes behind: {one.format(40)}, {one.format(41)}, {one.format(42)}"
        " and 2 more; stopped with all that they had started"
    )
    assert found.transient
    assert found.severity == "warning"
    asked = judge("orphan-session", "run.leftovers", count=1, asked=True, processes=processes[:1])
    assert asked.severity == "info"


def test_hostile_names_of_processes_stay_one_bounded_line() -> None:
    evil = {"pid": "no", "name": "\x1b[2J\n\u202e" + "x" * 9000, "age_s": float("nan")}
    found = judge("orphan-session", "run.leftovers", count=10**9, processes=[evil, 7, None])
    assert found.sentence.isprintable()
    assert len(found.sentence) <= 400


def test_who_ignored_sigterm_is_told_with_the_grace() -> None:
    found = judge(
        "ignores-sigterm", "run.ignored_sigterm", grace_s=20, killed=4, asked="stopped by a person"
    )
    assert found.sentence == (
        "inbox: did not stop within 20 seconds of SIGTERM (stopped by a person); killed, with 3"
        " processes below it"
    )
    alone = judge("ignores-sigterm", "run.ignored_sigterm", grace_s=20, killed=1)
    assert alone.sentence == "inbox: did not stop within 20 seconds of SIGTERM; killed"
