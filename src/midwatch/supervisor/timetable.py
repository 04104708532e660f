"""Follows one agent's schedule: looks at the clock, asks `core.schedule` what follows, does it and tells.

What is settled and what is owed stand in the journal before a start is made, and the start takes its entry out in
the same line that notes the run. So a start that is due is made at least once, whenever the supervisor is killed:
one that dies between the two makes it at its next start, and one that dies with the run resumes that run.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any, Final, Protocol

from midwatch.core import absence, schedule
from midwatch.core.absence import Absence, Look
from midwatch.core.exits import Wish
from midwatch.core.fleet import Agent
from midwatch.core.schedule import Kind, Missed, Overlap, Owed, Plan, Situation, Step, show_day
from midwatch.core.states import State
from midwatch.supervisor.journal import Journal, Record
from midwatch.supervisor.machine.system import System, Timer
from midwatch.supervisor.run import Run
from midwatch.supervisor.surroundings import Surroundings
from midwatch.supervisor.telling import Telling

LOOK_S: Final = 30.0
"""The wall clock may be set, and the host may sleep: the schedule is read again at least this often."""

_WAITS: Final = frozenset({State.PARKED, State.BACKING_OFF})
"""States in which something else decides about the next start; what is owed waits for that."""


class Subject(Protocol):
    """What the timetable may know of its keeper, and ask it for."""

    failures: int
    run: Run | None
    reason: str

    @property
    def name(self) -> str: ...
    @property
    def agent(self) -> Agent: ...
    @property
    def state(self) -> State: ...
    @property
    def system(self) -> System: ...
    @property
    def tell(self) -> Telling: ...

    def say(self, line: str, /) -> None: ...
    def start(self, why: str) -> None: ...
    def release(self, why: str) -> None: ...
    def finish(self, wish: Wish, reason: str) -> bool: ...


def forget_strangers(journal: Journal, known: Collection[str]) -> None:
    """Let agents that the fleet file no longer names have missed nothing, should they come back. A single start
    that was made stays made."""
    for name, record in list(journal.book.records.items()):
        if record.plan and name not in known and not record.plan.startswith(schedule.ONCE):
            journal.schedule(name, plan="")


class Timetable:
    """The schedule of one agent."""

    def __init__(self, subject: Subject, around: Surroundings) -> None:
        assert subject.agent.schedule is not None
        self.next_at: float | None = None
        """When the next start is due, or one that waits may begin; None: never again."""
        self.plan = Plan(subject.agent.schedule, around.timezone, subject.name)
        self._subject = subject
        self._around = around
        self._journal = around.journal
        self._system = around.system
        self._timer: Timer | None = None
        self._before: Look | None = None
        self._taking: Owed | None = None
        """What the start that is being made is for."""
        self._unmade: tuple[float, float] | None = None
        """(of, until) of a start that was tried and of which no process came, and when it counts as missed."""

    # -- what the keeper calls ---------------------------------------------------------------

    def arm(self) -> None:
        """Look at the schedule now when there is something to do, else when there will be."""
        self.cancel()
        if not self._subject.agent.enabled:
            self.forget()
            return
        self._first_sight()
        step = self._decide()
        if step.settled < (self._record().fired or 0.0):
            self._subject.say(f"{self._subject.name}: the clock was set back; its schedule follows")
            self._journal.schedule(self._subject.name, fired=step.settled)
        at = step.wake_at
        self.next_at = self._system.wall() if step.start else at
        late = self._unmade is not None and self._system.wall() > self._unmade[1]
        now = self._system.now()
        if step.start or step.missed or step.overlap or late:
            self._timer = self._system.call_at(now, self._look)
            return
        if at is None and self._unmade is None:
            return
        pause = LOOK_S if at is None else min(LOOK_S, max(0.0, at - self._system.wall()))
        self._before = Look(self._system.wall(), now, self._system.asleep(), now + pause)
        self._timer = self._system.call_at(now + pause, self.arm)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def forget(self) -> None:
        """Nobody follows this schedule any more: what is not made from now on was not missed."""
        self.cancel()
        self.next_at = None
        if not self.plan.once:
            self._journal.schedule(self._subject.name, plan="")

    def taken(self) -> tuple[dict[str, Any], list[Owed] | None]:
        """A run begins: return what it is for, as fields of the report, and what is owed after it."""
        self._unmade = None
        taking, self._taking = self._taking, None
        if taking is None:
            return {}, None
        of, kind = taking
        owed = [entry for entry in self._owed() if entry != taking]
        return {"due_at": of, "made_up": kind == Kind.MISSED}, owed

    def rest(self) -> str:
        """Return in words what an agent waits for between two runs."""
        if self.next_at is None:
            return (
                "done: its schedule names no other time"
                if self.plan.once
                else "its schedule never starts it"
            )
        return f"next run at {show_day(self.next_at, self.plan)} {self.plan.timezone}"

    # -- looking -----------------------------------------------------------------------------

    def _record(self) -> Record:
        return self._journal.of(self._subject.name)

    def _owed(self) -> tuple[Owed, ...]:
        return tuple((of, kind) for of, kind in self._record().owed)

    def _first_sight(self) -> None:
        """What came before the rule was known was not missed; only a single time that is past already was."""
        record, text = self._record(), self.plan.text
        if record.plan == text and record.fired is not None:
            return
        fired = 0.0 if self.plan.once else self._system.wall()
        if record.owed:
            self._subject.say(
                f"{self._subject.name}: its schedule changed; {len(record.owed)} waiting starts were dropped"
            )
        self._journal.schedule(self._subject.name, plan=text, fired=fired, owed=[])

    def _barred(self) -> bool:
        """Tell whether a person stopped the agent, or must repair it first."""
        subject, record = self._subject, self._record()
        if record.held == State.PARKED:
            # before its attempts were used up: a restart would not help, and neither would the schedule
            return record.failures <= subject.agent.restart.attempts
        return record.held is not None

    def _decide(self) -> Step:
        subject, record = self._subject, self._record()
        run = subject.run
        return schedule.decide(
            self.plan,
            Situation(
                now=self._system.wall(),
                settled=record.fired or 0.0,
                owed=self._owed(),
                busy_since=run.started_at if run is not None else None,
                barred=self._barred(),
                idle=subject.state not in _WAITS,
            ),
        )

    def _look(self) -> None:
        """Do what is due. Told first, noted next, made last: what a sudden death cuts off is done again."""
        self._timer = None
        step = self._decide()
        self._tell_unmade(superseded=step.start)
        first = self._before is None
        if step.missed is not None:
            self._tell_missed(step.missed, self._cause())
        elif first:
            step = self._tell_late(step)
        if step.overlap is not None:
            self._tell_overlap(step.overlap)
        record = self._record()
        if (step.settled, step.owed) != (record.fired, self._owed()):
            self._journal.schedule(self._subject.name, fired=step.settled, owed=list(step.owed))
        wall, now = self._system.wall(), self._system.now()
        self._before = Look(wall, now, self._system.asleep())
        self.next_at = step.next.at if step.next else None
        if not step.owed:
            self._taking = None
        if step.replace:
            self._replace(step.owed[0])
        elif step.start:
            self._start(step.owed[0])
        self.arm()

    # -- doing -------------------------------------------------------------------------------

    def _start(self, owed: Owed) -> None:
        subject = self._subject
        self._taking = owed
        if subject.state is State.BACKING_OFF:
            subject.start(self._why(owed))  # in the place of the restart; its failures still count
        else:
            subject.release(self._why(owed))
        if self._still_taking():
            self._taking = None
            # another instance that runs the agent follows the same schedule: nothing is missed
            elsewhere = subject.state is State.PARKED and self._record().held is None
            until = self._system.wall() + self.plan.terms.window
            self._unmade = None if elsewhere else (owed[0], until)
            rest = [entry for entry in self._owed() if entry != owed]
            self._journal.schedule(subject.name, owed=rest)

    def _still_taking(self) -> bool:
        """Tell whether no process came of the start: `taken` was not called."""
        return self._taking is not None

    def _replace(self, owed: Owed) -> None:
        subject = self._subject
        run = subject.run
        assert run is not None
        if run.wish is None:
            self._taking = owed
            subject.finish(Wish.CHANGE, f"replaced by the run of {self._clock(owed[0])}")
        elif run.wish is Wish.CHANGE:
            self._taking = owed

    def _why(self, owed: Owed) -> str:
        of, kind = owed
        match kind:
            case Kind.MISSED:
                return f"makes up for the run of {show_day(of, self.plan)}"
            case Kind.QUEUED:
                return f"scheduled for {self._clock(of)}, waited for the run before"
            case _:
                return f"scheduled for {self._clock(of)}"

    def _clock(self, of: float) -> str:
        return show_day(of, self.plan).partition(" ")[2]

    # -- telling -----------------------------------------------------------------------------

    def _cause(self) -> Absence:
        """Return why starts were missed: what stands in the way, or what kept us from looking."""
        if self._barred():
            record = self._record()
            return Absence(f"it is {record.held}: {record.reason}")
        wall, now = self._system.wall(), self._system.now()
        if self._before is None:
            return absence.while_away(self._around.away_since, wall)
        return absence.between(self._before, Look(wall, now, self._system.asleep()))

    def _tell_missed(self, missed: Missed, cause: Absence) -> None:
        barred, held = self._barred(), self._record().held
        data: dict[str, Any] = {
            "due_at": missed.first,
            "last_due_at": missed.last,
            "count": missed.count,
            "more": missed.more,
            "reason": cause.reason,
            "from": cause.began,
            "to": cause.ended,
            "expected": barred and held != State.PARKED,
            "parked": barred and held == State.PARKED,
            "policy": self.plan.terms.missed,
            "made_up": missed.made_up,
            "dropped": missed.dropped,
            "starts_at": missed.at,
            "timezone": self.plan.timezone,
        }
        self._subject.tell.event("schedule.missed", data)
        which = f"the run of {show_day(missed.first, self.plan)}"
        if missed.count > 1:
            which = f"{missed.count:,} runs since {show_day(missed.first, self.plan)}"
        self._subject.say(
            f"{self._subject.name}: missed {'more than ' if missed.more else ''}{which}: {cause.reason}"
        )

    def _tell_late(self, step: Step) -> Step:
        """A start that an earlier supervisor noted, and died before it made it, is a missed one by now."""
        if not step.owed or step.owed[0][1] != Kind.DUE:
            return step
        of, wall = step.owed[0][0], self._system.wall()
        if wall - of <= self.plan.terms.window + self.plan.terms.jitter:
            return step
        begin = self.plan.opens(wall) if step.start else None
        self._tell_missed(Missed(of, of, 1, False, 1, 0, begin), self._cause())
        return replace(step, owed=((of, Kind.MISSED), *step.owed[1:]))

    def _tell_unmade(self, *, superseded: bool) -> None:
        if self._unmade is None:
            return
        of, until = self._unmade
        if not superseded and self._system.wall() <= until:
            return
        self._unmade = None
        cause = Absence(f"it could not be started: {self._subject.reason}")
        self._tell_missed(Missed(of, of, 1, False, 0, 0, None), cause)

    def _tell_overlap(self, overlap: Overlap) -> None:
        run = self._subject.run
        assert run is not None
        ran_s = self._system.now() - run.started
        data: dict[str, Any] = {
            "due_at": overlap.first,
            "last_due_at": overlap.last,
            "count": overlap.count,
            "more": overlap.more,
            "policy": self.plan.terms.overlap,
            "then": overlap.then,
            "run_id": run.run_id,
            "started_at": run.started_at,
            "ran_s": round(ran_s, 3),
            "timezone": self.plan.timezone,
        }
        self._subject.tell.event("schedule.overlap", data, run.run_id)
        what = {
            "skip": "left out",
            "queue": "put off until it ends",
            "full": "left out, one waits already",
            "replace": "which is stopped for it",
        }[overlap.then]
        self._subject.say(
            f"{self._subject.name}: the run of {self._clock(overlap.last)} is due while the last one works: {what}"
        )
