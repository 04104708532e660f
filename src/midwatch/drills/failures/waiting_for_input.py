"""`waiting-for-input`: a trust dialog on the agent's terminal, and nobody there.

The agent beats before it asks, so that silence alone would count as a hang: it must not be restarted for
it. When the incident is there the answer is sent through the API, and the agent must go on.
"""

from __future__ import annotations

import time
from typing import Any

from midwatch.drills.drill import AGENT, Drill
from midwatch.drills.instance import Instance

ANSWER = "y"

SILENCE_S = 8.0
"""So long a silence of this agent counts as a hang."""

PAST_ITS_HANG_S = SILENCE_S * 1.5

GOES_ON_S = 10.0
"""How long an answered agent may take to be seen at work."""


def check(instance: Instance) -> str | None:
    """Look at the screen, answer, and see that it goes on; return what does not hold."""
    screen = instance.get(f"/api/agents/{AGENT}/screen")
    if not any("Do you trust the files" in line for line in screen["lines"]):
        return f"its screen does not show the question: {screen['lines']!r}"
    if not (screen["tty"] and screen["waiting"]):
        return f"its screen is not shown as one that waits: {screen!r}"
    asked_at = float(instance.read_note("evidence") or 0.0)
    instance.wait(lambda: time.time() - asked_at > PAST_ITS_HANG_S, PAST_ITS_HANG_S + 5)
    if (state := _agent(instance)["state"]) != "waiting":
        return f"unanswered it should go on waiting; it is {state}"
    instance.post(f"/api/agents/{AGENT}/input", {"text": ANSWER, "enter": True})
    answer = instance.wait(lambda: instance.read_note("answer"), GOES_ON_S)
    if answer != ANSWER:
        return f"the answer {ANSWER!r} arrived as {answer!r}"
    if not instance.wait(lambda: _is_over(instance), GOES_ON_S):
        return "the incident is still open, though the agent goes on"
    agent = _agent(instance)
    if agent["state"] != "running" or agent["today"]["restarts"]:
        return f"it should have gone on without a restart; it is {agent['state']}"
    return None


def _agent(instance: Instance) -> dict[str, Any]:
    return instance.agent(AGENT) or {"state": "unknown", "today": {"restarts": None}}


def _is_over(instance: Instance) -> bool:
    found = [i for i in instance.incidents() if i["kind"] == "waiting-for-input"]
    return bool(found) and all(i["state"] == "resolved" for i in found)


DRILL = Drill(
    name="waiting-for-input",
    about="a trust dialog on its terminal, and nobody there to answer",
    program="waiting_for_input.py",
    limit_s=30.0,
    settings={
        "tty": True,
        "heartbeat": {"every": f"{SILENCE_S / 2:g}s", "missed": 2},
    },
    says=(r"waits for input.*Do you trust the files in this folder\?",),
    check=check,
)
