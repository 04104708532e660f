"""quota-exit: it ended because the quota or credit of its account is used up; somebody has to pay."""

from __future__ import annotations

from dataclasses import replace

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.exits import End
from midwatch.core.findings import ended, found
from midwatch.core.recovery import WAKES, recovery


@detector("quota-exit", on=WAKES)
def quota_exit(facts: Facts) -> Verdict:
    """Find an end by a used-up quota. A person is needed, though it is tried again each hour."""
    if ended(facts, {End.QUOTA}):
        finding = found("quota-exit", facts, "the last output tells of a used-up quota or credit")
        return replace(finding, severity="critical")
    return recovery(facts, "quota-exit")
