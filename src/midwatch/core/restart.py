"""Whether, and when, an ended agent is started again. Pure.

Failures count in a row; a run that stayed up for `stable_after` starts a new count. The delay grows
exponentially with full jitter, so that agents that failed together do not come back together
(Brooker, "Exponential Backoff And Jitter", AWS 2015). Restarting never goes on for ever: after
`attempts` restarts in a row, or at once when a restart cannot help, the agent is parked.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from midwatch.core import units
from midwatch.core.exits import End, Verdict
from midwatch.core.terms import Restart

FIRST_STEP_S: Final = 1.0
"""Ceiling of the second delay when `backoff` starts at 0: the first restart is at once."""


class Next(StrEnum):
    """What happens to an agent whose run has ended. The value travels as `next`."""

    RESTART = "restart"
    PARK = "park"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Decision:
    next: Next
    reason: str
    delay_s: float = 0.0
    failures: int = 0
    """Failures in a row, this one included."""


def decide(
    rules: Restart, verdict: Verdict, *, failures: int, ran_s: float, jitter: float
) -> Decision:
    """Return what follows the end of a run.

    `failures` counts those in a row before this run, `ran_s` is how long it ran and `jitter` is a
    random number from [0, 1).
    """
    if verdict.expected:
        if verdict.end is End.FINISHED and rules.when == "always":
            return Decision(Next.RESTART, f"{verdict.reason}; restart is always", rules.backoff[0])
        return Decision(Next.STOP, verdict.reason)
    count = 1 if ran_s >= rules.stable_after else failures + 1
    if verdict.useless:
        return Decision(Next.PARK, f"{verdict.reason}; a restart would not help", 0.0, count)
    if rules.when == "never":
        return Decision(Next.STOP, f"{verdict.reason}; restart is never", 0.0, count)
    if count > rules.attempts:
        times = "1 restart" if rules.attempts == 1 else f"{rules.attempts} restarts"
        return Decision(
            Next.PARK, f"{verdict.reason}; failed again after {times} in a row", 0.0, count
        )
    delay = delay_of(rules, count, jitter)
    when = "at once" if delay == 0 else f"in {units.show_duration(delay)}"
    return Decision(
        Next.RESTART, f"{verdict.reason}; restart {count} of {rules.attempts} {when}", delay, count
    )


def delay_of(rules: Restart, failures: int, jitter: float) -> float:
    """Return the delay in seconds before restart number `failures`: uniform in [lo, lo * 2^n], at most hi."""
    low, high = rules.backoff
    if high <= 0 or (low == 0 and failures <= 1):
        return 0.0
    step = low if low > 0 else FIRST_STEP_S / 2
    ceiling = min(high, step * 2.0 ** min(failures, 60))
    return low + (max(ceiling, low) - low) * jitter


def hang_hold(rules: Restart, last_hang_restart: float | None, now: float) -> float:
    """Return the seconds for which a hang may not cause another restart; 0 when it may now.

    A restart did not cure the last hang; doing it again at once would only lose what the agent does.
    """
    if last_hang_restart is None:
        return 0.0
    return max(0.0, last_hang_restart + rules.cooldown - now)
