"""memory-leak: memory grows towards its limit, or is most of the way there already."""

from __future__ import annotations

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.leaking import judge
from midwatch.core.recovery import WAKES
from midwatch.core.units import show_size


@detector("memory-leak", on=(*WAKES, "run.leaking"))
def memory_leak(facts: Facts) -> Verdict:
    """Word the supervisor's warnings about memory; say when the limit will be reached."""
    return judge("memory-leak", facts, "memory", "memory", show_size)
