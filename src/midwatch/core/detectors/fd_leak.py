"""fd-leak: open files grow towards their limit; at it, new calls fail and the process lives on."""

from __future__ import annotations

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.leaking import judge
from midwatch.core.recovery import WAKES


@detector("fd-leak", on=(*WAKES, "run.leaking"))
def fd_leak(facts: Facts) -> Verdict:
    """Word the supervisor's warnings about open files."""
    return judge("fd-leak", facts, "open_files", "open files", _count)


def _count(value: float) -> str:
    return f"{value:,.0f}"
