"""`leaked-key`: an operator revokes a key that somebody found: calls are refused, a stream under way is cut, and no
provider's key was where it could be found."""

from __future__ import annotations

import time
from pathlib import Path

from midwatch.drills.drill import AGENT, Drill, Evidence
from midwatch.drills.instance import Instance
from midwatch.drills.provided import KEYS


def _revoke(instance: Instance) -> Evidence:
    made = instance.gateway("keys", {"name": "ci", "agent": AGENT, "by": "drill"})
    (instance.work / "key.new").write_text(made["key"])
    (instance.work / "key.new").rename(instance.work / "key")
    instance.wait(lambda: instance.read_note("streams"), 20)
    at = time.time()
    instance.gateway("keys/ci/revoke", {})
    denied, stream = instance.told("denied"), instance.told("stream")
    return Evidence(at, max(denied["at"], stream["at"]))


def _denied_everywhere(instance: Instance) -> str | None:
    denied, stream = instance.told("denied"), instance.told("stream")
    if (denied["status"], denied["error"].get("type")) != (401, "midwatch_key"):
        return f"the call was answered with {denied}"
    if stream["ended"] or stream["error"].get("type") != "midwatch_key":
        return f"the stream under way was not cut with a word: {stream['error']}"
    agent, children = instance.agent(AGENT), instance.children()
    pids = {"agent": agent["pid"] if agent else None, "hub": children["hub"]}
    for who, pid in pids.items():
        environment = Path(f"/proc/{pid}/environ").read_text()
        if found := [name for name, key in KEYS.items() if key in environment]:
            return f"the {who} has {found} in its environment"
    kept = [p for p in instance.data.rglob("*") if p.is_file() and p.suffix in (".json", ".log")]
    leaky = [p.name for p in kept if any(k in p.read_text(errors="replace") for k in KEYS.values())]
    return f"providers' keys stand in {leaky}" if leaky else None


DRILL = Drill(
    name="leaked-key",
    about="an agent's key is found by somebody, and revoked",
    program="leaked_key.py",
    limit_s=1.0,
    provided=True,
    orders=({"mode": "slow", "stream": True, "first_token": 0, "between": "50ms", "words": 1000},),
    says=(r"revoked key ci was used, and refused",),
    stage=_revoke,
    check=_denied_everywhere,
)
