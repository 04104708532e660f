"""oom-kill: killed by the kernel or by its limit, with its memory near the limit before."""

from __future__ import annotations

from midwatch.core.causes import memory_of
from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.exits import End
from midwatch.core.findings import ended, found
from midwatch.core.recovery import WAKES, recovery


@detector("oom-kill", on=WAKES)
def oom_kill(facts: Facts) -> Verdict:
    """Find an end for want of memory; the sentence says how much, and how fast it grew."""
    if ended(facts, {End.OUT_OF_MEMORY}):
        amounts = memory_of(facts.data)
        return found("oom-kill", facts, f"end=out-of-memory{amounts}")
    return recovery(facts, "oom-kill")
