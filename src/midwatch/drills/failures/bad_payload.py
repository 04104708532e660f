"""`bad-payload`: random bytes, wrong types, a time in 2200, ten megabytes: each is refused or clipped in words, and its
neighbours are kept."""

from __future__ import annotations

from typing import Any

from midwatch.drills.drill import AGENT, Drill, Evidence
from midwatch.drills.instance import Instance

REFUSED = {"year 2200", "a bad id", "ten megabytes"}
"""Which of them are left out of a request whose rest is taken."""


def _send(instance: Instance) -> Evidence:
    said = instance.told("said", 60.0)
    at = min(one["at"] for one in said)
    return Evidence(at, at if all(_clear(one) for one in said) else None)


def _clear(one: dict[str, Any]) -> bool:
    """Tell whether an answer says what is wrong, or takes what is not."""
    if not one["good"]:
        refused = 400 <= one["status"] < 500 and len(one["said"]) > 10
        return refused or (one["status"] == 200 and "partialSuccess" in one["said"])
    if one["status"] != 200:
        return False
    return ("partialSuccess" in one["said"]) == (one["what"] in REFUSED)


def _nothing_else_is_disturbed(instance: Instance) -> str | None:
    for one in instance.told("said"):
        if not _clear(one):
            return f"{one['what']}: {one['status']} {one['said'][:200]!r}"
        if one["good"] and (wrong := _neighbours(instance, one)):
            return wrong
    if not _counted(instance):
        return "what was refused is not counted on /metrics"
    agent = instance.agent(AGENT)
    return None if agent and not agent["today"]["restarts"] else "the agent was disturbed"


def _neighbours(instance: Instance, one: dict[str, Any]) -> str | None:
    try:
        spans = instance.get(f"/api/traces/{one['good']}")["spans"]
    except OSError:
        return f"{one['what']}: its neighbours are not there"
    names = {span["name"] for span in spans}
    expected = {"good"} if one["what"] == "good" else {"before", "after"}
    if one["what"] not in REFUSED:
        expected |= {one["what"]}
    return None if names == expected else f"{one['what']}: there are {sorted(names)}"


def _counted(instance: Instance) -> bool:
    lines = str(instance.get("/metrics")).splitlines()
    wanted = [one for one in lines if one.startswith("midwatch_rejected")]
    return sum(float(line.rpartition(" ")[2]) for line in wanted) >= len(REFUSED)


DRILL = Drill(
    name="bad-payload",
    about="random bytes, wrong types, future times, attributes of 10 MB",
    program="bad_payload.py",
    limit_s=1.0,
    kind="",
    stage=_send,
    check=_nothing_else_is_disturbed,
)
