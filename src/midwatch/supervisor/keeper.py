"""Keeps one agent: starts it, listens to it, judges it, ends it, and follows the restart rules.

A synchronous state machine over the `System` seam: every method is called in the loop's thread and
returns at once. Decisions come from `core` (exits, restart, liveness, memory, schedule); this file
only carries them out and tells. Invariant: at most one process, and `run` is set exactly while it
exists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from midwatch.core import liveness, memory, restart, schedule, units
from midwatch.core.errors import SetupError
from midwatch.core.exits import End, Facts, Verdict, Wish, classify
from midwatch.core.fleet import Agent
from midwatch.core.liveness import Evidence, Judgement
from midwatch.core.restart import Decision, Next
from midwatch.core.states import ALIVE, HELD, State, may_follow
from midwatch.supervisor.ending import Ending, chase
from midwatch.supervisor.output import Capture
from midwatch.supervisor.run import Run
from midwatch.supervisor.surroundings import Surroundings
from midwatch.supervisor.system import Exit, Launch, Sample, StartError
from midwatch.supervisor.telling import Telling
from midwatch.supervisor.timers import STOOD_STILL_S, Timers
from midwatch.supervisor.timetable import Timetable
from midwatch.wire.ids import new_id
from midwatch.wire.notify import Notice

UP_AFTER_S: Final = 1.0
"""An agent that says nothing counts as running after this long."""

FIRST_MEMORY_LOOK_S: Final = 0.5
"""When a run with a memory limit is sampled first."""

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
        self._around = around
        self._system = around.system
        self._ending: Ending | None = None
        self._timers = Timers(around.system)
        self._tell = Telling(name, agent, around.reports, around.system)
        self._timetable = (
            Timetable(
                name, agent.schedule, around.timezone, around.system, around.journal, self._fire
            )
            if agent.schedule is not None
            else None
        )
        self._hang_restart: float | None = None
        self._shutting_down = False

    # -- beginning ---------------------------------------------------------------------------

    def begin(self, *, resumed: bool) -> None:
        """Take up the agent where the journal left it."""
        record = self._around.journal.of(self.name)
        lived, since = record.run_id, record.run_since
        if resumed:
            self.failures = record.failures
            if lived is not None:
                self._tell.lost(lived, since)
        if lived is not None:
            self._around.journal.ended(self.name, self.failures)
        if not self.agent.enabled:
            self._become(State.STOPPED, "not enabled in the fleet file")
            return
        if record.held is not None:
            changed = record.held == State.PARKED and record.entry != self._around.fingerprint(
                self.agent
            )
            if not changed:
                self._become(State(record.held), record.reason)
                self._around.say(
                    f"{self.name}: stays {record.held} ({record.reason}); `midwatch {_way_out(record.held)} {self.name}` starts it"
                )
                self._arm_schedule()
                return
            self._around.say(f"{self.name}: its entry changed since it was parked; starting again")
            self.failures = 0
            self._keep_hold(None)
        if self.agent.schedule is not None and not (resumed and lived is not None):
            self._between_runs()
            self._around.say(f"{self.name}: {self.reason}")
            return
        self._arm_schedule()
        self.start("resumed after the supervisor had died" if resumed else "first start")

    def start(self, why: str) -> None:
        """Start a run now. There must be none."""
        assert self.run is None
        self._timers.cancel("start")
        self.next_start_at = None
        run_id = new_id()
        self._become(State.STARTING, why)
        self.capture.begin()
        try:
            process = self._system.spawn(self._launch(run_id))
        except (StartError, SetupError) as error:
            number = error.number if isinstance(error, StartError) else 2
            self._tell.started(run_id, None, self.failures + 1, why)
            self._follow(
                classify(Facts(start_errno=number, start_problem=str(error))),
                run_id,
                Exit(None, None),
            )
            return
        now, wall, attempt = self._system.now(), self._system.wall(), self.failures + 1
        kills = self._system.oom_kills()
        self.run = Run(run_id, process, now, wall, why, attempt, Evidence(now), kills)
        self._around.journal.started(self.name, run_id, process.pid, process.started, wall)
        self._tell.started(run_id, process.pid, attempt, why)
        self._around.say(
            f"{self.name}: started, pid {process.pid}" + (f" ({why})" if not self.failures else "")
        )
        self._timers.set("up", UP_AFTER_S, lambda: self._up("alive"))
        if self.agent.limits.wall:
            self._timers.set("wall", self.agent.limits.wall, self._over_time)
        if self.failures:
            self._timers.set("stable", self.agent.restart.stable_after, self._stable)
        if self.agent.limits.memory is not None:
            self._timers.set("memory", FIRST_MEMORY_LOOK_S, self._look_at_memory)
        self._watch()

    def _launch(self, run_id: str) -> Launch:
        assert self.agent.command is not None
        return Launch(
            command=self.agent.command,
            env=self._around.environment(self.name, self.agent, run_id),
            cwd=self._around.directory(self.agent),
            run_id=run_id,
            on_output=self._printed,
            on_exit=self._exited,
            open_files=self.agent.limits.open_files,
        )

    # -- evidence ----------------------------------------------------------------------------

    def hear(self, notice: Notice) -> None:
        """Take a datagram of the agent."""
        run = self.run
        if run is None:
            return
        first = run.evidence.beat is None
        run.hear(notice, self._system.now(), self._system.wall())
        if notice.draining and self.state in (State.STARTING, State.RUNNING):
            self._become(State.DRAINING, "says that it stops")
        elif notice.ready or notice.beat:
            self._up("ready" if notice.ready else "first beat")
        if notice.beat and first and self.agent.liveness is None:
            self._watch()

    def seen(self) -> None:
        """Take a ping through the hub as a beat."""
        self.hear(Notice(beat=True))

    def forgive(self, stood_still_s: float) -> None:
        """We, or the host, stood still for a while: nobody could prove anything."""
        if self.run is not None:
            self.run.evidence = self.run.evidence.shifted(stood_still_s)

    def sampled(self, sample: Sample | None) -> None:
        """Take the regular sample and report it, with the state, so that a lost event heals."""
        run = self.run
        if run is not None and sample is not None:
            self._take(run, sample, self._system.now())
        self._tell.sampled(self.state, run, sample)

    def _printed(self, data: bytes) -> None:
        self.capture.feed(data)
        if self.run is not None:
            self.run.printed(self._system.now())

    def _up(self, how: str) -> None:
        if (
            self.state in (State.STARTING, State.UNHEALTHY)
            and self.run is not None
            and self.run.wish is None
        ):
            self.run.hung_told = False
            self._become(State.RUNNING, how)

    def _stable(self) -> None:
        self.failures = 0
        stable_s = self.agent.restart.stable_after
        self._tell.event("agent.recovered", {"stable_s": stable_s})
        self._around.say(f"{self.name}: has been stable for {units.show_duration(stable_s)}")

    # -- memory ------------------------------------------------------------------------------

    def _look_at_memory(self) -> None:
        if self.run is not None:
            self._look(self.run, self._system.now())

    def _look(self, run: Run, now: float) -> None:
        sample = self._system.sample([run.process]).get(run.process.pid)
        if sample is not None:
            self._take(run, sample, now)

    def _take(self, run: Run, sample: Sample, now: float) -> None:
        run.take(sample, now)
        run.oom_kills = self._system.oom_kills(max_age_s=1.0)
        limit = self.agent.limits.memory
        pause = memory.next_look(run.history, limit, now - run.started)
        if pause < memory.SAMPLE_EVERY_S:  # else the regular sample is soon enough
            self._timers.set("memory", pause, self._look_at_memory)
        if limit is None or sample.rss_bytes < limit or run.wish is not None:
            return
        if (
            sample.children
            and (exact := self._system.footprint(run.process)) is not None
            and exact < limit
        ):
            return  # the tree shares pages; counted once, it is below its limit
        run.wish, run.wish_reason = Wish.MEMORY, "killed at its memory limit"
        self._end(run, grace=None)

    # -- liveness ----------------------------------------------------------------------------

    def _watch(self) -> None:
        """Judge the run, and again when the judgement says so."""
        run = self.run
        if run is None or run.wish is not None:
            return
        self._around.hear_now(self.name)
        now = self._system.now()
        mode = liveness.mode_of(self.agent.liveness, run.evidence)
        if mode in ("heartbeat", "activity") and now > run.started:
            self._look(run, now)
        judgement = liveness.judge(self.agent.liveness, self.agent.heartbeat, run.evidence, now)
        if judgement.hung:
            self._hung(run, judgement)
            return
        if self.state is State.UNHEALTHY:
            self._up(judgement.reason)
        if judgement.look_at is not None:
            self._timers.set("watch", judgement.look_at - now, self._watch, late=self._stood_still)

    def _stood_still(self) -> None:
        """The look is late: we, or the host, stood still. Hear what was said meanwhile before judging."""
        self._timers.set("watch", STOOD_STILL_S, self._watch)

    def _hung(self, run: Run, judgement: Judgement) -> None:
        now = self._system.now()
        where = self._system.blocked_in(run.process)
        reason = judgement.reason + (f"; the kernel has it in {where}" if where else "")
        hold = restart.hang_hold(self.agent.restart, self._hang_restart, now)
        if not run.hung_told:
            run.hung_told = True
            run.silent_s = round(judgement.silent_s, 3)
            self._become(State.UNHEALTHY, reason)
            self._tell.hung(run, judgement, reason, self.capture.tail())
            self._around.say(f"{self.name}: {reason}")
        if self.agent.restart.when == "never":
            self._timers.set("watch", self.agent.heartbeat.every, self._watch)
        elif hold > 0:
            # the last restart did not cure it; the next one waits for the cooldown
            self._timers.set("watch", hold, self._watch)
        else:
            self._hang_restart = now
            run.wish, run.wish_reason = Wish.HUNG, reason
            self._end(run, grace=None, dump=True)

    def _over_time(self) -> None:
        run, wall = self.run, self.agent.limits.wall
        if run is not None and run.wish is None and wall is not None:
            run.wish = Wish.WALL
            run.wish_reason = f"ran past its limit of {units.show_duration(wall)}"
            self._become(State.DRAINING, run.wish_reason)
            self._end(run, grace=self.agent.limits.stop_grace)

    # -- ending ------------------------------------------------------------------------------

    def finish(self, wish: Wish, reason: str, *, kill: bool = False) -> bool:
        """End the run because somebody wants it; tell whether there is one. `ended` hears of it."""
        run = self.run
        if run is None:
            return False
        # what a person decided is kept before the agent has ended, so that our own end in between,
        # in good order or by kill -9, does not take it back
        if run.wish is not Wish.KILL and not (wish is Wish.SHUTDOWN and run.wish in HOLDS):
            run.wish, run.wish_reason = wish, reason
            self._keep_hold(HOLDS.get(wish), reason)
        self._become(State.DRAINING, reason)
        self._end(run, grace=None if kill else self.agent.limits.stop_grace)
        return True

    def shut_down(self) -> None:
        """The instance stops: end the run, start nothing again, hold nothing."""
        self._shutting_down = True
        self._timers.cancel()
        if self._timetable is not None:
            self._timetable.cancel()
        if (
            not self.finish(Wish.SHUTDOWN, "stopped together with Midwatch")
            and self.state not in HELD
        ):
            self._become(State.STOPPED, "stopped together with Midwatch")

    def kill(self) -> None:
        """End whatever still lives, without grace."""
        if self.run is not None:
            self._end(self.run, grace=None)

    def _end(self, run: Run, *, grace: float | None, dump: bool = False) -> None:
        if self._ending is not None:
            self._ending.hasten(grace)
        else:
            self._ending = Ending(
                self._system,
                run.process,
                grace_s=grace,
                dump=dump,
                note=self._around.say,
                name=self.name,
            )

    def _exited(self, exit_: Exit) -> None:
        self._around.hear_now(self.name)  # what it said before its end counts
        run = self.run
        if run is None:
            return
        self.run = None
        if self._ending is not None:
            self._ending.over()
            self._ending = None
        self._timers.cancel()
        facts = run.facts(
            exit_,
            self._system.now(),
            limit=self.agent.limits.memory,
            tail=self.capture.tail(),
            long_lived=self.agent.schedule is None,
            oom_kills=self._system.oom_kills(),
        )
        chase(self._system, run.process)
        self._follow(classify(facts), run.run_id, exit_, run, facts)

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
        decision = restart.decide(
            self.agent.restart,
            verdict,
            failures=self.failures,
            ran_s=ran,
            jitter=self._around.random(),
        )
        wish = run.wish if run else None
        if self._shutting_down:
            decision = Decision(Next.STOP, verdict.reason, 0.0, self.failures)
        elif wish is Wish.RESTART:
            decision = Decision(Next.RESTART, verdict.reason, 0.0, 0)
        self.failures = decision.failures
        self._around.journal.ended(self.name, self.failures)
        self._tell.ended(verdict, decision, run_id, exit_, run, facts)
        self._around.say(f"{self.name}: {decision.reason}")
        self._settle(verdict, decision, wish)
        waiting, self.ended = self.ended, []
        for tell in waiting:
            tell()

    def _settle(self, verdict: Verdict, decision: Decision, wish: Wish | None) -> None:
        if decision.next is Next.RESTART:
            self.restarts += 1
            why = (
                f"restart after: {verdict.reason}"
                if verdict.end is not End.OPERATOR
                else verdict.reason
            )
            if decision.delay_s <= 0:
                self.start(why)
                return
            self.next_start_at = self._system.wall() + decision.delay_s
            self._become(State.BACKING_OFF, decision.reason)
            self._timers.set("start", decision.delay_s, lambda: self.start(why))
        elif decision.next is Next.PARK:
            self._hold(State.PARKED, decision.reason)
            self._around.say(
                f"{self.name}: parked; a person is needed: `midwatch start {self.name}` when it is repaired"
            )
            self._arm_schedule()
        elif wish is not None and wish in HOLDS:
            self._hold(HOLDS[wish], verdict.reason)
        elif self.agent.schedule is not None and not self._shutting_down:
            self._between_runs()
        else:
            self._become(State.STOPPED, verdict.reason)

    # -- what a person wants -----------------------------------------------------------------

    def release(self, why: str) -> None:
        """Start, whatever held the agent; failures are forgiven."""
        if self._shutting_down:
            return
        self._timers.cancel("start")
        self.failures = 0
        self._hang_restart = None
        self._keep_hold(None)
        self.start(why)
        self._arm_schedule()

    def hold(self, state: State, reason: str) -> None:
        """Stay in `state` until a person says otherwise. There must be no process."""
        self._timers.cancel("start")
        self.next_start_at = None
        self._hold(state, reason)

    def _hold(self, state: State, reason: str) -> None:
        self._keep_hold(state, reason)
        self._become(state, reason)

    def _keep_hold(self, state: State | None, reason: str = "") -> None:
        entry = self._around.fingerprint(self.agent) if state else ""
        told = reason if state else ""
        self._around.journal.hold(self.name, state, told, self._system.wall(), entry)

    # -- schedule ----------------------------------------------------------------------------

    def _between_runs(self) -> None:
        self._arm_schedule()
        at = self.next_start_at
        when = (
            f"next run in {units.show_duration(at - self._system.wall())}"
            if at
            else "its schedule never fires again"
        )
        self._become(State.SCHEDULED if at else State.STOPPED, when)

    def _arm_schedule(self) -> None:
        if self._timetable is not None and not self._shutting_down:
            self._timetable.arm()
            if self.run is None:
                self.next_start_at = self._timetable.next_at

    def _fire(self, firing: schedule.Firing) -> None:
        """The schedule is due. A parked agent gets its next chance, a held one does not."""
        if self.run is not None:
            skipped = "the last run still works"
        elif (
            self.state in (State.STOPPED, State.SUSPENDED)
            and self._around.journal.of(self.name).held
        ):
            skipped = f"it is {self.state}"
        else:
            self.release(firing.reason)
            return
        self._tell.event("schedule.skipped", {"reason": skipped, "due_at": firing.at})
        self._around.say(f"{self.name}: a scheduled run was skipped: {skipped}")

    # -- telling -----------------------------------------------------------------------------

    def _become(self, state: State, reason: str) -> None:
        if state is self.state and reason == self.reason:
            return
        if not may_follow(self.state, state):
            self.odd_edges += 1
        self.state, self.reason, self.since = state, reason, self._system.wall()
        self._tell.state(state, self.since, reason, self.run, self.failures + 1, self.next_start_at)

    @property
    def alive(self) -> bool:
        return self.state in ALIVE


def _way_out(held: str) -> str:
    return "resume" if held == State.SUSPENDED else "start"
