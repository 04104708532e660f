"""Keeps one agent: starts it, listens to it, judges it, ends it, and follows the restart rules.

A synchronous state machine over the `System` seam: every method is called in the loop's thread and
returns at once. Decisions come from `core` (exits, restart, liveness, memory, schedule); this file
only carries them out and tells. Invariant: at most one process, and `run` is set exactly while it
exists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from midwatch.core import units
from midwatch.core.errors import SetupError
from midwatch.core.exits import AGAIN, End, Facts, Verdict, Wish, classify
from midwatch.core.fleet import Agent
from midwatch.core.liveness import Evidence
from midwatch.core.restart import Decision, Next
from midwatch.core.states import ALIVE, HELD, State, may_follow
from midwatch.supervisor.change.tenure import Tenure
from midwatch.supervisor.duties import DUTIES
from midwatch.supervisor.ending import Ending, clear_up
from midwatch.supervisor.fate import Fate
from midwatch.supervisor.launch import launch_of
from midwatch.supervisor.machine.system import Exit, Sample, StartError
from midwatch.supervisor.output.capture import Capture
from midwatch.supervisor.run import Run
from midwatch.supervisor.surroundings import Surroundings
from midwatch.supervisor.telling import Telling
from midwatch.supervisor.timers import Timers
from midwatch.supervisor.timetable import Timetable
from midwatch.wire.ids import new_id
from midwatch.wire.notify import Notice

UP_AFTER_S: Final = 1.0
"""An agent that says nothing counts as running after this long."""

HOLDS: Final = {
    Wish.STOP: State.STOPPED,
    Wish.KILL: State.STOPPED,
    Wish.SUSPEND: State.SUSPENDED,
}
"""Wishes after which an agent stays where it is until a person says otherwise."""


class Keeper:
    """Keeps one agent. `agent` is resolved: nothing in it depends on defaults."""

    def __init__(self, name: str, agent: Agent, around: Surroundings, capture: Capture) -> None:
        self.name = name
        self.agent = agent
        self.capture = capture
        self.state = State.STOPPED
        self.since = around.system.wall()
        self.reason = "not started yet"
        self.run: Run | None = None
        self.failures = 0
        self.restarts = 0
        self.next_start_at: float | None = None
        self.odd_edges = 0
        self.ended: list[Callable[[], None]] = []
        """Who waits for the end of the run; each is called once."""
        self.system = around.system
        self.timers = Timers(around.system)
        self.say = around.say
        self._around = around
        self._ending: Ending | None = None
        self.tell = Telling(name, agent, around.reports, around.system)
        self._timetable = self._plan()
        self._shutting_down = False
        self._resting = False
        self._duties = [duty(self) for duty in DUTIES]
        self.tenure = Tenure(self, around)
        self._fate = Fate(name, around.system, around.journal, around.random)

    def take(self, agent: Agent) -> None:
        """Keep the agent by another entry from now on; what runs goes on."""
        self.agent = agent
        self.tell = Telling(self.name, agent, self._around.reports, self.system)
        if self._timetable is not None:
            self._timetable.cancel()
        self._timetable = self._plan()
        if self.state is State.SCHEDULED:
            self.between_runs()
        else:
            self._arm_schedule()

    def _plan(self) -> Timetable | None:
        return None if self.agent.schedule is None else Timetable(self, self._around)

    # -- beginning ---------------------------------------------------------------------------

    def begin(self, *, resumed: bool) -> None:
        """Take up the agent where the journal left it."""
        record = self._around.journal.of(self.name)
        lived, since = record.run_id, record.run_since
        if resumed:
            self.failures = record.failures
            self._fate.remember(record)
            if lived is not None:
                self.tell.lost(lived, since)
        if lived is not None:
            self._around.journal.ended(self.name, self.failures)
        self.tenure.choose()
        if not self.agent.enabled:
            self._arm_schedule()
            self.become(State.STOPPED, "not enabled in the fleet file")
            return
        if record.held is not None:
            changed = record.held == State.PARKED and record.entry != self._around.fingerprint(
                self.agent
            )
            if not changed:
                self.become(State(record.held), record.reason)
                way = "resume" if record.held == State.SUSPENDED else "start"
                self.say(
                    f"{self.name}: stays {record.held} ({record.reason}); `midwatch {way} {self.name}` starts it"
                )
                self._arm_schedule()
                return
            self.say(f"{self.name}: its entry changed since it was parked; starting again")
            self.failures = 0
            self._keep_hold(None)
        if self.agent.schedule is not None and not (resumed and lived is not None):
            self.between_runs()
            self.say(f"{self.name}: {self.reason}")
            return
        self._arm_schedule()
        self.start("resumed after the supervisor had died" if resumed else "first start")

    def start(self, why: str) -> None:
        """Start a run now. There must be none."""
        assert self.run is None
        self.timers.cancel("start")
        self.next_start_at = self._timetable.next_at if self._timetable is not None else None
        if not self.tenure.admitted(why):
            return
        run_id = new_id()
        self.become(State.STARTING, why)
        self.capture.begin()
        try:
            launch = launch_of(self, self._around, run_id, self._printed, self._exited)
            process = self.system.spawn(launch)
        except (StartError, SetupError) as error:
            number = error.number if isinstance(error, StartError) else 2
            self.tell.started(run_id, None, self.failures + 1, why, {})
            self._follow(
                classify(Facts(start_errno=number, start_problem=str(error))),
                run_id,
                Exit(None, None),
            )
            return
        now, wall, attempt = self.system.now(), self.system.wall(), self.failures + 1
        kills = self.system.oom_kills()
        self.run = Run(run_id, process, now, wall, why, attempt, Evidence(now), kills)
        due, owed = self._timetable.taken() if self._timetable is not None else ({}, None)
        self._around.journal.started(self.name, run_id, process.pid, process.started, wall, owed)
        self._around.run_begins(self.name, run_id)
        self.tell.started(run_id, process.pid, attempt, why, {**self.tenure.started(), **due})
        self.say(
            f"{self.name}: started, pid {process.pid}" + (f" ({why})" if not self.failures else "")
        )
        self.timers.set("up", UP_AFTER_S, lambda: self.up("alive"))
        if self.failures:
            self.timers.set("stable", self.agent.restart.stable_after, self._stable)
        for duty in self._duties:
            duty.begin(self.run)

    # -- evidence ----------------------------------------------------------------------------

    def hear(self, notice: Notice, sender: int = 0) -> None:
        """Take a datagram of the agent, or of who shares its socket; `sender` is a pid, 0 when not told."""
        run = self.run
        if run is None:
            return
        first = run.evidence.beat is None
        notice = run.hear(notice, self.system.now(), self.system.wall(), sender)
        if notice.draining and run.wish is None and self.state is not State.SUSPENDED:
            self.become(State.DRAINING, "says that it stops")
        elif notice.ready or notice.beat:
            self.up("ready" if notice.ready else "first beat")
        for duty in self._duties:
            duty.heard(run, notice, first_beat=first and notice.beat)

    def seen(self) -> None:
        """Take a ping through the hub as a beat."""
        self.hear(Notice(beat=True))

    def typed(self, by: str) -> None:
        """Somebody sent input to the agent's terminal."""
        if self.run is not None:
            for duty in self._duties:
                duty.typed(self.run, by)

    def forgive(self, stood_still_s: float) -> None:
        """We, or the host, stood still for a while: nobody could prove anything."""
        if self.run is not None:
            self.run.evidence = self.run.evidence.shifted(stood_still_s)

    def sampled(self, sample: Sample | None) -> None:
        """Take the regular sample and report it, with the state, so that a lost event heals."""
        run = self.run
        if run is not None and sample is not None:
            self._take(run, sample)
        self.tell.sampled(self.state, run, sample, self.tenure.drift)

    def look(self, run: Run) -> None:
        """Take a sample now, between the regular ones, and tell every duty."""
        sample = self.system.sample([run.process]).get(run.process.pid)
        if sample is not None and self.run is run:
            self._take(run, sample)

    def glanced(self, sample: Sample) -> None:
        """Take a light sample, between the regular ones: it is for hard limits alone."""
        if self.run is not None:
            for duty in self._duties:
                duty.glanced(self.run, sample, self.system.now())

    def weigh(self, done: Callable[[int | None], None]) -> None:
        self._around.weigh(self.name, done)

    def _take(self, run: Run, sample: Sample) -> None:
        now = self.system.now()
        run.take(sample, now)
        for duty in self._duties:
            duty.sampled(run, sample, now)

    def hear_now(self) -> None:
        """Read what the agent has said until now."""
        self._around.hear_now(self.name)

    def _printed(self, data: bytes) -> None:
        self.capture.feed(data)
        if self.run is not None:
            self.run.printed(self.system.now(), data)
            for duty in self._duties:
                duty.printed(self.run, len(data))

    def up(self, how: str) -> None:
        if (
            self.state in (State.STARTING, State.UNHEALTHY, State.WAITING)
            and self.run is not None
            and self.run.wish is None
        ):
            self.run.hung_told = False
            self.become(State.RUNNING, how)

    def _stable(self) -> None:
        self.failures = 0
        stable_s = self.agent.restart.stable_after
        self.tell.event("agent.recovered", {"stable_s": stable_s})
        self.say(f"{self.name}: has been stable for {units.show_duration(stable_s)}")

    # -- ending ------------------------------------------------------------------------------

    def finish(self, wish: Wish, reason: str, *, kill: bool = False) -> bool:
        """End the run because somebody wants it; tell whether there is one. `ended` hears of it."""
        run, self._resting = self.run, False
        if run is None:
            return False
        # what a person decided is kept before the agent has ended, so that our own end in between,
        # in good order or by kill -9, does not take it back
        ours = wish in (Wish.SHUTDOWN, Wish.CHANGE)
        if run.wish is not Wish.KILL and not (ours and run.wish in HOLDS):
            run.wish, run.wish_reason = wish, reason
            if not (ours and self.suspended):
                self._keep_hold(HOLDS.get(wish), reason)
        self.become(State.DRAINING, reason)
        self._end(run, grace=None if kill else self.agent.limits.stop_grace)
        return True

    def rest(self, reason: str) -> None:
        """End the run because its entry wants none now: it is disabled, or has become a schedule's."""
        self._fate.settle(Wish.CHANGE, reason)
        self._resting = self.finish(Wish.CHANGE, reason)

    def shut_down(
        self, wish: Wish = Wish.SHUTDOWN, reason: str = "stopped together with Midwatch"
    ) -> None:
        """The instance stops, or the agent left the file: end the run, start nothing again, hold nothing."""
        self._shutting_down = True
        self._fate.settle(wish, reason)
        self.timers.cancel()
        if self._timetable is not None:
            (self._timetable.forget if wish is Wish.CHANGE else self._timetable.cancel)()
        if not self.finish(wish, reason) and self.state not in HELD:
            self.become(State.STOPPED, reason)

    def kill(self) -> None:
        """End whatever still lives, without grace."""
        if self.run is not None:
            self._end(self.run, grace=None)

    def end(
        self, run: Run, wish: Wish, reason: str, *, grace_s: float | None, dump: bool = False
    ) -> None:
        """End the run for this reason, unless somebody did already."""
        if self.run is run and run.wish is None:
            run.wish, run.wish_reason = wish, reason
            self._end(run, grace=grace_s, dump=dump)

    def _end(self, run: Run, *, grace: float | None, dump: bool = False) -> None:
        if self._ending is not None:
            self._ending.hasten(grace)
        else:
            self._ending = Ending(
                self.system,
                run.process,
                grace_s=grace,
                dump=dump,
                note=self._around.say,
                name=self.name,
                ignored=lambda grace_s, killed: self.tell.ignored(run, grace_s, killed),
            )

    def _exited(self, exit_: Exit) -> None:
        self.hear_now()  # what it said before its end counts
        run = self.run
        if run is None:
            return
        self.run = None
        if self._ending is not None:
            self._ending.over()
            self._ending = None
        for duty in self._duties:
            duty.over(run, exit_)
        self.timers.cancel()
        if self.suspended and run.wish is None:
            # nothing is left to it without its calls: no crash, whatever it exited with
            run.wish, run.wish_reason = Wish.SUSPEND, f"{self.reason}; its process ended meanwhile"
        facts = run.facts(
            exit_,
            self.system.now(),
            limit=self.agent.limits.memory,
            tail=self.capture.tail(),
            long_lived=self.agent.schedule is None,
            oom_kills=self.system.oom_kills(),
            host_stops=self._around.going_down(),
        )
        clear_up(self.system, run, exit_, self.tell, self.say, self.name)
        self._fate.judge(facts, lambda f: self._follow(classify(f), run.run_id, exit_, run, f))

    def _follow(
        self,
        verdict: Verdict,
        run_id: str,
        exit_: Exit,
        run: Run | None = None,
        facts: Facts | None = None,
    ) -> None:
        """Do what the rules say about an end, and tell."""
        ran = facts.duration_s if facts else 0.0
        decision = self._fate.decide(self.agent.restart, verdict, failures=self.failures, ran_s=ran)
        wish = run.wish if run else None
        if self._shutting_down:
            decision = Decision(Next.STOP, verdict.reason, 0.0, self.failures)
        elif self._resting or self.suspended:
            decision = Decision(Next.STOP, verdict.reason)
        elif wish in AGAIN:
            decision = Decision(Next.RESTART, verdict.reason, 0.0, 0)
        elif wish is Wish.WALL and self.agent.schedule is not None:
            # a job that took too long takes as long again: its next time is the schedule's
            decision = Decision(Next.STOP, verdict.reason, 0.0, decision.failures)
        else:
            decision = self.tenure.judge(verdict, decision)
        self._resting = False
        self.failures = decision.failures
        self._fate.sealed(decision)
        self.tell.ended(verdict, decision, run_id, exit_, run, facts)
        self._around.run_over(self.name, run_id, run)
        self.say(f"{self.name}: {decision.reason}")
        self._settle(verdict, decision, wish)
        waiting, self.ended = self.ended, []
        for tell in waiting:
            tell()

    def _settle(self, verdict: Verdict, decision: Decision, wish: Wish | None) -> None:
        if decision.next is Next.RESTART:
            self.restarts += 1
            wanted = verdict.end in (End.OPERATOR, End.CHANGED)
            why = verdict.reason if wanted else f"restart after: {verdict.reason}"
            # a start that failed is tried again from the loop, not from within itself
            if decision.delay_s <= 0 and verdict.end is not End.CANNOT_START:
                self.start(why)
                return
            self.next_start_at = self.system.wall() + decision.delay_s
            self.become(State.BACKING_OFF, decision.reason)
            self.timers.set("start", decision.delay_s, lambda: self.start(why))
        elif decision.next is Next.PARK:
            self._hold(State.PARKED, decision.reason)
            self.say(
                f"{self.name}: parked; a person is needed: `midwatch start {self.name}` when it is repaired"
            )
            self._arm_schedule()
        elif self.suspended and not self._shutting_down:
            self._hold(State.SUSPENDED, verdict.reason)
        elif wish is not None and wish in HOLDS:
            self._hold(HOLDS[wish], verdict.reason)
        elif self.agent.schedule is not None and self.agent.enabled and not self._shutting_down:
            self.between_runs()
        else:
            self.become(State.STOPPED, verdict.reason)

    # -- what a person wants -----------------------------------------------------------------

    def release(self, why: str) -> None:
        """Start, whatever held the agent; failures are forgiven."""
        if self._shutting_down:
            return
        self._fate.settle(Wish.RESTART, why)
        self._forgive_failures()
        self.start(why)
        self._arm_schedule()

    def wait(self, reason: str) -> None:
        """Wait for the next time of the schedule, whatever held the agent. There must be no process."""
        self._resting = True  # an end that is not judged yet must start nothing
        self._fate.settle(Wish.CHANGE, reason)
        self._resting = False
        self._forgive_failures()
        self.between_runs()

    def _forgive_failures(self) -> None:
        self.timers.cancel("start")
        self.failures = 0
        for duty in self._duties:
            duty.released()
        self._keep_hold(None)

    def hold(self, state: State, reason: str) -> None:
        """Stay in `state` until a person says otherwise. There must be no process."""
        self._fate.settle(Wish.STOP, reason)
        self.timers.cancel("start")
        self.next_start_at = None
        self._hold(state, reason)

    def suspend(self, reason: str) -> None:
        """Leave the process, whose calls are refused from now on, unjudged until `resume`; limits hold."""
        if self.run is None:
            self.hold(State.SUSPENDED, reason)
            return
        self.timers.cancel("start", "up", "stable", "watch", "dump")
        self._hold(State.SUSPENDED, reason)

    def resume(self, why: str) -> None:
        """Let a process that was left go on, or start the agent; failures are forgiven."""
        if self.run is None:
            self.release(why)
            return
        self._forgive_failures()
        self.forgive(max(0.0, self.system.wall() - self.since))
        self.become(State.RUNNING if self.run.wish is None else State.DRAINING, why)
        for duty in self._duties:
            duty.resumed(self.run)

    @property
    def suspended(self) -> bool:
        """Whether it stays as it is, with or without a process, until somebody resumes it."""
        return self._around.journal.of(self.name).held == State.SUSPENDED

    def _hold(self, state: State, reason: str) -> None:
        self._keep_hold(state, reason)
        if state is State.STOPPED:
            self.tenure.leave()
        self.become(state, reason)

    def _keep_hold(self, state: State | None, reason: str = "") -> None:
        entry = self._around.fingerprint(self.agent) if state else ""
        told = reason if state else ""
        self._around.journal.hold(self.name, state, told, self.system.wall(), entry)

    # -- schedule ----------------------------------------------------------------------------

    def between_runs(self) -> None:
        """Wait for the next time of the schedule."""
        self._arm_schedule()
        plan = self._timetable
        waits = plan is not None and plan.next_at is not None
        reason = plan.rest() if plan is not None else "it has no schedule any more"
        self.become(State.SCHEDULED if waits else State.STOPPED, reason)

    def _arm_schedule(self) -> None:
        if self._timetable is not None and not self._shutting_down:
            self._timetable.arm()
            self.next_start_at = self._timetable.next_at

    # -- telling -----------------------------------------------------------------------------

    def become(self, state: State, reason: str) -> None:
        if state is self.state and reason == self.reason:
            return
        if not may_follow(self.state, state):
            self.odd_edges += 1
        self.state, self.reason, self.since = state, reason, self.system.wall()
        self.tell.state(state, self.since, reason, self.run, self.failures + 1, self.next_start_at)

    @property
    def alive(self) -> bool:
        return self.state in ALIVE or self.run is not None
