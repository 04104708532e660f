"""One exchange: which attempt comes next, after which pause, and when to give up.

No I/O, no clock: outcomes and `now` (monotonic seconds) go in, the next step comes out. Whoever carries
the exchange does as it says, so that retries, fallbacks and deadlines are tested as scripts.

Bounds that always hold: at one place at most 1 + `retries.attempts` attempts, whichever keys they use; after
`retries.total` nobody is waited for and no place asked again; nothing at all begins after the call's own
deadline, and an attempt ends by then. Moving on has no other bound: the time that a place needs to be found
hung is longer than that in which trying again is worth while. Nor has going on with an answer that broke off:
the longer it ran, the more it is worth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from midwatch.core.calls.chain import Place
from midwatch.core.calls.classes import Failure, Reaction, reaction
from midwatch.core.models import Retries
from midwatch.core.sealed import sealed

WORTH_WAITING_S: Final = 8.0
"""A provider that asks for a longer pause is left for the next place, where there is one."""


class Choice(Protocol):
    """What the exchange asks about places: `route.Route` answers from chain, pools and breakers."""

    def take(self, place: Place, now: float, without: str | None = None) -> str | None:
        """Return the name of a key to use at `place` ("" where none is needed), other than `without`.

        None: not now. What is taken is given back by telling what became of it.
        """
        ...

    def following(self, place: Place | None, failure: Failure | None) -> Place | None:
        """Return the place after `place` (the first for None) that may answer this call now."""
        ...

    def last(self, place: Place) -> bool:
        """Tell whether no place stands behind `place` that might answer. Asked at each attempt."""
        ...

    def free_at(self, place: Place, now: float) -> float:
        """Return when a call at `place` may go through at the earliest; inf: not foreseeable."""
        ...


@sealed
class Try:
    """Ask `place` with `key`; the attempt must be over at `deadline`."""

    place: Place
    key: str
    number: int
    """Of the attempt within the exchange, from 1."""
    deadline: float
    head_by: float
    """When an answer that is not streamed must have begun: where another place stands behind this one, half of
    the time that is left is kept for it."""
    taken: float
    """When its place let it through: by this the breaker knows it."""


@sealed
class Pause:
    """Wait until `until`, then `resume`."""

    until: float


class Why(StrEnum):
    """Why an exchange ends without an answer."""

    FAILED = "failed"  # the last failure is the answer
    NO_PLACE = "no-place"  # every place rests: nobody was asked
    GONE = "gone"  # nobody waits for it any more


@sealed
class GiveUp:
    why: Why
    failure: Failure | None
    retry_after_s: float | None = None
    """When somebody may answer again, as far as that is known."""


Step = Try | Pause | GiveUp


@sealed
class Attempt:
    """What became of one attempt."""

    place: Place
    key: str
    failure: Failure | None


@dataclass(slots=True)
class Exchange:
    """Begin with `begin`; after each `Try` say what came of it, after each `Pause` call `resume`."""

    choice: Choice
    retries: Retries
    began: float
    total_s: float
    chance: Callable[[], float]
    """A number in [0, 1): jitter."""
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    _place: Place | None = None
    _tries: dict[int, int] = field(default_factory=dict[int, int])
    """Attempts by position in the chain."""
    _last: Failure | None = None
    _begun: bool = False
    """The client has a part of an answer."""
    _soonest: float = float("inf")

    @property
    def deadline(self) -> float:
        return self.began + self.total_s

    def begin(self, now: float) -> Step:
        return self._move_on(now)

    def failed(self, attempt: Try, failure: Failure, now: float, *, here: bool = True) -> Step:
        """An attempt failed before anything of it reached the client. `here` False: not at this place again."""
        self.attempts.append(Attempt(attempt.place, attempt.key, failure))
        self._last = failure
        react = reaction(failure)
        if react.final:
            return GiveUp(Why.FAILED, failure)
        again = self._again(attempt, failure, react, now) if here else None
        return again or self._move_on(now)

    def broke(self, attempt: Try, failure: Failure, now: float, *, here: bool) -> Step:
        """An answer broke off of which the client has a part, and it can be gone on with."""
        self._begun = True
        return self.failed(attempt, failure, now, here=here)

    def answered(self, attempt: Try) -> None:
        self.attempts.append(Attempt(attempt.place, attempt.key, None))

    def resume(self, now: float) -> Step:
        """A pause is over: the same place again, if it may still be asked."""
        again = self._try(now) if now < self._closing else None
        return again or self._move_on(now)

    def divert(self, now: float) -> Step:
        """The places are others now: go to the first of them."""
        self._place = self._last = None
        return self._move_on(now)

    @property
    def _closing(self) -> float:
        """From when on nobody is waited for, nor asked again."""
        return self.deadline if self._begun else self.began + min(self.retries.total, self.total_s)

    def _again(self, attempt: Try, failure: Failure, react: Reaction, now: float) -> Step | None:
        """Return a further attempt at the same place, or None: go on to the next."""
        if not react.here or not self._left(attempt.place):
            return None
        if react.another_key:
            # the failure is this key's: another one is asked at once
            step = self._try(now, without=attempt.key) if now < self._closing else None
            if step is not None or not react.wait:
                return step
        asked = failure.retry_after_s or 0.0
        rests = self.choice.free_at(attempt.place, now) - now
        pause = max(self._backoff(attempt.place), asked, rests)
        further = self.choice.following(attempt.place, failure) is not None
        longest = min(self.retries.total, self._closing - now)
        if pause >= longest or (pause > WORTH_WAITING_S and further):
            self._soonest = min(self._soonest, now + pause)
            return None
        return Pause(now + pause)

    def _backoff(self, place: Place) -> float:
        """Full jitter: anywhere between nothing and the bound, which doubles with each attempt here."""
        low, high = self.retries.backoff
        return self.chance() * min(high, low * 2 ** (self._tries[place.position] - 1))

    def _left(self, place: Place) -> bool:
        return self._tries.get(place.position, 0) <= self.retries.attempts

    def _try(self, now: float, without: str | None = None) -> Step | None:
        place = self._place
        if place is None or not self._left(place):
            return None
        key = self.choice.take(place, now, without)
        if key is None:
            if without is None:
                self._soonest = min(self._soonest, self.choice.free_at(place, now))
            return None
        self._tries[place.position] = self._tries.get(place.position, 0) + 1
        deadline = min(self.deadline, now + (place.timeouts.total or self.total_s))
        head_by = deadline
        if not self.choice.last(place):
            head_by = min(deadline, now + (self.deadline - now) / 2)
        return Try(place, key, len(self.attempts) + 1, deadline, head_by, now)

    def _move_on(self, now: float) -> Step:
        """Go to the next place that lets a call through."""
        while now < self.deadline:
            place = self.choice.following(self._place, self._last)
            if place is None:
                break
            self._place = place
            step = self._try(now)
            if step is not None:
                return step
        return self._give_up(now)

    def _give_up(self, now: float) -> Step:
        soonest, self._soonest = self._soonest, float("inf")
        if self._last is None and soonest <= now + WORTH_WAITING_S:
            until = max(soonest, now + self.chance() * self.retries.backoff[0])
            if until < self._closing:
                self._place = (
                    None  # nobody was asked yet, and somebody may be soon: from the beginning
                )
                return Pause(until)
        wait = soonest - now if soonest < float("inf") else None
        if self._last is None:
            return GiveUp(Why.NO_PLACE, None, wait)
        return GiveUp(Why.FAILED, self._last, wait)
