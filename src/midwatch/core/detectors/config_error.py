"""config-error: its settings are wrong or missing; the same failure twice parks it."""

from __future__ import annotations

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.exits import End
from midwatch.core.findings import ended, found, same_again
from midwatch.core.recovery import WAKES, recovery


@detector("config-error", on=WAKES)
def config_error(facts: Facts) -> Verdict:
    """Find an end that its last words put down to settings."""
    if ended(facts, {End.CONFIGURATION}):
        reason = "the last output tells of wrong or missing settings"
        return found("config-error", facts, reason, same_again(facts))
    return recovery(facts, "config-error")
