"""Who of supervisor and gateway is right about a held agent, when they are found to differ. Pure.

The supervisor decides who is suspended: a hold that it does not know of is an old one, and one that the gateway
lacks is told again. What the gateway holds by itself (a loop, a used-up budget) suspends the agent here, too; or
restarts or stops it, where `loop.action` says so. The hub gives that order, and within `ORDER_S` everybody waits for
it; who acts then is the supervisor itself, so that a hub that is away changes nothing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

OF_GATEWAY: Final = frozenset({"loop", "budget"})
"""Kinds of holds that the gateway makes by itself."""

KILLED: Final = "killed"

ORDER_S: Final = 5.0
"""How long the hub's order is waited for, from when the agent was held."""


class Mend(StrEnum):
    """What makes both agree."""

    NOTHING = "nothing"
    LIFT = "lift"  # the gateway holds an agent that is free
    TELL = "tell"  # the gateway lets an agent call that is suspended
    SUSPEND = "suspend"  # the agent goes on as if it were not held
    RESTART = "restart"  # so does a run that is to be replaced
    STOP = "stop"  # so does an agent that is to be stopped


def mend(
    hold: str | None,
    *,
    suspended: bool,
    resting: bool,
    then: str = "",
    held_s: float = 0.0,
    same_run: bool = True,
) -> Mend:
    """Return what is to be done about one agent.

    `hold`: the kind of the gateway's hold, which is `held_s` old. `resting`: a person stopped it, or it is parked: it
    stays so, and whoever starts it lifts the hold. `then`: `restart` or `stop`, which is to follow. `same_run`: the
    run that was held is the one that lives.
    """
    if suspended:
        return Mend.TELL if hold is None else Mend.NOTHING
    if hold is None or resting:
        stale = hold not in (None, KILLED, *OF_GATEWAY)
        return Mend.LIFT if stale else Mend.NOTHING
    if hold not in OF_GATEWAY:
        return Mend.LIFT
    if then == Mend.RESTART and not same_run:
        return Mend.LIFT
    if then in (Mend.RESTART, Mend.STOP):
        return Mend(then) if held_s >= ORDER_S else Mend.NOTHING
    return Mend.SUSPEND
