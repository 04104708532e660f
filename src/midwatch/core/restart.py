"""Whether, and when, an ended agent is started again. Pure.

Failures count in a row; a run that stayed up for `stable_after` starts a new count. The delay grows
exponentially with full jitter, so that agents that failed together do not come back together
(Brooker, "Exponential Backoff And Jitter", AWS 2015). Restarting never goes on for ever: after
`attempts` restarts in a row, or at once when a restart cannot help, the agent is parked.

The class of the end bends the rule. A refused credential parks at once. Wrong settings, missing
dependencies, and a refusal that may concern one piece of work, park when the same failure came twice. A refusal for the rate of requests is no fault of
the agent: it waits as long as the provider asks, and only `REFUSALS` of them in a row park it. So
does a budget of its own that is used up, until it begins anew, and a used-up quota, at longer distances: it comes back when it is paid or when the month ends, and
then nobody should have to remember that an agent was parked for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from midwatch.core import units
from midwatch.core.exits import End, Verdict
from midwatch.core.terms import Restart

FIRST_STEP_S: Final = 1.0
"""Ceiling of the second delay when `backoff` starts at 0: the first restart is at once."""

REFUSAL_STEP_S: Final = 60.0
REFUSAL_MAX_S: Final = 900.0
"""Pause after a refusal that does not say how long: at most a minute, doubled each time up to 15."""

REFUSALS: Final = 20
"""Refusals in a row after which the agent is parked: about three hours when the provider names no time."""

QUOTA_WAIT_S: Final = 3600.0
QUOTA_REFUSALS: Final = 72
"""A used-up quota is tried again each hour for three days: a weekend, until somebody has paid."""

SPREAD: Final = 0.1
"""A wait that a provider asked for is made longer by up to this share, so that not all come back at once."""

ALIKE: Final = 2
"""How often the same wrong setting may end a run before the agent is parked."""

_STAYING: Final = frozenset({End.CONFIGURATION, End.DEPENDENCY, End.CREDENTIALS})
"""Ends that come again until a person changes something."""

HELD_WAIT_S: Final = 5.0
"""How long an agent waits whose calls were refused since it is held, as it says, until that is known for sure."""

REFUSED: Final = frozenset({End.RATE_LIMITED, End.QUOTA, End.BUDGET})
"""Ends that are no fault of the agent, and that time heals."""

HOST_WAIT_S: Final = 300.0
"""A machine that was to go down and is still there after this long gets its agents back."""


class Next(StrEnum):
    """What happens to an agent whose run has ended. The value travels as `next`."""

    RESTART = "restart"
    PARK = "park"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Streak:
    """What the failures in a row were, for the rules that look at their kind."""

    crashes: int = 0
    """Those that count against `attempts`."""
    refusals: int = 0
    """Refusals for rate or quota."""
    mark: str = ""
    """What the last failure was, numbers taken out."""
    alike: int = 0
    """How often that one came in a row, the last time included."""

    def after(self, verdict: Verdict) -> Streak:
        """Return the streak with one more failure."""
        same = verdict.mark != "" and verdict.mark == self.mark
        more = replace(self, mark=verdict.mark, alike=self.alike + 1 if same else 1)
        if verdict.end in REFUSED:
            return replace(more, refusals=more.refusals + 1)
        return replace(more, crashes=more.crashes + 1)

    def to_json(self) -> dict[str, Any]:
        return {
            "crashes": self.crashes,
            "refusals": self.refusals,
            "mark": self.mark,
            "alike": self.alike,
        }

    @staticmethod
    def of(data: Mapping[str, Any] | None, failures: int) -> Streak:
        """Read what `to_json` wrote; what an older version left behind counts as crashes."""
        if not data:
            return Streak(crashes=failures)
        numbers = {
            name: max(0, value) if isinstance(value := data.get(name), int) else 0
            for name in ("crashes", "refusals", "alike")
        }
        mark = data.get("mark")
        return Streak(mark=mark if isinstance(mark, str) else "", **numbers)


NO_FAILURE: Final = Streak()


@dataclass(frozen=True, slots=True)
class Decision:
    next: Next
    reason: str
    delay_s: float = 0.0
    failures: int = 0
    """Failures in a row, this one included."""
    streak: Streak = NO_FAILURE


def decide(
    rules: Restart,
    verdict: Verdict,
    *,
    failures: int,
    ran_s: float,
    jitter: float,
    streak: Streak | None = None,
) -> Decision:
    """Return what follows the end of a run.

    `failures` counts those in a row before this run and `streak` says what they were, `ran_s` is how
    long it ran and `jitter` is a random number from [0, 1).
    """
    before = Streak(crashes=failures) if streak is None else streak
    if verdict.expected:
        return _after_wanted(rules, verdict, failures, before)
    if ran_s >= rules.stable_after:
        failures, before = 0, NO_FAILURE
    count, now = failures + 1, before.after(verdict)

    def park(why: str) -> Decision:
        return Decision(Next.PARK, f"{verdict.reason}; {why}", 0.0, count, now)

    if verdict.useless:
        return park("a restart would not help")
    if rules.when == "never":
        return Decision(Next.STOP, f"{verdict.reason}; restart is never", 0.0, count, now)
    if verdict.end in REFUSED and rules.attempts > 0:
        limit = REFUSALS if verdict.end is End.RATE_LIMITED else QUOTA_REFUSALS
        if now.refusals >= limit:
            return park(f"refused {limit} times in a row")
        delay = _refusal_delay(verdict, now.refusals, jitter)
        again = f"try {now.refusals + 1} of {limit} in {units.show_duration(delay)}"
        return Decision(Next.RESTART, f"{verdict.reason}; {again}", delay, count, now)
    if verdict.end in _STAYING and now.alike >= ALIKE:
        return park("the same failure twice: a restart does not help")
    if now.crashes > rules.attempts or rules.attempts == 0:
        times = "1 restart" if rules.attempts == 1 else f"{rules.attempts} restarts"
        return park(f"failed again after {times} in a row")
    delay = delay_of(rules, now.crashes, jitter)
    when = "at once" if delay == 0 else f"in {units.show_duration(delay)}"
    again = f"restart {now.crashes} of {rules.attempts} {when}"
    return Decision(Next.RESTART, f"{verdict.reason}; {again}", delay, count, now)


def _after_wanted(rules: Restart, verdict: Verdict, failures: int, streak: Streak) -> Decision:
    """Leave alone what somebody wanted; a machine that stays up after all gets its agents back."""
    if verdict.end is End.FINISHED and rules.when == "always":
        return Decision(Next.RESTART, f"{verdict.reason}; restart is always", rules.backoff[0])
    if verdict.end is End.SUSPENDED and verdict.said and rules.when != "never":
        # by its last words alone: the gateway is asked at once, and where it holds the agent nothing starts
        again = "starts again unless the gateway holds it"
        return Decision(Next.RESTART, f"{verdict.reason}; {again}", HELD_WAIT_S, failures, streak)
    if verdict.end is End.HOST_SHUTDOWN and rules.when != "never":
        again = f"starts again in {units.show_duration(HOST_WAIT_S)} should the machine stay up"
        return Decision(Next.RESTART, f"{verdict.reason}; {again}", HOST_WAIT_S, failures, streak)
    return Decision(Next.STOP, verdict.reason)


def _refusal_delay(verdict: Verdict, refusals: int, jitter: float) -> float:
    """Return how long to wait after a refusal: as asked, or growing from half a minute."""
    if verdict.end is End.QUOTA:
        return QUOTA_WAIT_S * (1 + SPREAD * jitter)
    if verdict.retry_after_s is not None and (refusals <= 1 or verdict.end is End.BUDGET):
        return verdict.retry_after_s * (1 + SPREAD * jitter) + jitter
    ceiling = min(REFUSAL_MAX_S, REFUSAL_STEP_S * 2.0 ** min(refusals - 1, 30))
    pause = ceiling * (1 + jitter) / 2
    # asked for a second and refused again: what it asks for is not enough
    return max(pause, verdict.retry_after_s or 0.0)


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
