"""wrong-model-for-task: a model was asked for that the policy does not allow for this work."""

from __future__ import annotations

from midwatch.core.calling import LATER, because, how_often, is_event, model_of, noted, quiet
from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.plain import text_of

KIND = "wrong-model-for-task"


@detector(KIND, on=("call.denied", "call.moved", *LATER))
def wrong_model_for_task(facts: Facts) -> Verdict:
    """Find calls that a rule denied, or moved to another model. A rule in shadow is no incident."""
    if not is_event(facts, "call.denied", "call.moved"):
        return quiet(facts, KIND)
    task, rule = text_of(facts.data, "task"), text_of(facts.data, "rule") or "a rule"
    work = f" for {task}" if task else ""
    said = f"asked for {model_of(facts)}{work}"
    if is_event(facts, "call.denied"):
        became = f"refused by {rule}{because(facts)}"
        return noted(
            KIND, facts, "warning", f"models.policy: {rule}", said, how_often(facts), became
        )
    became = f"moved to {text_of(facts.data, 'to') or 'another model'} by {rule}"
    return noted(KIND, facts, "info", f"models.policy: {rule}", said, how_often(facts), became)
