"""Pools of keys: which key of a provider serves a call, which rests and why, and when none will be left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal

from midwatch.core.calls.breaker import Breaker
from midwatch.core.models import Breaker as BreakerTerms


class KeyState(StrEnum):
    ACTIVE = "active"
    COOLING = "cooling"  # rate limited: the provider said until when
    QUOTA = "quota"  # its quota is used up
    REFUSED = "refused"  # the provider does not accept it
    MISSING = "missing"  # the reference leads to nothing


RESTS_S: Final = {KeyState.COOLING: 1.0, KeyState.QUOTA: 3600.0, KeyState.REFUSED: 3600.0}
"""How long a key rests when the provider does not say: its quota may have been raised, itself repaired."""

MAX_REST_S: Final = 26 * 3600.0
"""No key rests longer than over the next midnight: what a provider says beyond that is not believed."""


MAX_MODELS: Final = 100
"""Models for which one key rests; names of models come from clients."""


@dataclass(slots=True)
class KeyHealth:
    """One key of a provider. `weight` is its share, `reserve` the task that it is kept for."""

    name: str
    weight: int = 1
    reserve: str | None = None
    state: KeyState = KeyState.ACTIVE
    until: float = 0.0
    reason: str = ""
    calls: int = 0
    exhausted_at: float | None = None
    """When its quota last ran out, for the pool's forecast."""
    models: dict[str, float] = field(default_factory=dict[str, float])
    """By model, until when it rests for that one alone."""
    failing: dict[str, Breaker] = field(default_factory=dict[str, Breaker])
    """By model, what is held against this key alone: failures while other keys of its pool are answered."""
    budget_nusd: int | None = None
    """What it may spend in a month, as its provider bills it; None: nobody said."""
    spent_nusd: int = 0
    """Of that, since the month began."""
    hour_nusd: int = 0
    """Spent within the last hour: its pace."""
    secret: str = field(default="", repr=False)
    """A digest of the key itself: another one under the same name is another key."""

    def rests(self, now: float, model: str = "") -> bool:
        """Tell whether it serves nobody now, or not this model."""
        return self.state is KeyState.MISSING or now < self.free_at(now, model)

    def free_at(self, now: float, model: str = "") -> float:
        """Return when it serves a model at the earliest; a moment that is past when it may now."""
        at = max(self.until, self.models.get(model, 0.0)) if self.models else self.until
        one = self.failing.get(model) if self.failing else None
        return at if one is None else max(at, one.free_at(now))

    def resting(self, now: float) -> dict[str, float]:
        """Return the models for which it rests alone, and until when."""
        failing = {name: one.free_at(now) for name, one in self.failing.items()}
        return {name: until for name, until in {**failing, **self.models}.items() if now < until}

    def blame(self, model: str, terms: BreakerTerms) -> Breaker:
        """Return the breaker of a model that failed with this key; there is one from the first failure on."""
        one = self.failing.get(model)
        if one is None:
            while len(self.failing) >= MAX_MODELS:
                del self.failing[next(iter(self.failing))]
            one = self.failing[model] = Breaker(terms)
        return one

    def rest_for(self, now: float, model: str, state: KeyState, for_s: float | None) -> bool:
        """Take it out for one model. Returns whether that is news."""
        news = now >= self.models.pop(model, 0.0)
        if len(self.models) >= MAX_MODELS:
            self.models = {name: until for name, until in self.models.items() if now < until}
        while len(self.models) >= MAX_MODELS:
            del self.models[next(iter(self.models))]
        self.models[model] = now + min(RESTS_S[state] if for_s is None else for_s, MAX_REST_S)
        return news

    def rest(self, now: float, state: KeyState, reason: str, for_s: float | None) -> bool:
        """Take it out. Returns whether that is news."""
        news = not (self.state is state and now < self.until)
        self.state, self.reason = state, reason
        self.until = max(
            self.until, now + min(RESTS_S[state] if for_s is None else for_s, MAX_REST_S)
        )
        if state is KeyState.QUOTA and news:
            self.exhausted_at = now
        return news

    def answered(self, now: float) -> None:
        """It served a call: whatever was held against it is over."""
        self.calls += 1
        if self.state is not KeyState.ACTIVE and now >= self.until:
            self.state, self.reason = KeyState.ACTIVE, ""


