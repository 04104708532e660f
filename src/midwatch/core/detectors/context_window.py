"""context-window: a call fills nine tenths of its model's window."""

from __future__ import annotations

from midwatch.core.calling import LATER, is_event, model_of, noted, quiet
from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.plain import whole_of

KIND = "context-window"


@detector(KIND, on=("context.filling", *LATER))
def context_window(facts: Facts) -> Verdict:
    """Warn before the provider refuses; over when calls are shorter again for a while."""
    if not is_event(facts, "context.filling"):
        return quiet(facts, KIND)
    data = facts.data
    used, window = whole_of(data, "input_tokens") or 0, whole_of(data, "window") or 1
    parts = {
        "system prompt": whole_of(data, "system_tokens") or 0,
        "tools": whole_of(data, "tool_tokens") or 0,
    }
    parts["history"] = max(0, used - sum(parts.values()))
    said = f"{used:,} of {window:,} tokens of {model_of(facts)}'s window are used ({used * 100 // window}%)"
    most = max(parts, key=parts.__getitem__)
    largest = f"most of it is {most} ({parts[most]:,})"
    return noted(KIND, facts, "warning", "at least 90% of the window", said, largest)
