"""Pings for shells and cron, with the meaning that healthchecks.io gave them.

`/ping/AGENT` success (a beat) · `/start` starts the clock of a cycle (`?rid=` tells cycles apart) ·
`/fail` the cycle failed · `/log` keeps the body and changes nothing · `/N` the exit status of a
program: 0 is success. The answer is `OK`.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final, Literal

from midwatch.wire.items import Item, Kind

BODY_LIMIT: Final = 10_000
"""Bytes of a ping's body that are kept; the rest is dropped and the answer's header says so."""

MAX_TIMERS: Final = 10_000
"""Cycles that may be under way; the oldest is forgotten, and its duration is then unknown."""

What = Literal["success", "start", "fail", "log"]

_PATH: Final = re.compile(
    r"/ping/(?P<agent>[^/]{1,128})(?:/(?P<what>start|fail|log|[0-9]{1,3}))?/?"
)


@dataclass(frozen=True, slots=True)
class Ping:
    """What a ping says."""

    agent: str
    what: What
    exit_code: int | None = None


def read(path: str) -> Ping | None:
    """Return the ping that a path means, or None when it means none."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    agent, word = match["agent"], match["what"]
    if word is None:
        return Ping(agent, "success")
    if word.isdigit():
        code = int(word)
        if code > 255:
            return None
        return Ping(agent, "success" if code == 0 else "fail", code)
    return Ping(agent, word)  # type: ignore[arg-type]


class Timers:
    """When cycles began, by agent and the sender's id of the cycle."""

    def __init__(self) -> None:
        self._began: OrderedDict[tuple[str, str], float] = OrderedDict()

    def start(self, agent: str, rid: str, now: float) -> None:
        """Start the clock of a cycle; starting it again starts it over."""
        self._began.pop((agent, rid), None)
        self._began[agent, rid] = now
        if len(self._began) > MAX_TIMERS:
            self._began.popitem(last=False)

    def stop(self, agent: str, rid: str, now: float) -> float | None:
        """Return how long the cycle took, seconds, or None when it never started."""
        began = self._began.pop((agent, rid), None)
        return None if began is None else max(0.0, now - began)


def to_raw(ping: Ping, body: str, rid: str, now: float, timers: Timers) -> list[tuple[Kind, Item]]:
    """Return the items that a ping stands for, before they are read."""
    base: dict[str, Any] = {"agent": ping.agent, "at": now}
    detail: dict[str, Any] = {"body": body} if body else {}
    if rid:
        detail["rid"] = rid
    if ping.exit_code is not None:
        detail["exit_code"] = ping.exit_code
    if ping.what == "log":
        return [(Kind.EVENT, {**base, "kind": "ping.log", "data": detail})]
    if ping.what == "start":
        timers.start(ping.agent, rid, now)
        return [(Kind.EVENT, {**base, "kind": "ping.start", "data": detail})]
    beat: dict[str, Any] = {**base, "result": "ok" if ping.what == "success" else "failed"}
    duration = timers.stop(ping.agent, rid, now)
    if duration is not None:
        beat["duration_s"] = duration
    if ping.what == "fail":
        if body:
            beat["error"] = body[-2000:]
        return [(Kind.BEAT, beat), (Kind.EVENT, {**base, "kind": "ping.fail", "data": detail})]
    if detail:
        return [(Kind.BEAT, beat), (Kind.EVENT, {**base, "kind": "ping.success", "data": detail})]
    return [(Kind.BEAT, beat)]
