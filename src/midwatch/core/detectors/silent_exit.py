"""silent-exit: the process ended with code 0, said nothing, and should still be running."""

from __future__ import annotations

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.exits import End
from midwatch.core.findings import ended, found
from midwatch.core.recovery import WAKES, recovery


@detector("silent-exit", on=WAKES)
def silent_exit(facts: Facts) -> Verdict:
    """Find an exit with code 0 that nobody asked for."""
    if ended(facts, {End.SILENT}):
        return found(
            "silent-exit", facts, "exit code 0 of an agent that should be running (end=silent)"
        )
    return recovery(facts, "silent-exit")
