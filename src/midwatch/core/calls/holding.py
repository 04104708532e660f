"""Who of supervisor and gateway is right about a held agent, when they are found to differ. Pure.

The supervisor decides who is suspended: a hold that it does not know of is an old one, and one that the gateway
lacks is told again. What the gateway holds by itself (a loop, a used-up budget) suspends the agent here, too.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

OF_GATEWAY: Final = frozenset({"loop", "budget"})
"""Kinds of holds that the gateway makes by itself."""

KILLED: Final = "killed"


class Mend(StrEnum):
    """What makes both agree."""

    NOTHING = "nothing"
    LIFT = "lift"  # the gateway holds an agent that is free
    TELL = "tell"  # the gateway lets an agent call that is suspended
    SUSPEND = "suspend"  # the agent goes on as if it were not held


def mend(hold: str | None, *, suspended: bool, resting: bool) -> Mend:
    """Return what is to be done about one agent.

    `hold`: the kind of the gateway's hold. `resting`: a person stopped it, or it is parked: it stays so, and
    whoever starts it lifts the hold.
    """
    if suspended:
        return Mend.TELL if hold is None else Mend.NOTHING
    if hold is None or resting:
        stale = hold not in (None, KILLED, *OF_GATEWAY)
        return Mend.LIFT if stale else Mend.NOTHING
    return Mend.SUSPEND if hold in OF_GATEWAY else Mend.LIFT
