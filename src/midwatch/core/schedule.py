"""When a scheduled agent runs, which starts it missed, and what is done about them. Pure; times are Unix seconds.

A due start is known by the time that the rule names (`of`); jitter only puts off when it is made (`at`). All up to
`settled` is decided for ever, so no due start is made twice, whatever the clock does: `decide` is given what is
settled and what is still owed, and returns both anew.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import Final, Literal

from cronsim import CronSim

from midwatch.core.cron import read_at, read_between, within
from midwatch.core.terms import Schedule
from midwatch.core.times import zone_of
from midwatch.core.walltime import DAY_S, instant, local, next_cron, turn

MAX_MADE_UP: Final = 100
"""With `missed: all`, so many of the newest are made up for; older ones are counted and told."""

MAX_COUNTED: Final = 1000
"""Missed starts are counted so far; beyond it is "more than"."""

SET_BACK_S: Final = 3 * 3600.0
"""A clock set back by less waits until it is again where it was, and nothing runs twice; a larger step corrects a
clock that was wrong, and the schedule follows the new time at once. Debian's cron draws the same line."""

_ANCHOR: Final = datetime(2024, 1, 1)  # noqa: DTZ001  a Monday's midnight, in the schedule's zone
_MAX_STEPS: Final = 100
"""Times outside `between` that are passed over before a rule counts as one that never starts."""


class Kind(StrEnum):
    """Why a start is owed. The value is kept in the journal."""

    DUE = "due"
    MISSED = "missed"  # makes up for one that did not happen
    QUEUED = "queued"  # waited for the run before it
    REPLACING = "replacing"  # the run before it is stopped for it


ONCE: Final = "at "
"""How the text of a rule begins that names a single time."""

Owed = tuple[float, str]
"""(of, kind) of a start that is to be made."""


@dataclass(frozen=True, slots=True)
class Due:
    """One start."""

    of: float
    """The time that the rule names."""
    at: float
    """When it is made: `of`, and the agent's share of the jitter."""


class Plan:
    """An agent's schedule on the calendar: which start comes after which."""

    def __init__(self, terms: Schedule, timezone: str, agent: str = "") -> None:
        self.terms = terms
        self.timezone = terms.timezone or timezone
        self.zone = zone_of(self.timezone)
        self._hours = read_between(terms.between) if terms.between else None
        # not random: the next start can be shown, and stays what it is over restarts
        self._share = int.from_bytes(sha256(agent.encode()).digest()[:6]) / 2**48
        self._anchor = instant(_ANCHOR, self.zone)
        # between two starts the same is asked again and again
        self._asked: float | None = None
        self._answer: Due | None = None

    @property
    def text(self) -> str:
        """Return the rule as one line: while it is the same, what it missed can be told."""
        terms = self.terms
        rule = f"{ONCE}{terms.at}" if terms.at else terms.cron or f"every {terms.every}"
        return f"{rule} {self.timezone} {terms.between or ''}".rstrip()

    @property
    def once(self) -> bool:
        return self.terms.at is not None

    def after(self, of: float) -> Due | None:
        """Return the first start whose time in the rule is later than `of`; None when there is none."""
        if self._asked != of:
            self._asked, self._answer = of, self._search(of)
        return self._answer

    def _search(self, of: float) -> Due | None:
        for _ in range(_MAX_STEPS):
            named = self._named(of)
            if named is None:
                return None
            if self.open(named):
                return Due(named, named + self._room(named) * self._share)
            of = max(named, self.opens(named) - 0.5)
        return None

    def open(self, at: float) -> bool:
        """Tell whether a start may be made at this time of day."""
        if self._hours is None:
            return True
        shown = local(at, self.zone)
        return within(shown.hour * 3600 + shown.minute * 60 + shown.second, self._hours)

    def opens(self, at: float) -> float:
        """Return when a start may be made: `at`, or the next begin of its hours."""
        if self._hours is None or self.open(at):
            return at
        return self._clock(at, self._hours[0])

    def _named(self, after: float) -> float | None:
        terms = self.terms
        if terms.cron is not None:
            return next_cron(terms.cron, self.zone, after)
        if terms.every is not None:
            count = math.floor((after - self._anchor) / terms.every) + 1
            at = self._anchor + count * terms.every
            return at if at > after else self._anchor + (count + 1) * terms.every
        at = read_at(terms.at or "", self.zone)
        return at if at > after else None

    def _room(self, named: float) -> float:
        """Return how far jitter may put off a start: not out of its hours, nor over a change of the clock."""
        room = self.terms.jitter
        if self._hours is None or room <= 0:
            return room
        change = turn(self.zone, named, named + room)
        if change is not None:
            room = change - named
        return min(room, self._clock(named, self._hours[1]) - named)

    def _clock(self, after: float, second: int) -> float:
        """Return when the clock next shows this second of the day."""
        day = local(after, self.zone).replace(hour=0, minute=0, second=0, microsecond=0)
        shown = (day + timedelta(days=d, seconds=second) for d in (0, 1, 2))
        moments = (instant(s, self.zone, fold) for s in shown for fold in (0, 1))
        return min((m for m in moments if m > after), default=after + DAY_S)


