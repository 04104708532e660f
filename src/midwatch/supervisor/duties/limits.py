"""Holds a run to its limits where the operating system does not, and warns before it gets there.

Memory and open files are followed by a gauge each: a warning, a forecast when they leak, a planned
restart at the soft limit. At a hard limit the tree is killed and the limit is named. Memory is judged
in three ways: by the sum of resident sizes where that is plain, by a fresh exact measure where it is
not, and not at all while that is on its way (`core.footprint`).
"""

from __future__ import annotations

import math
import resource
from typing import Any, Final, Literal

from midwatch.core import footprint, trends, units
from midwatch.core.bounds import Excess, refused_write, too_many
from midwatch.core.exits import Wish
from midwatch.core.fleet import Agent
from midwatch.core.footprint import Measure
from midwatch.core.gauge import Gauge, Reading
from midwatch.core.softlimit import SoftLimit
from midwatch.core.states import State
from midwatch.supervisor.duty import Duty, Helm
from midwatch.supervisor.machine.system import Exit, Sample
from midwatch.supervisor.planned import Planned
from midwatch.supervisor.run import Run
from midwatch.wire.notify import Notice

FIRST_LOOK_S: Final = 0.5
"""When a run with a memory limit is sampled first."""

GLANCED_S: Final = 1.0
"""How often a run that we alone hold to its memory is glanced at, at least (`supervisor.sampling`)."""

FULL_HOLD_S: Final = 10.0
"""A run that has all its files open for so long does no work any more."""

FASTEST_SPAN_S: Final = 0.1
"""The shortest distance of samples for the sake of a trend."""

Resource = Literal["memory", "open_files"]


