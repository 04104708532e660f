"""`model-mismatch`: a small model answers for an able one, which the fleet's policy forbids; and a parameter that the
model does not know is refused by the provider, whose word is passed on."""

from __future__ import annotations

from midwatch.drills.drill import Drill
from midwatch.drills.instance import Instance


def _said_as_it_is(instance: Instance) -> str | None:
    other, unknown = instance.told("said")
    if (other["status"], other["model"]) != (200, "openai/gpt-4o"):
        return f"the call was answered with {other}"
    if unknown["status"] != 400 or "logprobs" not in str(unknown["error"]):
        return f"the provider's own word was not passed on: {unknown}"
    if instance.counted('failed_attempts_total{class="bad_request"}') != 1:
        return "the refusal is not counted as the request's own"
    return None


DRILL = Drill(
    name="model-mismatch",
    about="another model answers than was asked; a parameter is not known",
    program="model_mismatch.py",
    limit_s=1.0,
    fleet={
        "models": {
            "about": {"gpt-4o": {"rank": 70}, "gpt-4o-mini": {"rank": 20}},
            "policy": [{"name": "able-reviews", "when": 'task == "review"', "min_rank": 60}],
        }
    },
    provided=True,
    orders=(
        {"mode": "unknown-parameter", "has": "logprobs", "param": "logprobs"},
        {"mode": "shape", "served": "gpt-4o-mini"},
    ),
    says=(r"openai/gpt-4o was asked, and gpt-4o-mini answered", r"models\.policy forbids"),
    check=_said_as_it_is,
)