@dataclass(frozen=True, slots=True)
class Backlog:
    """The starts that are due by now and not settled."""

    first: Due
    newest: tuple[Due, ...]
    """At most MAX_MADE_UP and one, oldest first."""
    count: int
    more: bool = False
    """True when there are more than `count`."""


def backlog(plan: Plan, settled: float, now: float) -> Backlog | None:
    """Return what is due by `now` and later than `settled`, or None."""
    first = due = plan.after(settled)
    if first is None or first.at > now:
        return None
    newest: deque[Due] = deque(maxlen=MAX_MADE_UP + 1)
    count = 0
    while due is not None and due.at <= now:
        if count == MAX_COUNTED:
            return Backlog(first, _newest(plan, settled, now), count, more=True)
        newest.append(due)
        count += 1
        due = plan.after(due.of)
    return Backlog(first, tuple(newest), count)


def _newest(plan: Plan, settled: float, now: float) -> tuple[Due, ...]:
    """Look back from `now` over ever longer times until there are enough."""
    span = 3600.0
    while True:
        since = max(settled, now - span)
        newest: deque[Due] = deque(maxlen=MAX_MADE_UP + 1)
        due = plan.after(since)
        while due is not None and due.at <= now:
            newest.append(due)
            due = plan.after(due.of)
        if len(newest) > MAX_MADE_UP or since == settled:
            return tuple(newest)
        span *= 2


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known when a schedule is looked at."""

    now: float
    settled: float
    owed: tuple[Owed, ...] = ()
    busy_since: float | None = None
    """When the run began that still works; None when none does."""
    barred: bool = False
    """True while no schedule may start it: a person stopped it, or must repair it first."""
    idle: bool = True
    """False while something else decides about its next start: its restarts, or their end. A start that falls due
    is made all the same; one that is owed waits."""


@dataclass(frozen=True, slots=True)
class Missed:
    """Starts that were not made in time."""

    first: float
    last: float
    count: int
    more: bool
    made_up: int
    """How many runs make up for them."""
    dropped: int
    """How many nothing makes up for, although the policy would."""
    at: float | None
    """When the first of those runs begins, as far as it is known; None when there is none."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Starts that fell due while the last run still worked."""

    first: float
    last: float
    count: int
    more: bool
    then: Literal["skip", "queue", "full", "replace"]
    """`full`: one waits already, this one is left out."""


@dataclass(frozen=True, slots=True)
class Step:
    """What follows: what is settled and owed from now on, and what to do and tell."""

    settled: float
    owed: tuple[Owed, ...]
    start: bool
    """Start the first that is owed, now."""
    replace: bool
    """Stop the run for it."""
    missed: Missed | None
    overlap: Overlap | None
    next: Due | None
    wake_at: float | None
    """When something is due or may begin; None: never again."""


def decide(plan: Plan, s: Situation) -> Step:
    """Return what a look at the schedule leads to."""
    if s.settled > s.now + SET_BACK_S and not plan.once:
        s = replace(s, settled=s.now)
    log = backlog(plan, s.settled, s.now)
    settled = log.newest[-1].of if log else s.settled
    following = plan.after(settled)
    if s.barred:
        lost = _barred(s, log)
        return Step(settled, (), False, False, lost, None, following, _at(following))
    owed, missed, overlap, ripe = s.owed, None, None, False
    if log is not None:
        clash = _clash(log, s.busy_since)
        late, due = _split(plan, s, log, clash)
        if late:
            owed, missed = _make_up(plan, s, owed, log, late, covered=due is not None)
        if due is not None:
            ripe = True
            owed = (
                (*owed, (due.of, Kind.DUE)) if plan.terms.missed == "all" else ((due.of, Kind.DUE),)
            )
        if clash:
            owed, overlap = _overlap(plan, owed, log, clash, alone=not late)
    stop = overlap is not None and overlap.then == "replace"
    free = s.busy_since is None and (s.idle or ripe)
    opens = plan.opens(s.now)
    start = bool(owed) and free and opens <= s.now
    wake_at = _at(following)
    if owed and free and not start:
        wake_at = opens if wake_at is None else min(opens, wake_at)
    return Step(settled, owed, start, stop, missed, overlap, following, wake_at)


def _at(due: Due | None) -> float | None:
    return due.at if due else None


