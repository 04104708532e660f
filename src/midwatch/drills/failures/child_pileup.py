"""`child-pileup`: children accumulate, some of them zombies; told with their number, the old ones killed.

The zombies are the agent's own to wait for; once it does, the incident is over.
"""

from __future__ import annotations

from pathlib import Path

from midwatch.drills.drill import AGENT, Drill
from midwatch.drills.instance import Instance

KIND = "child-pileup"


def _old_ones_are_gone(instance: Instance) -> str | None:
    pids = [int(pid) for pid in (instance.read_note("helpers") or "").split()]
    if not pids:
        return "the program did not start its helpers"
    if not instance.wait(lambda: not any(_works(pid) for pid in pids), 20):
        return f"{sum(map(_works, pids))} children over their time to live still run"
    (instance.work / "reap").touch()
    if not instance.wait(lambda: _state(instance) == "resolved", 30):
        return "the incident stays open although the children are gone"
    lives = len((instance.read_note("lives") or "").split())
    agent = instance.agent(AGENT)
    if lives != 1 or not agent or agent["state"] != "running":
        return "the agent itself was disturbed"
    return None


def _works(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _state(instance: Instance) -> str | None:
    return next((i["state"] for i in instance.incidents() if i["kind"] == KIND), None)


DRILL = Drill(
    name=KIND,
    about="children accumulate, some zombies",
    program="child_pileup.py",
    limit_s=15.0,
    settings={"children": {"max": 10, "ttl": "4s"}},
    says=(r"child", r"\d"),
    actions=("kill",),
    check=_old_ones_are_gone,
)
