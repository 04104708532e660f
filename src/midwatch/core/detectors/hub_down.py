"""hub-down: the hub was away while agents worked; the supervisor noticed and says for how long."""

from __future__ import annotations

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.findings import was_down


@detector("hub-down", on=("hub.down",))
def hub_down(facts: Facts) -> Verdict:
    """Tell of the gap once it has ended: only then can the hub hear of it."""
    meanwhile = "agents ran on, and what they reported was kept"
    return was_down("hub-down", facts, "hub", meanwhile)