class Limits(Duty):
    def __init__(self, helm: Helm) -> None:
        super().__init__(helm)
        self._planned = Planned(helm)
        self._gauges: dict[Resource, Gauge] = {}
        self._soft: dict[Resource, SoftLimit] = {"memory": SoftLimit(), "open_files": SoftLimit()}
        self._needs_told: set[Resource] = set()
        self._entry: Agent | None = None
        """The entry under which planned restarts are counted."""
        self._before: tuple[float, int] | None = None
        """The last count of open files, and when."""
        self._glance: tuple[float, int] | None = None
        """The last glance at memory."""
        self._measure: Measure | None = None
        self._asked: tuple[float, int] | None = None
        """A measure is on its way: since when, and what was resident then."""
        self._sum_until = 0.0
        """Until when the sum of resident sizes is all there is."""

    def begin(self, run: Run) -> None:
        limits = self.helm.agent.limits
        self._before = self._glance = self._measure = self._asked = None
        self._sum_until = 0.0
        self._gauges = {}
        self._needs_told.clear()
        for soft in self._soft.values():
            soft.begin(run.started)
            if self._entry != self.helm.agent:
                soft.forget()
        self._entry = self.helm.agent
        if limits.memory is not None:
            self._gauges["memory"] = Gauge(limits.memory, limits, run.started, refused=False)
            self.helm.timers.set("look", FIRST_LOOK_S, lambda: self.helm.look(run))
        if limits.open_files is not None:
            bound = min(limits.open_files, _most_files())
            self._gauges["open_files"] = Gauge(bound, limits, run.started, refused=True)
        if limits.wall:
            self.helm.timers.set("wall", limits.wall, lambda: self._over_time(run))

    def heard(self, run: Run, notice: Notice, *, first_beat: bool) -> None:  # noqa: ARG002
        self._planned.heard(notice)

    def over(self, run: Run, exit_: Exit) -> None:
        self._planned.over()
        limits = self.helm.agent.limits
        if run.wish is None and (exit_.code or exit_.signal):
            excess = refused_write(limits, exit_.code, exit_.signal, self.helm.capture.tail())
            if excess is not None:
                run.wish, run.wish_reason = Wish.LIMIT, excess.reason

    def released(self) -> None:
        self._planned.released()
        for soft in self._soft.values():
            soft.forget()

    def sampled(self, run: Run, sample: Sample, now: float) -> None:
        run.oom_kills = self.helm.system.oom_kills(max_age_s=1.0)
        self._look_again(run, sample, now)
        self._judge(run, sample, now)

    def glanced(self, run: Run, sample: Sample, now: float) -> None:
        self._race(run, sample, now)
        self._judge(run, sample, now)

    def _judge(self, run: Run, sample: Sample, now: float) -> None:
        if run.wish is not None or sample.rss_bytes == 0:
            return
        agent = self.helm.agent
        excess = too_many(agent.limits, 1 + sample.children, sample.threads)
        if excess is not None:
            self.stop(run, excess)
            return
        for name, gauge in self._gauges.items():
            gauge.terms = agent.limits
            if name == "open_files":
                self._follow(run, name, gauge, gauge.take(now, sample.open_files), now)
            else:
                self._weigh(run, sample, gauge, now)

    def stop(self, run: Run, excess: Excess) -> None:
        """Kill the tree that is over a hard limit, and say which."""
        self.helm.tell.excess(run, excess, "killed")
        self.helm.say(f"{self.helm.name}: {excess.reason}; killing its tree")
        self.helm.end(run, Wish.LIMIT, excess.reason, grace_s=None)

    def _look_again(self, run: Run, sample: Sample, now: float) -> None:
        """The regular sample is soon enough for who is far from every limit; and glances tell of who races there."""
        limits, age_s = self.helm.agent.limits, now - run.started
        if age_s >= GLANCED_S and self.helm.system.enforcement(run.process)["memory"] == "sampling":
            age_s = trends.SAMPLE_EVERY_S
        pause = trends.next_look(run.history, limits.memory, age_s)
        files = self._gauges.get("open_files")
        if files is not None:
            points = [] if self._before is None else [self._before]
            points.append((now, sample.open_files))
            pause = min(pause, trends.next_look(points, files.limit, trends.SAMPLE_EVERY_S))
            self._before = points[-1]
        if self._gauges:
            pause = min(pause, max(FASTEST_SPAN_S, limits.leak_after / trends.SPANS / 2))
        if pause < trends.SAMPLE_EVERY_S:
            self.helm.timers.set("look", pause, lambda: self.helm.look(run))

    def _race(self, run: Run, sample: Sample, now: float) -> None:
        """Look sooner at a run that will be at its limit before we glance at it often enough.

        Who had not changed is not told of: what it has grown by since, it has within one glance's time."""
        limit = self.helm.agent.limits.memory
        if limit is None or not run.history or not sample.rss_bytes or run.wish is not None:
            return
        before, self._glance = self._glance, (now, sample.rss_bytes)
        when, used = max(before or (0.0, 0), run.history[-1])
        points = [(max(when, now - GLANCED_S), used), self._glance]
        pause = trends.next_look(points, limit, trends.SAMPLE_EVERY_S)
        if pause < GLANCED_S:
            run.take(sample, now)  # or the look would find the growth of a second spread over ten
            self.helm.timers.set("look", pause, lambda: self.helm.look(run))

    def _weigh(
        self, run: Run, sample: Sample, gauge: Gauge, now: float, *, fresh: bool = False
    ) -> None:
        """Judge the memory of the tree, or have it measured first."""
        used: int | None = sample.rss_bytes
        if sample.children and now >= self._sum_until:
            choice = footprint.weigh(
                used, near=gauge.near, limit=gauge.limit, last=self._measure, now=now, fresh=fresh
            )
            used = choice.used
            if choice.measure and self._asked is None:
                self._ask(run, sample.rss_bytes, now)
        if used is None or run.wish is not None:
            return
        if used >= gauge.limit:
            if run.sample is not sample:
                run.take(sample, now)  # a glance; the end is to be explained by it
            self.helm.end(run, Wish.MEMORY, "killed at its memory limit", grace_s=None)
            return
        self._follow(run, "memory", gauge, gauge.take(now, used), now)

    def _ask(self, run: Run, resident: int, now: float) -> None:
        self._asked = (now, resident)
        self._wait(run, resident)
        self.helm.system.footprint(run.process, lambda exact: self._measured(run, exact))

    def _wait(self, run: Run, resident: int) -> None:
        self.helm.timers.set(
            "footprint",
            footprint.patience_s(resident),
            lambda: self._give_up(run),
            late=lambda: self._wait(run, resident),  # we stood still, and so did the measuring
        )

    def _measured(self, run: Run, exact: int | None) -> None:
        """Judge by a measure at once: it is true now, and not for long."""
        helm, now = self.helm, self.helm.system.now()
        if helm.run is not run or self._asked is None:
            return
        began, resident = self._asked
        self._asked = None
        helm.timers.cancel("footprint")
        self._sum_until = 0.0 if exact is not None else now + footprint.LASTS_S
        self._measure = None if exact is None else Measure(began, now, resident, exact)
        self._judge_now(run, now)

    def _give_up(self, run: Run) -> None:
        """The measure is not to be had in time: the sum is all there is until it comes."""
        self._sum_until = math.inf
        self.helm.say(
            f"{self.helm.name}: which memory its processes share cannot be measured in time; judged by "
            "the sum of their resident sizes"
        )
        self._judge_now(run, self.helm.system.now())

    def _judge_now(self, run: Run, now: float) -> None:
        gauge = self._gauges.get("memory")
        sample = self.helm.system.sample([run.process], light=True).get(run.process.pid)
        if gauge is not None and sample is not None and sample.rss_bytes and run.wish is None:
            self._weigh(run, sample, gauge, now, fresh=True)

    def _follow(self, run: Run, name: Resource, gauge: Gauge, reading: Reading, now: float) -> None:
        words = _words(name, reading)
        if reading.stage == "full" and not gauge.warned:
            self.helm.tell.excess(run, Excess(name, reading.used, reading.limit, words), "refused")
        elif reading.stage is not None:
            self._tell(run, name, reading, str(reading.stage), words, now)
        if reading.stage in ("near", "forecast", "full"):
            self.helm.say(f"{self.helm.name}: {words}")
        self._restart(run, name, gauge, reading, now)

    def _restart(
        self, run: Run, name: Resource, gauge: Gauge, reading: Reading, now: float
    ) -> None:
        """Restart the run as planned where that helps; stop it where it can open nothing any more."""
        helm, soft = self.helm, self._soft[name]
        stays = soft.take(now, reading.used, gauge.limit, gauge.terms) is not None
        full = reading.full_s(now) >= FULL_HOLD_S
        leaks = reading.restart and reading.leak is not None
        due = stays or reading.restart or (full and gauge.warned)
        words = _words(name, reading, soft.above_s(now) if stays else 0.0)

        def told() -> None:
            if not leaks:
                soft.restarted()
            self._tell(run, name, reading, "restart", words, now)

        if leaks or (due and not soft.spent):
            self._planned.ask(run, words, told)
        elif full and helm.agent.restart.when != "never":
            helm.become(State.DRAINING, words)
            helm.end(run, Wish.LIMIT, words, grace_s=helm.agent.limits.stop_grace)
        elif due and name not in self._needs_told:
            self._needs_told.add(name)
            self._tell(run, name, reading, "needs", words, now)
            helm.say(
                f"{helm.name}: {words}; {soft.tries} planned restarts did not change that: limits.{name}"
                " is below what it needs; not restarted for this again"
            )

    def _tell(
        self, run: Run, name: Resource, reading: Reading, stage: str, words: str, now: float
    ) -> None:
        leak, soft = reading.leak, self._soft[name]
        data: dict[str, Any] = {
            "run_id": run.run_id,
            "resource": name,
            "stage": stage,
            "used": reading.used,
            "limit": reading.limit,
            "per_hour": round(leak.per_hour) if leak else None,
            "reaches_at": self.helm.system.wall() + leak.reaches_in_s if leak else None,
            "seen_s": leak.seen_s if leak else None,
            "above_s": round(soft.above_s(now)) or None,
            "tries": soft.tries or None,
            "reason": words,
        }
        self.helm.tell.event("run.leaking", data, run.run_id)

    def _over_time(self, run: Run) -> None:
        limits = self.helm.agent.limits
        if run.wish is None and limits.wall is not None:
            reason = f"ran past its limit of {units.show_duration(limits.wall)}"
            ran = int(self.helm.system.now() - run.started)
            self.helm.tell.excess(run, Excess("wall", ran, int(limits.wall), reason), "draining")
            self.helm.become(State.DRAINING, reason)
            self.helm.end(run, Wish.WALL, reason, grace_s=limits.stop_grace)


def _words(name: Resource, reading: Reading, above_s: float = 0.0) -> str:
    share = f"{min(100.0, 100 * reading.share):.0f} %"
    stays = f", over its soft limit for {units.show_duration(above_s)}" if above_s else ""
    if name == "memory":
        return f"memory is at {share} of limits.memory ({units.show_size(reading.limit)}){stays}"
    return f"{reading.used:,} open files, {share} of limits.open_files ({reading.limit:,}){stays}"


def _most_files() -> int:
    """Return the bound that no limit of ours can raise."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard if hard != resource.RLIM_INFINITY else 1 << 30
