"""gateway-down: the gateway was away while agents worked; the supervisor noticed and started it anew."""

from __future__ import annotations

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.findings import was_down


@detector("gateway-down", on=("gateway.down",))
def gateway_down(facts: Facts) -> Verdict:
    """Tell of the gap once it has ended, as of the hub's."""
    return was_down("gateway-down", facts, "gateway", "no agent was restarted because of it")
