"""The ends that have a class of their own, told: settings, dependencies, refusals, quotas."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.core.causes import cause_of
from midwatch.core.detection import Facts, load
from midwatch.core.exits import End
from midwatch.core.fleet import Agent
from midwatch.core.incident import Clear, Finding

NOW = 1_750_000_000.0
ALL = load()
KINDS = ("config-error", "missing-dependency", "rate-limited-exit", "quota-exit")


def _facts(end: str, kind: str = "run.ended", **more: Any) -> Facts:
    open_kinds = more.pop("open_kinds", {})
    data = {"run_id": "r1", "end": end, **more}
    item = {"id": "i", "agent": "inbox", "at": NOW, "kind": kind, "data": data}
    return Facts("inbox", item, NOW, Agent(command=["x"]), managed=True, open_kinds=open_kinds)


@pytest.mark.parametrize(
    ("kind", "facts", "severity", "sentence"),
    [
        (
            "config-error",
            _facts(
                "configuration", said="KeyError: 'QUEUE'", identical=1, next="restart", next_in_s=5
            ),
            "warning",
            "inbox: stopped because its configuration is wrong (KeyError: 'QUEUE'); restart after 5 seconds",
        ),
        (
            "config-error",
            _facts("configuration", said="KeyError: 'QUEUE'", identical=2, next="park"),
            "critical",
            "inbox: stopped because its configuration is wrong (KeyError: 'QUEUE');"
            " the same failure twice; parked until a person starts it",
        ),
        (
            "missing-dependency",
            _facts("missing-dependency", said="No module named 'x'", identical=2, next="park"),
            "critical",
            "inbox: stopped because something that it needs is missing (No module named 'x');"
            " the same failure twice; parked until a person starts it",
        ),
        (
            "rate-limited-exit",
            _facts(
                "rate-limited",
                said="RateLimitError: slow down",
                retry_after_s=20,
                next="restart",
                next_in_s=21.2,
            ),
            "warning",
            "inbox: stopped because its provider refused it for a while (RateLimitError: slow down),"
            " which asked for 20 seconds; restart after 21 seconds",
        ),
        (
            "quota-exit",
            _facts(
                "quota",
                credential="OPENAI_API_KEY",
                said="You exceeded your current quota",
                next="restart",
                next_in_s=3600,
            ),
            "critical",
            "inbox: stopped because the quota of OPENAI_API_KEY is used up (You exceeded your current quota);"
            " restart after 1 hour",
        ),
    ],
)
def test_an_end_of_a_class_is_told_in_one_sentence(
    kind: str, facts: Facts, severity: str, sentence: str
) -> None:
    found = ALL[kind].judge(facts)
    assert isinstance(found, Finding)
    assert (found.severity, found.sentence) == (severity, sentence)
    assert found.evidence["end"] == facts.data["end"]
    assert found.evidence["said"] == facts.data["said"]


@pytest.mark.parametrize("kind", KINDS)
def test_only_its_own_end_is_a_finding(kind: str) -> None:
    judge = ALL[kind].judge
    found = [end for end in End if isinstance(judge(_facts(end)), Finding)]
    assert len(found) == 1
    assert judge(_facts(found[0], expected=True)) is None


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_over_when_the_agent_is_stable(kind: str) -> None:
    facts = _facts("", kind="agent.recovered", stable_s=600.0, open_kinds={kind: NOW - 700})
    clear = ALL[kind].judge(facts)
    assert isinstance(clear, Clear)
    assert clear.reason == "stable for 10 minutes"


@pytest.mark.parametrize(
    ("credential", "did"),
    [
        ("OPENAI_API_KEY", "stopped because its credential OPENAI_API_KEY was refused"),
        (
            "API key for api.example.com",
            "stopped because its API key for api.example.com was refused",
        ),
        ("API key", "stopped because its API key was refused"),
        (None, "stopped because its API key was refused"),
    ],
)
def test_a_credential_is_called_what_is_known_of_it(credential: str | None, did: str) -> None:
    assert cause_of({"end": "credentials", "credential": credential}).did == did


def test_the_line_that_explains_a_crash_is_told_not_the_last_one() -> None:
    data = {
        "end": "failed",
        "exit_code": 1,
        "said": "Error: planner gave up",
        "tail": ["Error: planner gave up", "", "Node.js v20.20.2"],
    }
    assert cause_of(data).did == "exited with code 1 (Error: planner gave up)"


@pytest.mark.parametrize("end", list(End))
def test_every_class_has_words(end: End) -> None:
    cause = cause_of({"end": end.value})
    assert cause.did
    assert cause.after
    assert "ended (" not in cause.did