def _barred(s: Situation, log: Backlog | None) -> Missed | None:
    """Return what is given up for good because nobody may start it."""
    ofs = [of for of, kind in s.owed if kind != Kind.MISSED]
    if log is None and not ofs:
        return None
    count = len(ofs) + (log.count if log else 0)
    if log is not None:
        ofs += [log.first.of, log.newest[-1].of]
    return Missed(min(ofs), max(ofs), count, bool(log and log.more), 0, 0, None)


def _clash(log: Backlog, busy_since: float | None) -> tuple[Due, ...]:
    if busy_since is None:
        return ()
    return tuple(due for due in log.newest if due.at >= busy_since)


def _split(
    plan: Plan, s: Situation, log: Backlog, clash: tuple[Due, ...]
) -> tuple[tuple[Due, ...], Due | None]:
    """Return those that are missed, and the one that is still in time. What is due together with a later one is
    missed, however short the delay: only one of them can be made now."""
    if clash and log.first.at >= clash[0].at:
        return (), None
    if clash and log.first.at >= (s.busy_since or 0.0):
        return (), None  # more than are kept, and all of them since the run began
    rest = log.newest[: len(log.newest) - len(clash)]
    if not clash and s.busy_since is None and s.now - rest[-1].at <= plan.terms.window:
        return rest[:-1], rest[-1]
    return rest or (log.first,), None


def _make_up(
    plan: Plan,
    s: Situation,
    owed: tuple[Owed, ...],
    log: Backlog,
    late: tuple[Due, ...],
    *,
    covered: bool,
) -> tuple[tuple[Owed, ...], Missed]:
    """Return what is owed with the missed ones. `covered`: a start that is in time follows at once."""
    later = log.newest[-1].of > late[-1].of
    count = log.count
    if later and not log.more:
        count -= sum(due.of > late[-1].of for due in log.newest)
    policy = plan.terms.missed
    made_up = dropped = 0
    if policy == "all":
        whole = (*owed, *((due.of, Kind.MISSED.value) for due in late))
        owed = whole[-MAX_MADE_UP:]
        made_up = min(len(late), len(owed))
        dropped = max(0, count - made_up)
    elif policy == "once":
        made_up = 1
        if not covered and not owed:
            owed = ((late[-1].of, Kind.MISSED.value),)
    begin = plan.opens(s.now) if made_up and s.busy_since is None else None
    return owed, Missed(log.first.of, late[-1].of, count, log.more, made_up, dropped, begin)


def _overlap(
    plan: Plan, owed: tuple[Owed, ...], log: Backlog, clash: tuple[Due, ...], *, alone: bool
) -> tuple[tuple[Owed, ...], Overlap]:
    policy = plan.terms.overlap
    last = clash[-1].of
    then: Literal["skip", "queue", "full", "replace"] = policy
    if policy == "queue":
        if owed:
            then = "full"
        else:
            owed = ((last, Kind.QUEUED.value),)
    elif policy == "replace":
        rest = tuple(o for o in owed if o[1] == Kind.MISSED) if plan.terms.missed == "all" else ()
        owed = ((last, Kind.REPLACING.value), *rest[: MAX_MADE_UP - 1])
    count = log.count if alone else len(clash)
    first = log.first.of if alone else clash[0].of
    return owed, Overlap(first, last, count, log.more and alone, then)


# -- in words ------------------------------------------------------------------------------------


def in_words(terms: Schedule) -> str:
    """Return the rule as people say it: `at 06:00 every day`, `every 15m between 22:00 and 06:00`."""
    if terms.cron is not None:
        words = _explained(terms.cron)
    elif terms.every is not None:
        words = f"every {exactly(terms.every)}"
    else:
        words = f"once, at {(terms.at or '').replace('T', ' ')}"
    if terms.between:
        first, _, last = terms.between.replace(" ", "").partition("..")
        words += f", between {first} and {last}"
    if terms.jitter:
        words += f", put off by up to {exactly(terms.jitter)}"
    return words


@lru_cache(maxsize=1024)
def _explained(cron: str) -> str:
    words = CronSim(cron, _ANCHOR).explain()
    return words[:1].lower() + words[1:]


def exactly(seconds: float) -> str:
    """Return `1h30m` for 5400: nothing is rounded off but what is under a millisecond."""
    whole, rest = divmod(round(seconds * 1000), 1000)
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count}{unit}")
    if rest:
        parts.append(f"{rest}ms")
    return "".join(parts) or "0s"


def show_day(at: float, plan: Plan) -> str:
    """Return `2026-07-02 06:00`, on the schedule's clock; with seconds where the minute is not the whole of it."""
    shown = local(at, plan.zone)
    return f"{shown:%Y-%m-%d %H:%M:%S}" if shown.second else f"{shown:%Y-%m-%d %H:%M}"
