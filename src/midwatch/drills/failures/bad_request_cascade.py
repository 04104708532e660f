"""`bad-request-cascade`: what every provider answers with 400 is asked of one, passed on, and rests nobody."""

from __future__ import annotations

from midwatch.drills.drill import Drill
from midwatch.drills.instance import Instance


def _nobody_rests(instance: Instance) -> str | None:
    said = instance.told("said")
    if {one["status"] for one in said} != {400}:
        return f"the calls were answered with {[one['status'] for one in said]}"
    if any(str(one["error"].get("type", "")).startswith("midwatch") for one in said):
        return f"the provider's own word was not passed on: {said[0]['error']}"
    paths = {call.path.split("/")[1] for call in instance.provided.asked()}
    if paths != {"openai"} or len(instance.provided.asked()) != len(said):
        return f"{len(instance.provided.asked())} calls were asked of {paths}, each is due once"
    health = instance.gateway("health")
    resting = [b for b in health["breakers"] if b["state"] != "closed"]
    resting += [k for pool in health["pools"] for k in pool["keys"] if k["state"] != "active"]
    return f"the request's fault was held against {resting}" if resting else None


DRILL = Drill(
    name="bad-request-cascade",
    about="a bad prompt is answered 400 by every provider",
    program="bad_request_cascade.py",
    limit_s=2.0,  # the error is passed on at once; a row of them is seen when calls are summed
    fleet={
        "gateway": {"tell_every": "500ms"},
        "models": {
            "chains": {
                "gpt-4o-mini": [
                    "openai/gpt-4o-mini",
                    "second/gpt-4o-mini",
                    "anthropic/claude-haiku-4-5",
                ]
            }
        },
    },
    provided=True,
    orders=({"mode": "bad-request"},),
    says=(r"malformed", r"no provider was rested"),
    check=_nobody_rests,
)
