"""`quota-exhausted`: a key has nothing left: it rests and is not hammered, the next key serves; when the last one has
nothing left either, a person is called."""

from __future__ import annotations

from midwatch.drills.drill import Drill
from midwatch.drills.instance import Instance


def _not_hammered(instance: Instance) -> str | None:
    said = instance.told("said")
    statuses = [one["status"] for one in said]
    if statuses[:3] != [200] * 3 or 200 in statuses[3:]:
        return f"the calls were answered with {statuses}"
    if "quota" not in str(said[3]["error"]):
        return f"the provider's own word was not passed on: {said[3]['error']}"
    keys = [call.key.removeprefix("rehearsal:") for call in instance.provided.asked("openai")]
    asked = {key: keys.count(key) for key in set(keys)}
    if asked != {"main": 1, "spare": 4}:
        return f"the keys were asked {asked} times; one without quota is asked once"
    severity = next(i["severity"] for i in instance.incidents() if i["kind"] == "quota-exhausted")
    return None if severity == "critical" else f"nobody is called: it is {severity}"


DRILL = Drill(
    name="quota-exhausted",
    about="the quota of one key after the other is gone",
    program="quota_exhausted.py",
    limit_s=1.0,
    fleet={"models": {"retries": {"attempts": 1, "backoff": "10ms..50ms"}}},
    provided=True,
    orders=(
        {"mode": "quota", "key": "rehearsal:main"},
        {"mode": "quota", "key": "rehearsal:spare", "skip": 3},
    ),
    says=(r"keys of openai are used up", r"0 of 2 keys left"),
    check=_not_hammered,
)
