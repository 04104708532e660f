"""One call's way through its places: what its chain, the policy, the pools and the breakers leave open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from midwatch.core.calls.breaker import Breaker
from midwatch.core.calls.chain import Place
from midwatch.core.calls.classes import ErrorClass, Failure, reaction
from midwatch.core.calls.exchange import Try
from midwatch.core.calls.pool import KeyHealth, KeyState, pick
from midwatch.core.models import Breaker as BreakerTerms

NEVER = float("inf")

MAX_BREAKERS = 10_000
"""Places whose state is known. Models are named by clients: there is no end to them."""


@dataclass(slots=True)
class Health:
    """What is known of all places of one gateway: breakers by (provider, model), keys by provider, with a breaker of
    (provider, key, model) where one key fails and others are answered (docs/decisions/breakers.md)."""

    terms: BreakerTerms
    breakers: dict[tuple[str, str], Breaker] = field(default_factory=dict[tuple[str, str], Breaker])
    pools: dict[str, list[KeyHealth]] = field(default_factory=dict[str, list[KeyHealth]])

    def breaker(self, place: Place) -> Breaker:
        name = (place.provider, place.model)
        found = self.breakers.get(name)
        if found is None:
            if len(self.breakers) >= MAX_BREAKERS:
                self._make_room()
            found = self.breakers[name] = Breaker(self.terms)
        return found

    def _make_room(self) -> None:
        """Forget what is no loss: breakers of which nothing is known, or one that is closed; last, an open one."""
        known = {name: one for name, one in self.breakers.items() if not one.blank}
        if len(known) >= MAX_BREAKERS:
            closed = (name for name, one in known.items() if one.closed)
            del known[next(closed, next(iter(known)))]
        self.breakers = known

    def key(self, provider: str, name: str) -> KeyHealth | None:
        return next((key for key in self.pools.get(provider, ()) if key.name == name), None)


@dataclass(frozen=True, slots=True)
class Change:
    """What a failure or an answer changed: told as an event."""

    kind: str
    """`breaker.opened`, `breaker.closed`, or `key.` with the key's new state."""
    provider: str
    model: str = ""
    key: str = ""
    reason: str = ""
    for_s: float = 0.0


@dataclass(slots=True)
class Route:
    """The places of one call. `admits` decides again, at each fallback, whether a place may serve it."""

    places: Sequence[Place]
    health: Health
    task: str | None
    chance: Callable[[], float]
    admits: Callable[[Place, Failure | None], bool]
    spoken: Callable[[Place], bool] = lambda _: True
    """Whether a place can be asked in its own dialect at all; without looking at what is asked."""

    def take(self, place: Place, now: float, without: str | None = None) -> str | None:
        breaker = self.health.breaker(place)
        if breaker.free_at(now) > now:
            return None
        pool = self.health.pools.get(place.provider)
        if not pool:  # a provider without keys is asked without one
            return "" if without is None and breaker.take(now) else None
        avoided = frozenset[str](() if without is None else (without,))
        key = pick(pool, self.task, now, self.chance(), avoided, place.model)
        if key is None or not breaker.take(now):
            return None
        if place.model in key.failing:
            key.failing[place.model].take(now)
        return key.name

    def following(self, place: Place | None, failure: Failure | None) -> Place | None:
        if failure is not None and not reaction(failure).next:
            return None
        start = 0 if place is None else self.places.index(place) + 1
        return next((p for p in self.places[start:] if self.admits(p, failure)), None)

    def last(self, place: Place) -> bool:
        if place is self.places[-1]:
            return True
        return not any(map(self.spoken, self.places[self.places.index(place) + 1 :]))

    def free_at(self, place: Place, now: float) -> float:
        at = self.health.breaker(place).free_at(now)
        pool = self.health.pools.get(place.provider)
        if not pool:
            return at
        serving = [key for key in pool if key.reserve is None or key.reserve == self.task]
        awake = [
            max(now, k.free_at(now, place.model))
            for k in serving
            if k.state is not KeyState.MISSING
        ]
        return max(at, min(awake, default=NEVER))


