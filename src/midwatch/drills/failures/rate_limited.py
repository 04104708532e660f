"""`rate-limited`: 429 in the middle of a batch: its Retry-After is kept, then the other key and the next place are
asked. The batch is answered whole."""

from __future__ import annotations

from midwatch.drills.drill import Drill
from midwatch.drills.instance import Instance

WAIT_S = 1


def _whole_batch(instance: Instance) -> str | None:
    said = instance.told("said", 40)
    statuses = [one["status"] for one in said]
    if statuses != [200] * 5:
        return f"the batch was answered with {statuses}"
    third = said[2]
    if (third["model"], third["attempts"]) != ("second/gpt-4o-mini", "4"):
        return (
            f"the limited call was answered by {third['model']} after {third['attempts']} attempts"
        )
    limited = [call for call in instance.provided.asked("openai") if call.status == 429]
    at = {key: [c.at for c in limited if c.key == f"rehearsal:{key}"] for key in ("main", "spare")}
    if len(at["main"]) != 2 or at["main"][1] - at["main"][0] < WAIT_S:
        return f"Retry-After was not kept: asked again after {at}"
    kinds = instance.counted('failed_attempts_total{class="rate_limit"}')
    return None if kinds == 3 else f"{kinds} attempts are counted as limited, 3 were"


DRILL = Drill(
    name="rate-limited",
    about="429 in the middle of a batch",
    program="rate_limited.py",
    limit_s=1.0,
    fleet={
        "models": {
            "chains": {"gpt-4o-mini": ["openai/gpt-4o-mini", "second/gpt-4o-mini"]},
            "retries": {"attempts": 2, "backoff": "10ms..50ms"},
        }
    },
    provided=True,
    orders=(
        {"mode": "rate-limit", "path": "/openai/*", "skip": 2, "times": 3, "retry_after": WAIT_S},
    ),
    says=(r"openai/gpt-4o-mini limits its calls", r"wait is kept"),
    check=_whole_batch,
)
