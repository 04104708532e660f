"""By what time ages are reckoned: the wall clock's, as long as it goes as steadily as the machine's own.

A wall clock that is set forward by a year would make everything a year older in one moment, and retention would let
all of it go. So ages are reckoned by a time that is never ahead of the wall clock and grows no faster than the steady
clock counts. Where the two disagree it stays with the steady one, until the wall clock has gone evenly for a day, or a
person has confirmed it. What is known is kept over restarts: a machine may also wake up with a wrong clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from midwatch.core.units import show_duration

JUMP_S: Final = 300.0
"""Disagreement at which the wall clock is not believed any more; below it is caught up with slowly."""

SLEW: Final = 0.001
"""By how much faster than the steady clock ages may grow: NTP slews at half of that."""

EVEN_S: Final = 2.0
"""Between two looks the clocks may differ by so much and still go evenly: looks are no single instant."""

PROOF_S: Final = 86_400.0
"""How long a wall clock that jumped must go evenly before it is believed again."""

AWAY_S: Final = 3_600.0
"""A hub may have been away for so long without a question. After longer its clock must go evenly for as long, in
which time servers have set it right."""

LONG_S: Final = 31 * 86_400.0
"""After a longer absence a day is asked for: it is more likely a wrong clock than a machine that was off."""


@dataclass(frozen=True, slots=True)
class Reckoned:
    """What is known of the clocks. Times of the wall are Unix seconds."""

    boot: str
    """Since when `steady` counts: another text, another count."""
    at: float
    """The time that is believed at `steady`."""
    wall: float
    steady: float
    waited_s: float = 0.0
    """For how long the wall clock has gone evenly without being believed."""
    need_s: float = 0.0
    """How long it must; 0 while it is believed."""
    off_s: float = 0.0
    """By how much it was off when it was no longer believed: above 0 ahead."""
    heard: float = 0.0
    """The confirmation of any hub that was taken account of last: that hub's wall clock then."""

    @property
    def aged(self) -> float:
        """The time by which ages are reckoned."""
        return min(self.at, self.wall)

    @property
    def believed(self) -> bool:
        return self.need_s == 0.0

    @property
    def jumped(self) -> bool:
        """Tell whether a person should look at it: not for an absence that is nothing unusual."""
        return self.need_s >= PROOF_S

    @property
    def reason(self) -> str:
        """How it is, in words."""
        if self.believed:
            return "the hub's wall clock goes evenly; ages are reckoned by it"
        way = "ahead of" if self.off_s > 0 else "behind"
        return (
            f"the hub's wall clock is {show_duration(abs(self.off_s))} {way} what was expected: ages are reckoned"
            f" without that until it has gone evenly for {show_duration(self.need_s)}; if it is right now, confirm it"
            " with midwatch trust-clock"
        )


def look(
    before: Reckoned | None, boot: str, wall: float, steady: float, newest: float | None = None
) -> Reckoned:
    """Return what is known after a look at both clocks.

    `before` is what was known, None at the very first look; then `newest` is the time of the newest that is stored,
    if anything is.
    """
    if before is None:
        at = wall if newest is None else min(newest, wall)
        return _began(Reckoned(boot, at, at, steady), boot, wall, steady)
    if before.boot != boot or steady < before.steady:
        return _began(before, boot, wall, steady)
    passed = steady - before.steady
    now = replace(before, at=before.at + passed, wall=wall, steady=steady)
    off = wall - now.at
    if abs(off) <= JUMP_S:
        # a thousandth of what passed, so that a clock that runs too fast is noticed in the end
        slew = SLEW * passed
        return replace(now, at=now.at + min(max(off, -slew), slew), waited_s=0.0, need_s=0.0, off_s=0.0)  # fmt: skip
    if abs(wall - before.wall - passed) > EVEN_S + SLEW * passed or before.believed:
        return replace(now, waited_s=0.0, need_s=PROOF_S, off_s=off)
    return _waited(replace(now, waited_s=before.waited_s + passed))


def _began(before: Reckoned, boot: str, wall: float, steady: float) -> Reckoned:
    """Return what is known at a start: how long nobody looked, only the wall clock could tell."""
    gap = wall - before.at
    now = replace(before, boot=boot, wall=wall, steady=steady, waited_s=0.0, off_s=gap)
    if -JUMP_S <= gap <= AWAY_S:
        return replace(now, at=wall, need_s=0.0, off_s=0.0)
    asked = AWAY_S if 0 < gap <= LONG_S else PROOF_S
    went_on = not before.believed and before.wall <= wall <= before.wall + LONG_S
    return replace(now, waited_s=before.waited_s if went_on else 0.0, need_s=max(before.need_s, asked))  # fmt: skip


def _waited(now: Reckoned) -> Reckoned:
    return confirmed(now) if now.waited_s >= now.need_s else now


def confirmed(now: Reckoned) -> Reckoned:
    """Return what is known once the wall clock is believed as it is."""
    return replace(now, at=now.wall, waited_s=0.0, need_s=0.0, off_s=0.0)


def agreed(now: Reckoned, said: float) -> Reckoned:
    """Return what is known after a person confirmed the clock of a hub of the fleet as `said` (Unix seconds).

    It holds for every hub whose own clock agrees with that one, and may have gone on for AWAY_S before it is asked.
    Each confirmation counts once: a jump after it is a new question. A clock that says another time is not the one
    that a person looked at.
    """
    if said == now.heard:
        return now
    taken = replace(now, heard=said)
    agrees = -JUMP_S <= now.wall - said <= AWAY_S
    return confirmed(taken) if agrees and not now.believed else taken