_RESTS = {
    ErrorClass.QUOTA: KeyState.QUOTA,
    ErrorClass.CREDENTIALS: KeyState.REFUSED,
    ErrorClass.RATE_LIMIT: KeyState.COOLING,
}


def note_failure(
    health: Health, attempt: Try, failure: Failure, now: float, *, metered: bool = True
) -> list[Change]:
    """Enter a failed attempt into `health`; return what that changed. `metered` False: it only had tokens counted,
    which providers limit by itself: its key still answers calls that are paid for."""
    place, changes = attempt.place, list[Change]()
    state, held = _RESTS.get(failure.kind), health.key(place.provider, attempt.key)
    if reaction(failure).counts:
        changes += _failed(health, attempt, failure, held, now)
    else:
        # somebody answered: what came tells nothing against the provider
        note_nothing(health, attempt)
    if not metered and failure.kind is ErrorClass.RATE_LIMIT:
        return changes
    if state is not None and held is not None:
        if failure.one_model:
            news = held.rest_for(now, place.model, state, failure.retry_after_s)
        else:
            news = held.rest(now, state, failure.reason, failure.retry_after_s)
        if news:
            rest = held.free_at(now, place.model) - now
            kind = f"key.{state.value}"
            changes.append(
                Change(kind, place.provider, place.model, attempt.key, failure.reason, rest)
            )
    return changes


def _failed(
    health: Health, attempt: Try, failure: Failure, held: KeyHealth | None, now: float
) -> list[Change]:
    """Enter a failure of the provider: of the place, as long as nobody is answered there; of the key, when it fails
    again and again while others are."""
    place, breaker = attempt.place, health.breaker(attempt.place)
    pool = health.pools.get(place.provider, [])
    if breaker.failed(now, failure.reason, attempt.taken):
        for key in pool:
            if place.model in key.failing and key.failing[place.model].closed:
                del key.failing[place.model]  # an outage is no key's fault
        rest = breaker.free_at(now) - now
        return [Change("breaker.opened", place.provider, place.model, "", failure.reason, rest)]
    if held is None or len(pool) < 2 or not breaker.closed:
        return []
    one = held.blame(place.model, health.terms)
    if not one.failed(now, failure.reason, attempt.taken):
        return []
    rest = one.free_at(now) - now
    return [Change("key.cooling", place.provider, place.model, held.name, failure.reason, rest)]


def _of_key(health: Health, attempt: Try) -> Breaker | None:
    """Return what is held against an attempt's key at its place; None: nothing."""
    held = health.key(attempt.place.provider, attempt.key)
    return held.failing.get(attempt.place.model) if held is not None and held.failing else None


def note_begun(health: Health, attempt: Try) -> list[Change]:
    """Enter the first content of a stream into `health`; return what that changed."""
    of_key = _of_key(health, attempt)
    if of_key is not None:
        of_key.begun(attempt.taken)
    closed = health.breaker(attempt.place).begun(attempt.taken)
    return [_closed(attempt.place)] if closed else []


def note_answer(health: Health, attempt: Try, now: float) -> list[Change]:
    """Enter an answer into `health`; return what that changed."""
    held = health.key(attempt.place.provider, attempt.key)
    if held is not None:
        held.answered(now)
        model = attempt.place.model
        of_key = held.failing.get(model) if held.failing else None
        if of_key is not None and (of_key.answered(attempt.taken) or of_key.blank):
            del held.failing[model]
    closed = health.breaker(attempt.place).answered(attempt.taken)
    return [_closed(attempt.place)] if closed else []


def note_nothing(health: Health, attempt: Try) -> None:
    """Enter an attempt that says nothing of its provider."""
    of_key = _of_key(health, attempt)
    if of_key is not None:
        of_key.give_back(attempt.taken)
    health.breaker(attempt.place).give_back(attempt.taken)


def _closed(place: Place) -> Change:
    return Change("breaker.closed", place.provider, place.model)
