"""crash: a single failure that is none of the special ones: an exit code, a signal, a failed start.

It is a warning that resolves itself once the agent is stable; from the third failure in a row on it
is a crash-loop, and this incident ends.
"""

from __future__ import annotations

from midwatch.core.causes import CRASHES
from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.incident import Clear
from midwatch.core.recovery import recovery
from midwatch.core.report import LOOP_FAILURES, WAKES, ended, failures_of, found


@detector("crash", on=WAKES)
def crash(facts: Facts) -> Verdict:
    """Find a crash before it has become a loop."""
    if not ended(facts, CRASHES):
        return recovery(facts, "crash")
    failures = failures_of(facts)
    if failures >= LOOP_FAILURES or "crash-loop" in facts.open_kinds:
        if "crash" not in facts.open_kinds:
            return None
        return Clear("crash", facts.agent, "became a crash loop", facts.item["at"])
    return found(
        "crash",
        facts,
        f"end={facts.data.get('end')}, {failures} in a row, a loop from {LOOP_FAILURES}",
    )
