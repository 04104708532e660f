"""Whether a process gets too little of the processor. Pure.

The kernel counts for how long a process ran and for how long it was ready to run and had to wait. On a
machine with enough processors the second is a fraction of the first; beside a hundred agents that burn
a core each it is fifty times the first, however little the process wants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LEAST_S: Final = 0.25
"""Waiting in a second that is worth a thought. A post that is asked for little waits 0.05 s in a second
beside one agent for each processor, and 0.1 s beside fifty: nobody notices."""

RATIO: Final = 5.0
"""Waiting beside running from which on it starves: as much as one among six that want one processor.
A post's own threads, and the posts that start beside it, stay below that by themselves."""


@dataclass(frozen=True, slots=True)
class Turns:
    """What all threads of a process have had until now, in seconds: time on a processor, and time in
    which they waited for one."""

    ran_s: float
    waited_s: float


def starves(before: Turns, now: Turns) -> bool:
    """Tell whether the process waited much longer than it ran between two looks, a second apart. What the threads that
    ended had is gone from the counts, so that they may fall: that is no sign of anything."""
    ran_s, waited_s = now.ran_s - before.ran_s, now.waited_s - before.waited_s
    return ran_s >= 0.0 and waited_s >= LEAST_S and waited_s >= RATIO * ran_s
