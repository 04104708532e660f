"""Holds a run to its limits where the operating system does not, and warns before it gets there.

Memory and open files are followed by a gauge each: a warning, a forecast when they leak, a planned
restart at the soft limit. At a hard limit the tree is killed and the limit is named.
"""

from __future__ import annotations

import resource
from typing import Any, Final, Literal

from midwatch.core import trends, units
from midwatch.core.bounds import Excess, refused_write, too_many
from midwatch.core.exits import Wish
from midwatch.core.gauge import Gauge, Reading
from midwatch.core.states import State
from midwatch.supervisor.duty import Duty, Helm
from midwatch.supervisor.machine.system import Exit, Sample
from midwatch.supervisor.planned import Planned
from midwatch.supervisor.run import Run
from midwatch.wire.notify import Notice

FIRST_LOOK_S: Final = 0.5
"""When a run with a memory limit is sampled first."""

FULL_HOLD_S: Final = 10.0
"""A run that has all its files open for so long does no work any more."""

EXACT_S: Final = 5.0
"""For how long an exact measure of memory serves: it takes 15 ms for each GiB."""

FASTEST_SPAN_S: Final = 0.1
"""The shortest distance of samples for the sake of a trend."""

Resource = Literal["memory", "open_files"]


class Limits(Duty):
    def __init__(self, helm: Helm) -> None:
        super().__init__(helm)
        self._planned = Planned(helm)
        self._gauges: dict[Resource, Gauge] = {}
        self._before: tuple[float, int] | None = None
        """The last count of open files, and when."""
        self._exact: tuple[float, int, int] | None = None
        """The last exact measure of memory: when, what it was by the sample, what it is."""

    def begin(self, run: Run) -> None:
        limits = self.helm.agent.limits
        self._before = self._exact = None
        self._gauges = {}
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

    def sampled(self, run: Run, sample: Sample, now: float) -> None:
        run.oom_kills = self.helm.system.oom_kills(max_age_s=1.0)
        self._look_again(run, sample, now)
        self.glanced(run, sample, now)

    def glanced(self, run: Run, sample: Sample, now: float) -> None:
        if run.wish is not None or sample.rss_bytes == 0:
            return
        agent = self.helm.agent
        excess = too_many(agent.limits, 1 + sample.children, sample.threads)
        if excess is not None:
            self.stop(run, excess)
            return
        for name, gauge in self._gauges.items():
            gauge.terms = agent.limits
            used = (
                sample.open_files if name == "open_files" else self._memory(run, sample, gauge, now)
            )
            if name == "memory" and used >= gauge.limit:
                if run.sample is not sample:
                    run.take(sample, now)  # a glance; the end is to be explained by it
                self.helm.end(run, Wish.MEMORY, "killed at its memory limit", grace_s=None)
                return
            self._follow(run, name, gauge, gauge.take(now, used), now)

    def stop(self, run: Run, excess: Excess) -> None:
        """Kill the tree that is over a hard limit, and say which."""
        self.helm.tell.excess(run, excess, "killed")
        self.helm.say(f"{self.helm.name}: {excess.reason}; killing its tree")
        self.helm.end(run, Wish.LIMIT, excess.reason, grace_s=None)

    def _look_again(self, run: Run, sample: Sample, now: float) -> None:
        """The regular sample is soon enough for who is far from every limit."""
        limits = self.helm.agent.limits
        pause = trends.next_look(run.history, limits.memory, now - run.started)
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

    def _memory(self, run: Run, sample: Sample, gauge: Gauge, now: float) -> int:
        """Return the memory of the tree; with pages that it shares counted once where that matters.

        Nothing is said to be at its limit by an old measure."""
        used = sample.rss_bytes
        if not sample.children or not gauge.near(used):
            return used
        if self._exact is not None:
            at, sampled, exact = self._exact
            guess = min(used, exact + max(0, used - sampled))
            if now - at < EXACT_S and not gauge.near(guess):
                return guess
        measured = self.helm.system.footprint(run.process)
        if measured is None:
            return used
        self._exact = (now, used, measured)
        return min(measured, used)

    def _follow(self, run: Run, name: Resource, gauge: Gauge, reading: Reading, now: float) -> None:
        words = _words(name, reading)
        if reading.stage == "full" and not gauge.warned:
            self.helm.tell.excess(run, Excess(name, reading.used, reading.limit, words), "refused")
        elif reading.stage is not None:
            self._tell(run, name, reading, str(reading.stage), words)
        if reading.stage in ("near", "forecast", "full"):
            self.helm.say(f"{self.helm.name}: {words}")
        if reading.restart or (reading.full_s(now) >= FULL_HOLD_S and gauge.warned):
            self._planned.ask(run, words, lambda: self._tell(run, name, reading, "restart", words))
        elif reading.full_s(now) >= FULL_HOLD_S and self.helm.agent.restart.when != "never":
            grace_s = self.helm.agent.limits.stop_grace
            self.helm.become(State.DRAINING, words)
            self.helm.end(run, Wish.LIMIT, words, grace_s=grace_s)

    def _tell(self, run: Run, name: Resource, reading: Reading, stage: str, words: str) -> None:
        leak = reading.leak
        data: dict[str, Any] = {
            "run_id": run.run_id,
            "resource": name,
            "stage": stage,
            "used": reading.used,
            "limit": reading.limit,
            "per_hour": round(leak.per_hour) if leak else None,
            "reaches_at": self.helm.system.wall() + leak.reaches_in_s if leak else None,
            "seen_s": leak.seen_s if leak else None,
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


def _words(name: Resource, reading: Reading) -> str:
    share = f"{min(100.0, 100 * reading.share):.0f} %"
    if name == "memory":
        return f"memory is at {share} of limits.memory ({units.show_size(reading.limit)})"
    return f"{reading.used:,} open files, {share} of limits.open_files ({reading.limit:,})"


def _most_files() -> int:
    """Return the bound that no limit of ours can raise."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard if hard != resource.RLIM_INFINITY else 1 << 30
