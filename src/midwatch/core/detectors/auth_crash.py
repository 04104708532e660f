"""auth-crash: it ended because its API key was refused; starting it again would change nothing."""

from __future__ import annotations

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.exits import End
from midwatch.core.findings import ended, found, same_again
from midwatch.core.recovery import WAKES, recovery


@detector("auth-crash", on=WAKES)
def auth_crash(facts: Facts) -> Verdict:
    """Find an end that the supervisor put down to a refused credential, and name it."""
    if ended(facts, {End.CREDENTIALS}):
        reason = "the last output tells of a refused credential"
        return found("auth-crash", facts, reason, same_again(facts))
    return recovery(facts, "auth-crash")
