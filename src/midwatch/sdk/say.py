"""What an agent says about itself besides beats: steps, progress, outcomes, events."""

from __future__ import annotations

import time

from midwatch.sdk import runtime, span
from midwatch.sdk.cycle import inside, label, span_now
from midwatch.sdk.plain import number, plain, text
from midwatch.sdk.session import session_now
from midwatch.sdk.shield import shielded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROGRESS_GAP_S = 1.0
"""Progress is told at most this often; the last piece is always told."""

MAX_STEP = 500
"""Characters of a step's text."""

_progress_at = float("-inf")


@shielded
def step(description: str, expect_s: float | None = None) -> None:
    """Say what comes now. With `expect_s`, silence of one and a half times that is granted.

    Declare a download or a long computation, so that it is not taken for a hang. The next
    beat ends it.
    """
    now = runtime.current
    if now is None:
        runtime.missing("step")
        return
    said = text(description, MAX_STEP)
    data: dict[str, Any] = {"text": said}
    expected_s = None
    if expect_s is not None:
        expected_s = number(expect_s)
        if expected_s is None:
            now.lose("bad_argument")
        else:
            data["expect_s"] = expected_s
    if now.notifier is not None:
        now.notifier.step(said, expected_s)
    now.event("agent.step", data)


@shielded
def progress(done: float, total: float | None = None) -> None:
    """Say how far the work is, in pieces. Told at most once a second."""
    global _progress_at
    now = runtime.current
    if now is None:
        runtime.missing("progress")
        return
    finished, whole = number(done), number(total)
    if finished is None:
        now.lose("bad_argument")
        return
    moment = time.monotonic()
    last = whole is not None and finished >= whole
    if not last and moment - _progress_at < PROGRESS_GAP_S:
        return
    _progress_at = moment
    data = {"done": finished} if whole is None else {"done": finished, "total": whole}
    now.event("agent.progress", data)


@shielded
def outcome(status: str, goal_met: bool | None = None, *, escalated: bool | None = None) -> None:
    """Say how the work ended: `success`, `failed`, or a word of your own.

    Inside a session it is that session's outcome, inside a cycle that cycle's. Outside of any
    session and cycle it says that the agent's whole work is complete: the exit that follows is
    wanted, not a loss. `goal_met`: the user got what he came for. `escalated`: it was handed to
    a person.
    """
    now = runtime.current
    if now is None:
        runtime.missing("outcome")
        return
    said = label(status)
    data: dict[str, Any] = {"status": said}
    for name, value in (("goal_met", goal_met), ("escalated", escalated)):
        if value is not None:
            data[name] = value is True or (value is not False and bool(value))
    session = session_now()
    told = span_now() if session is None else session._span  # pyright: ignore[reportPrivateUsage]
    if told is None:
        told = span.current.get()
    if told is not None:
        for name in ("goal_met", "escalated"):
            if name in data:
                told.attributes[f"midwatch.{name}"] = data[name]
        told.attributes["midwatch.outcome"] = said
    if session is not None:
        data["session"] = session.id
    elif not inside() and now.notifier is not None:
        now.notifier.done()
    now.event("agent.outcome", data)


@shielded
def event(kind: str, data: object = None) -> None:
    """Record that something happened: `event("decision", {"chosen": "refund"})`.

    `data` may be anything; it is copied as plain JSON, clipped to what the hub accepts.
    """
    now = runtime.current
    if now is None:
        runtime.missing("event")
        return
    copied, clipped = plain({} if data is None else data)
    if clipped:
        now.lose("clipped")
    now.event(label(kind), copied if copied.__class__ is dict else {"value": copied})


@shielded
def draining() -> None:
    """Say that what follows is clean-up: it is not judged as a loop, and the end is wanted."""
    now = runtime.current
    if now is None:
        runtime.missing("draining")
        return
    if now.draining:
        return
    now.draining = True
    if now.notifier is not None:
        now.notifier.draining()
    now.event("agent.draining", {})
