"""`long-trace` (control): a trace of 100,000 spans opens in under a second, and the hub's memory hardly grows."""

from __future__ import annotations

import time
from pathlib import Path

from midwatch.drills.drill import Drill
from midwatch.drills.instance import Instance

WHOLE = 100_000
OPENS_S = 1.0
GROWS_BYTES = 50 * 1024 * 1024
TRIES = 5
"""The best of so many counts: on a busy machine others take their turn, too."""


def _opens_soon(instance: Instance) -> str | None:
    told = instance.told("trace")
    if set(told["statuses"]) != {200}:
        return f"it was not taken: {told['statuses']}"
    before = _resident(instance)
    first_page = f"/api/traces/{told['trace']}?limit=500"
    took = min(_time(instance, first_page) for _ in range(TRIES))
    if took > OPENS_S:
        return f"its first page took {took:.2f} s, {OPENS_S:.0f} s are allowed"
    grown = _resident(instance) - before
    if grown > GROWS_BYTES:
        return f"the hub grew by {grown:,} bytes, {GROWS_BYTES:,} are allowed"
    listed = instance.get("/api/traces?limit=10")["items"]
    spans = next((one["spans"] for one in listed if one["trace_id"] == told["trace"]), 0)
    return None if spans == WHOLE else f"{spans} of {WHOLE} spans are there"


def _time(instance: Instance, path: str) -> float:
    began = time.monotonic()
    instance.get(path)
    return time.monotonic() - began


def _resident(instance: Instance) -> int:
    status = Path(f"/proc/{instance.children()['hub']}/status").read_text()
    line = next(one for one in status.splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


DRILL = Drill(
    name="long-trace",
    about="one trace with 100,000 spans",
    program="long_trace.py",
    limit_s=0.0,
    control=True,
    watch_s=120.0,
    check=_opens_soon,
)
