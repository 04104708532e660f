"""crash-loop: the agent dies again on each start; the supervisor backs off, then parks it."""

from __future__ import annotations

from midwatch.core.causes import CRASHES
from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.findings import LOOP_FAILURES, ended, failures_of, found, times
from midwatch.core.recovery import WAKES, recovery


@detector("crash-loop", on=WAKES)
def crash_loop(facts: Facts) -> Verdict:
    """Find three failed starts in a row; parking makes it critical."""
    if not ended(facts, CRASHES):
        return recovery(facts, "crash-loop")
    failures = failures_of(facts)
    if failures < LOOP_FAILURES and "crash-loop" not in facts.open_kinds:
        return None
    return found(
        "crash-loop",
        facts,
        f"{failures} failures in a row, the limit is {LOOP_FAILURES}",
        f"{times(failures, 'failed start')} in a row",
    )
