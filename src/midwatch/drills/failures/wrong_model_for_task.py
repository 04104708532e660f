"""`wrong-model-for-task`: a health check on the dearest model is moved to a cheap one, mail on it is refused; both are
recorded."""

from __future__ import annotations

from midwatch.drills.drill import Drill
from midwatch.drills.instance import Instance


def _by_the_rules(instance: Instance) -> str | None:
    moved, denied = instance.told("said")
    if (moved["status"], moved["model"]) != (200, "openai/gpt-4o-mini"):
        return f"the health check was answered with {moved}"
    if (denied["status"], denied["error"].get("type")) != (403, "midwatch_policy"):
        return f"mail was answered with {denied}"
    asked = {call.model for call in instance.provided.asked()}
    if asked != {"gpt-4o-mini"}:
        return f"providers were asked for {asked}"
    return None


DRILL = Drill(
    name="wrong-model-for-task",
    about="a health check, and mail, on the dearest model",
    program="wrong_model_for_task.py",
    limit_s=1.0,
    fleet={
        "models": {
            "policy": [
                {
                    "name": "cheap-checks",
                    "when": 'task == "health_check"',
                    "force": "openai/gpt-4o-mini",
                },
                {"name": "cheap-mail", "when": 'task == "mail"', "allow": ["gpt-4o-mini"]},
            ]
        }
    },
    provided=True,
    says=(r"asked for gpt-4\.1", r"health_check|mail", r"cheap-(?:checks|mail)"),
    check=_by_the_rules,
)
