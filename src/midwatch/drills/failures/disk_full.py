"""`disk-full`: the room on the hub's disk goes below `hub.keep.free`: a warning first, then telemetry alone is refused.

The disk is this machine's own and is not filled: the limit is set close below what is free, and a file takes that
much.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import yaml

from midwatch.drills.drill import Drill, Evidence
from midwatch.drills.instance import Instance

ROOM = 256 * 1024 * 1024
"""How far below what is free the limit is set: others use the same disk."""

FILE = "filler"


def _fill(instance: Instance) -> Evidence:
    instance.wait(lambda: any(one["spans"] == 200 for one in _said(instance)), 40)
    _limit(instance, _free(instance) - ROOM)
    instance.wait(lambda: _severity(instance) == "warning", 30)
    warned = _said(instance)
    at = time.time()
    with (instance.work / FILE).open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 2 * ROOM)
    refused = instance.wait(lambda: _refusals(instance, at), 30)
    if not warned or warned[-1]["spans"] != 200:
        return Evidence(at, None)
    return Evidence(at, refused[0]["at"] if isinstance(refused, list) else None)


def _free(instance: Instance) -> int:
    found = os.statvfs(instance.data)
    return found.f_bavail * found.f_frsize


def _limit(instance: Instance, size: int) -> None:
    document = yaml.safe_load(instance.file.read_text())
    document["hub"]["keep"] = {"free": f"{size // 1024}KiB"}
    part = Path(f"{instance.file}.part")
    part.write_text(yaml.safe_dump(document, sort_keys=False))
    part.replace(instance.file)
    instance.post("/api/reload")


def _said(instance: Instance) -> list[dict[str, Any]]:
    return instance.told("said")


def _refusals(instance: Instance, since: float) -> list[dict[str, Any]]:
    return [one for one in _said(instance) if one["at"] >= since and one["spans"] != 200]


def _severity(instance: Instance) -> str | None:
    return next((i["severity"] for i in instance.incidents() if i["kind"] == "disk-full"), None)


def _the_rest_goes_on(instance: Instance) -> str | None:
    full = _refusals(instance, 0.0)
    for one in full:
        if one["spans"] != 503 or not one["retry_after"] or "hub.keep.free" not in one["said"]:
            return f"telemetry was not refused clearly: {one}"
        if one["beat"] != 200 or one["call"] != 200:
            return f"not telemetry alone was refused: {one}"
    (instance.work / FILE).unlink()
    _limit(instance, 1024 * 1024)
    at = time.time()
    again = instance.wait(
        lambda: any(o["at"] > at and o["spans"] == 200 for o in _said(instance)), 30
    )
    if not again:
        return "with room again, telemetry is still refused"
    over = instance.wait(lambda: _state(instance) == "resolved", 30)
    (instance.work / "enough").touch()
    return None if over else f"with room again, the incident is {_state(instance)}"


def _state(instance: Instance) -> str | None:
    return next((i["state"] for i in instance.incidents() if i["kind"] == "disk-full"), None)


DRILL = Drill(
    name="disk-full",
    about="the data disk fills up",
    program="disk_full.py",
    limit_s=10.0,
    fleet={"hub": {"keep": {"free": "1MiB"}}},
    provided=True,
    says=(r"telemetry is refused", r"hub\.keep\.free"),
    stage=_fill,
    check=_the_rest_goes_on,
)
