"""`provider-down`: five failures open the breaker: the next place answers without a further try, until a probe finds
the provider well."""

from __future__ import annotations

from midwatch.drills.drill import Drill
from midwatch.drills.instance import Instance

FAILURES = 5


def _passed_over_and_asked_again(instance: Instance) -> str | None:
    said = instance.told("said", 40)
    if {one["status"] for one in said} != {200}:
        return f"not every call was answered: {[one['status'] for one in said]}"
    tries = [int(one["attempts"]) for one in said]
    if tries[:FAILURES] != [2] * FAILURES or tries[FAILURES] != 1:
        return f"attempts of the calls were {tries}: the breaker did not open at {FAILURES}"
    if said[-1]["model"] != "openai/gpt-4o-mini":
        return "the provider was well, and was not asked again"
    asked = len(instance.provided.asked("openai"))
    if asked != FAILURES + 1:
        return f"the provider was asked {asked} times: {FAILURES} failures and one probe were due"
    opened = instance.counted("breaker_opened_total")
    closed = instance.wait(lambda: instance.incidents()[0]["resolved_at"] is not None, 10)
    if not closed:
        return "the provider is well, and its incident is open"
    return None if opened == 1 else f"the breaker opened {opened} times"


DRILL = Drill(
    name="provider-down",
    about="a provider answers 503, for a while",
    program="provider_down.py",
    limit_s=1.0,
    fleet={
        "models": {
            "chains": {"gpt-4o-mini": ["openai/gpt-4o-mini", "second/gpt-4o-mini"]},
            "retries": {"attempts": 0},
            "breaker": {"failures": FAILURES, "cooldown": "1s..1s"},
        }
    },
    provided=True,
    orders=({"mode": "overloaded", "path": "/openai/*", "times": FAILURES},),
    says=(r"openai/gpt-4o-mini does not answer", r"passed over"),
    check=_passed_over_and_asked_again,
)
