"""rate-limited-exit: it ended because its provider refused it for a while; it waits as long as asked."""

from __future__ import annotations

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.exits import End
from midwatch.core.findings import ended, found
from midwatch.core.plain import number_of
from midwatch.core.recovery import WAKES, recovery


@detector("rate-limited-exit", on=WAKES)
def rate_limited_exit(facts: Facts) -> Verdict:
    """Find an end by a refusal for the rate of requests, or for load."""
    if ended(facts, {End.RATE_LIMITED}):
        asked = number_of(facts.data, "retry_after_s")
        reason = "the last output tells of a rate limit" + (
            f", retry after {asked:g} s" if asked else ""
        )
        return found("rate-limited-exit", facts, reason)
    return recovery(facts, "rate-limited-exit")
