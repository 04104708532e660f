"""The states of an agent, and which may follow which. Imports nothing of ours."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class State(StrEnum):
    """An agent's state, as the API shows it (CONTRACT)."""

    STARTING = "starting"  # process made, not yet known to be up
    RUNNING = "running"
    DRAINING = "draining"  # asked to stop, or said that it stops; cleaning up
    STOPPED = "stopped"  # by a person, or finished
    BACKING_OFF = "backing-off"  # ended, waits for its next start
    PARKED = "parked"  # restarts are exhausted or useless; a person is needed
    SUSPENDED = "suspended"  # until it is resumed; its process may have been left
    WAITING = "waiting"  # waits for input or an approval
    UNHEALTHY = "unhealthy"  # no evidence of progress; about to be restarted
    LOST = "lost"  # its node no longer reports
    SCHEDULED = "scheduled"  # between two runs of its schedule


ALIVE: Final = frozenset(
    {State.STARTING, State.RUNNING, State.DRAINING, State.WAITING, State.UNHEALTHY}
)
"""States in which a process exists. One may exist in SUSPENDED, too: then its pid is known."""

HELD: Final = frozenset({State.STOPPED, State.PARKED, State.SUSPENDED})
"""States that only a person (or a schedule) ends; they survive a restart of the supervisor."""

NEXT: Final[dict[State, frozenset[State]]] = {
    State.STARTING: frozenset(
        {
            State.RUNNING,  # READY, first beat, or alive for a moment
            State.DRAINING,  # stop asked, or STOPPING=1
            State.UNHEALTHY,  # never beat in time
            State.WAITING,  # reads its terminal
            State.BACKING_OFF,  # ended, will be started again
            State.PARKED,  # ended, and restarting is useless
            State.STOPPED,  # ended, and that is wanted
            State.SUSPENDED,  # suspended while starting
            State.SCHEDULED,  # a short scheduled run ended
            State.LOST,
        }
    ),
    State.RUNNING: frozenset(
        {
            State.DRAINING,
            State.UNHEALTHY,  # no evidence of progress
            State.WAITING,
            State.BACKING_OFF,
            State.PARKED,
            State.STOPPED,
            State.SUSPENDED,
            State.SCHEDULED,
            State.STARTING,  # ended and replaced at once
            State.LOST,
        }
    ),
    State.DRAINING: frozenset(
        {
            State.STOPPED,
            State.STARTING,  # a restart
            State.BACKING_OFF,
            State.PARKED,
            State.SUSPENDED,
            State.SCHEDULED,
            State.UNHEALTHY,
            State.LOST,
        }
    ),
    State.UNHEALTHY: frozenset(
        {
            State.RUNNING,  # evidence came after all
            State.STARTING,
            State.BACKING_OFF,
            State.PARKED,
            State.STOPPED,
            State.SUSPENDED,
            State.DRAINING,
            State.SCHEDULED,
            State.LOST,
        }
    ),
    State.WAITING: frozenset(
        {
            State.RUNNING,
            State.DRAINING,
            State.UNHEALTHY,
            State.BACKING_OFF,
            State.PARKED,
            State.STOPPED,
            State.SUSPENDED,
            State.STARTING,
            State.SCHEDULED,
            State.LOST,
        }
    ),
    State.BACKING_OFF: frozenset(
        {
            State.STARTING,
            State.STOPPED,
            State.SUSPENDED,
            State.PARKED,
            State.SCHEDULED,  # its entry has become a schedule's
            State.LOST,
        }
    ),
    State.PARKED: frozenset(
        {State.STARTING, State.STOPPED, State.SUSPENDED, State.SCHEDULED, State.LOST}
    ),
    State.STOPPED: frozenset({State.STARTING, State.SUSPENDED, State.SCHEDULED, State.LOST}),
    State.SUSPENDED: frozenset(
        {
            State.STARTING,
            State.RUNNING,  # resumed, and its process had been left
            State.DRAINING,  # its process had been left, and ends
            State.STOPPED,
            State.SCHEDULED,
            State.LOST,
        }
    ),
    State.SCHEDULED: frozenset({State.STARTING, State.STOPPED, State.SUSPENDED, State.LOST}),
    State.LOST: frozenset(set(State) - {State.LOST}),  # whatever its node says when it is back
}


def may_follow(old: State, new: State) -> bool:
    """Tell whether `new` may follow `old`; staying in a state is always allowed."""
    return old is new or new in NEXT[old]
