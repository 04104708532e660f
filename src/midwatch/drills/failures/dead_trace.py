"""`dead-trace`: an agent is killed in the middle of a turn: what it was doing stays, marked lost, with the time."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from midwatch.drills.drill import AGENT, Drill, Evidence
from midwatch.drills.instance import Instance


def _traces(instance: Instance, **wanted: bool) -> list[dict[str, Any]]:
    query = "&".join(f"{name}={str(value).lower()}" for name, value in wanted.items())
    try:
        return list(instance.get(f"/api/traces?agent={AGENT}&{query}")["items"])
    except OSError:
        return []


def _kill_in_a_turn(instance: Instance) -> Evidence:
    instance.wait(lambda: _working(instance), 40)
    agent = instance.agent(AGENT) or {}
    at = time.time()
    os.kill(agent["pid"], signal.SIGKILL)
    closed = instance.wait(lambda: _traces(instance, lost=True, open=False), 30)
    return Evidence(at, time.time() if closed else None)


def _working(instance: Instance) -> bool:
    """Tell whether the tool call can be seen while it is under way."""
    return any(span["rank"] == "open" for span in _tools(instance))


def _tools(instance: Instance) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for trace in _traces(instance):
        try:
            spans = instance.get(f"/api/traces/{trace['trace_id']}")["spans"]
        except OSError:
            continue
        found += [span for span in spans if span.get("tool") == "search"]
    return found


def _lost_with_the_time(instance: Instance) -> str | None:
    spans = _tools(instance)
    if [span["rank"] for span in spans] != ["lost"]:
        return f"the tool call is not there once, as lost: {spans}"
    if not 0 < (spans[0].get("duration_s") or 0) < 120:
        return f"it does not say when it was lost: {spans[0].get('duration_s')}"
    if spans[0].get("session") != "s-1":
        return f"it has lost its session: {spans[0]}"
    return None


DRILL = Drill(
    name="dead-trace",
    about="an agent is killed in the middle of a turn",
    program="dead_trace.py",
    limit_s=5.0,
    settings={"restart": {"backoff": "200ms..1s"}},
    kind="",
    also=frozenset({"crash", "oom-kill", "silent-exit"}),
    stage=_kill_in_a_turn,
    check=_lost_with_the_time,
)
