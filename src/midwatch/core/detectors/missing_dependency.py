"""missing-dependency: a module, library or program that it needs is not there."""

from __future__ import annotations

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.exits import End
from midwatch.core.findings import ended, found, same_again
from midwatch.core.recovery import WAKES, recovery


@detector("missing-dependency", on=WAKES)
def missing_dependency(facts: Facts) -> Verdict:
    """Find an end that its last words put down to something missing."""
    if ended(facts, {End.DEPENDENCY}):
        reason = "the last output tells of something that is not installed"
        return found("missing-dependency", facts, reason, same_again(facts))
    return recovery(facts, "missing-dependency")