def pick(
    keys: Iterable[KeyHealth],
    task: str | None,
    now: float,
    chance: float,
    without: frozenset[str],
    model: str = "",
) -> KeyHealth | None:
    """Return the key for a call, or None when all rest. `chance` is a number in [0, 1).

    A key that is kept for a task serves that task alone, and that task first. Among the others the weight
    decides; those of weight 0 serve only when no other is left.
    """
    awake = [key for key in keys if key.name not in without and not key.rests(now, model)]
    kept = [key for key in awake if key.reserve is not None and key.reserve == task]
    common = [key for key in awake if key.reserve is None]
    for group in (kept, [k for k in common if k.weight], common):
        if group:
            return _by_weight(group, chance)
    return None


def _by_weight(keys: list[KeyHealth], chance: float) -> KeyHealth:
    total = sum(key.weight for key in keys)
    if total == 0:
        return keys[int(chance * len(keys))]
    left = chance * total
    for key in keys:
        left -= key.weight
        if left < 0:
            return key
    return keys[-1]


HOLDS_S: Final = 1800.0
"""How long what budgets say holds when it is not told again."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """When a pool of keys will be empty, by the pace at which their quotas run out, or their money is spent."""

    left: int
    """Keys that still serve everybody; by budgets, those that have not spent theirs."""
    empty_in_s: float
    by: Literal["quotas", "budgets"] = "quotas"

    def to_json(self, wall: float) -> dict[str, Any]:
        """Return it as an event tells it at `wall` (Unix seconds)."""
        until = wall + HOLDS_S if self.by == "budgets" else None
        return {
            "left": self.left, "empty_in_s": round(self.empty_in_s), "by": self.by, "until": until,
        }  # fmt: skip


PACE_S: Final = 3600.0
"""What the pace is reckoned by: quotas that ran out, and money that was spent, within this time."""


def forecast(keys: Iterable[KeyHealth], now: float) -> Forecast | None:
    """Return when the last common key will be used up, or None without a pace to reckon by: the sooner one of what
    quotas and budgets say."""
    common = [key for key in keys if key.reserve is None and key.state is not KeyState.MISSING]
    awake = [key for key in common if not key.rests(now)]
    if not awake:
        return Forecast(0, 0.0)
    told = [by_quotas(common, len(awake), now), by_budgets(common, awake)]
    return min((one for one in told if one is not None), key=lambda f: f.empty_in_s, default=None)


def by_budgets(common: Iterable[KeyHealth], awake: Iterable[KeyHealth]) -> Forecast | None:
    """Return when the budgets of all keys that serve are spent, at the pace of the last hour. None: one of them has no
    budget, so that nothing is known, or nothing is being spent."""
    pace, left, count = sum(key.hour_nusd for key in common) / PACE_S, 0, 0
    for key in awake:
        if key.budget_nusd is None:
            return None
        left += max(0, key.budget_nusd - key.spent_nusd)
        count += key.spent_nusd < key.budget_nusd
    return Forecast(count, left / pace, "budgets") if pace else None


def by_quotas(common: Iterable[KeyHealth], left: int, now: float) -> Forecast | None:
    """Return when the quotas of the keys that are `left` will have run out.

    The pace is the mean distance between the quotas that ran out within `PACE_S`, and no faster than
    the newest: two keys that go at once (one account) are one event.
    """
    gone = sorted(
        key.exhausted_at
        for key in common
        if key.exhausted_at is not None and now - key.exhausted_at <= PACE_S
    )
    events = [at for n, at in enumerate(gone) if n == 0 or at - gone[n - 1] > 1.0]
    if len(events) < 2:
        return None
    pace = (events[-1] - events[0]) / (len(events) - 1)
    since = now - events[-1]
    return Forecast(left, max(0.0, left * max(pace, since) - since))
