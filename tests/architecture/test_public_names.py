"""The public names of `import midwatch` are a promise: a change here needs a line under Breaking."""

from __future__ import annotations

import inspect
import types

import midwatch

CONTRACT = {
    "beat": "(*, tokens, cost_usd, …)",
    "cycle": "context manager",
    "draining": "",
    "event": "(kind, data)",
    "feedback": "(name, score, *, label, comment, session, by)",
    "flush": "",
    "init": "(*, track)",
    "outcome": "(status, *, goal_met, escalated)",
    "progress": "(*, done, total)",
    "session": "(id, *, user, tags)",
    "spawn": "(command, *, name, ttl_s, memory_bytes, outlive)",
    "state": "(parts)",
    "step": "(text, *, expect_s)",
    "tool": "(*, timeout_s, retries, side_effect)",
    "turn": "",
}
"""Name -> how it is called, as agents out there call it."""

ALSO = {"Cycle", "ToolTimeout", "statistics"}
"""What `cycle` gives, what a tool that takes too long raises, and what the SDK has counted."""


def test_the_public_names_are_these_and_no_others() -> None:
    assert set(midwatch.__all__) == set(CONTRACT) | ALSO


def test_nothing_else_can_be_mistaken_for_a_public_name() -> None:
    loose = {
        name
        for name, value in vars(midwatch).items()
        if not name.startswith("_")
        and name not in midwatch.__all__
        and not isinstance(value, types.ModuleType)
    }
    assert loose <= {"annotations"}


def test_parameters_that_agents_use_by_name_keep_their_names() -> None:
    expected = {
        midwatch.init: {"track"},
        midwatch.beat: {"tokens", "cost_usd"},
        midwatch.step: {"expect_s"},
        midwatch.progress: {"done", "total"},
        midwatch.outcome: {"goal_met"},
        midwatch.tool: {"timeout_s", "retries", "side_effect"},
        midwatch.spawn: {"name", "ttl_s", "memory_bytes", "outlive", "env"},
        midwatch.Cycle.usage: {"tokens", "cost_usd"},
        midwatch.Cycle.done: {"items"},
    }
    missing = {
        f"{function.__qualname__}({name}=)"
        for function, names in expected.items()
        for name in names
        if name not in (found := inspect.signature(function).parameters)
        and not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in found.values())
    }
    assert missing == set()
