"""`telemetry-flood`: an agent sends a hundred times its telemetry: it is held back, its neighbour is not, and nothing
that was acknowledged is lost."""

from __future__ import annotations

from typing import Any

from midwatch.drills.drill import Drill, Evidence
from midwatch.drills.instance import Instance

SPANS = 2_000
"""Of each of the flood's requests."""

CALM_S = 5.0
"""What a neighbour may wait at the most: exporters give up after ten."""


def _flood(instance: Instance) -> Evidence:
    told = instance.told("flood", 90.0)
    refused = [at for at, status, after in told["refused"] if status in (429, 503) and after]
    return Evidence(told["began"], min(refused, default=None))


def _held_back_and_kept(instance: Instance) -> str | None:
    told, calm = instance.told("flood"), instance.told("calm", 60.0)
    bare = [one for one in told["refused"] if one[1] not in (429, 503) or not one[2]]
    if bare:
        return f"refused without 429 or 503 and Retry-After: {bare[0]}"
    if calm["failed"] or max(calm["took"]) > CALM_S:
        return (
            f"the neighbour waited {max(calm['took'], default=0):.1f} s, refused: {calm['failed']}"
        )
    if not _counted(instance):
        return "what was refused is not counted on /metrics"
    there = _spans(instance)
    for wanted, traces in ((SPANS, told["acknowledged"]), (1, calm["acknowledged"])):
        for trace_id in traces:
            if there.get(trace_id) != wanted:
                return (
                    f"{there.get(trace_id)} of {wanted} acknowledged spans are there of {trace_id}"
                )
    return None if told["acknowledged"] else "nothing of the flood was taken at all"


def _counted(instance: Instance) -> bool:
    lines = str(instance.get("/metrics")).splitlines()
    wanted = [
        one
        for one in lines
        if one.startswith("midwatch_refused_requests") and ("share" in one or "wait" in one)
    ]
    return any(float(line.rpartition(" ")[2]) > 0 for line in wanted)


def _spans(instance: Instance) -> dict[str, int]:
    """Return how many spans there are of each trace."""
    found: dict[str, int] = {}
    after = ""
    while True:
        page: dict[str, Any] = instance.get(f"/api/traces?limit=200{after}")
        found |= {one["trace_id"]: one["spans"] for one in page["items"]}
        if not page["next"]:
            return found
        after = f"&after={page['next']}"


DRILL = Drill(
    name="telemetry-flood",
    about="an agent sends a hundred times its normal telemetry",
    program="telemetry_flood.py",
    limit_s=1.0,
    others={"calm": {}},
    kind="",
    stage=_flood,
    check=_held_back_and_kept,
)
