"""The classes of ends: why a run ended, in one word. Imports nothing of ours."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class End(StrEnum):
    """Why a run ended. The value travels as `end`."""

    FINISHED = "finished"
    """It said that its work is complete and exited with 0, or it was a run of a schedule."""
    SILENT = "silent"
    """Exit code 0 of an agent that should be running."""
    FAILED = "failed"
    """Another exit code, with words that say nothing more."""
    SIGNAL = "signal"
    """A signal from outside."""
    OUT_OF_MEMORY = "out-of-memory"
    """Killed for memory by the kernel or by us, or its runtime said that there was none."""
    CREDENTIALS = "credentials"
    """A key or token was refused, or is missing."""
    RATE_LIMITED = "rate-limited"
    """A provider refused it for a while: too many requests, or overloaded."""
    QUOTA = "quota"
    """The quota or prepaid credit of its account is used up: waiting a minute changes nothing."""
    BUDGET = "budget"
    """Its own budget is used up: the gateway refuses its calls until there is room again."""
    CONFIGURATION = "configuration"
    """Its settings are wrong or missing."""
    DEPENDENCY = "missing-dependency"
    """A module, library or program that it needs is not there."""
    CANNOT_START = "cannot-start"
    """The program of its `command` could not be executed."""
    HUNG = "hung"
    """We stopped it: no evidence of progress."""
    WALL_CLOCK = "wall-clock"
    """We stopped it: it ran past its time."""
    LIMIT = "limit"
    """It was stopped at its limit of processes, files or disk."""
    PLANNED = "planned-restart"
    """We restarted it before it could fail: it grew towards a limit, or stayed over a soft one."""
    CHANGED = "changed"
    """Its entry in the fleet file changed, or its schedule replaced the run."""
    OPERATOR = "operator"
    """A person wanted it."""
    SUSPENDED = "suspended"
    """A person or a detector suspended it."""
    SHUTDOWN = "shutdown"
    """Midwatch itself stops."""
    HOST_SHUTDOWN = "host-shutdown"
    """The machine goes down."""
    LOST = "lost"
    """Its supervisor died and took it along."""


EXPECTED: Final = frozenset(
    {
        End.FINISHED,
        End.OPERATOR,
        End.SUSPENDED,
        End.SHUTDOWN,
        End.HOST_SHUTDOWN,
        End.PLANNED,
        End.CHANGED,
    }
)
"""Ends that somebody wanted: no failure, no incident."""
