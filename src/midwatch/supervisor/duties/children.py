"""Looks after the children of a run: tells when they pile up, and ends those over their time to live.

While the run lives, children in sessions of their own are nobody's business but the agent's. What
outlives the run is another matter (`leftovers`). A sub-agent that was declared with a time of its own
(`ttl_s`, `outlive`) has that one, with all that it started; every other child has `children.ttl`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from midwatch.core.children import Pileup, expired, named, pile_of
from midwatch.core.descent import place
from midwatch.core.units import show_duration
from midwatch.supervisor.duty import Duty, Helm
from midwatch.supervisor.machine.system import Member, Sample
from midwatch.supervisor.run import Run

LOOK_S: Final = 10.0
"""The longest time between two looks at the ages of children, while there are any."""

SOONEST_S: Final = 0.2
"""The shortest."""

CALM_S: Final = 600.0
"""Children over their time count as over when none followed for one more such time, or for this long."""

SECOND_LOOK_S: Final = 1.0
"""When a count that is too high is looked at again."""


class Children(Duty):
    def __init__(self, helm: Helm) -> None:
        super().__init__(helm)
        self._pileup = Pileup()
        self._looking = False
        self._killed: float | None = None
        """When children over their time were last stopped, until that is over."""
        self._slept: dict[tuple[int, float], float] = {}
        """By child, how long the host had slept when it was first seen: what came after is no age."""

    def begin(self, run: Run) -> None:  # noqa: ARG002
        self._pileup = Pileup()
        self._looking = False
        self._slept = {}
        self._killed = None

    def sampled(self, run: Run, sample: Sample, now: float) -> None:
        if run.wish is not None:
            return
        terms = self.helm.agent.children
        if terms.ttl is not None and sample.children and not self._looking:
            self._look_in(run, min(LOOK_S, terms.ttl / 2))
        pile = pile_of(terms, self.helm.agent.limits, sample.children, sample.zombies)
        told = self._pileup.take(pile, now)
        if told is not None:
            data = {
                "stage": told,
                "children": pile.children,
                "zombies": pile.zombies,
                "bound": pile.bound,
                "reason": pile.reason or "its children are few again",
            }
            self._tell(run, data)
        elif self._calm(now):
            self._killed = None
            self._tell(run, {"stage": "over", "reason": "no other child went over its time"})
        elif pile.reason and self._pileup.doubts:
            self.helm.timers.set("second", SECOND_LOOK_S, lambda: self.helm.look(run))

    def glanced(self, run: Run, sample: Sample, now: float) -> None:
        self.sampled(run, sample, now)

    def _calm(self, now: float) -> bool:
        """Tell whether children over their time were told of, and that is over."""
        if self._killed is None or self._pileup.told or self._pileup.doubts:
            return False
        ttl = self.helm.agent.children.ttl or 0.0
        return now - self._killed >= min(CALM_S, max(LOOK_S, ttl))

    def _look_in(self, run: Run, seconds: float) -> None:
        self._looking = True
        self.helm.timers.set("ttl", max(SOONEST_S, seconds), lambda: self._look(run))

    def _look(self, run: Run) -> None:
        """End the children that are too old, and come back when the next one will be."""
        self._looking = False
        ttl = self.helm.agent.children.ttl
        if self.helm.run is not run or run.wish is not None or ttl is None:
            return
        own = self._own(run)
        count, following = expired((m.age_s for m in own), ttl)
        if count:
            self.helm.hear_now()  # it may just have said that one of them is a sub-agent
            own = self._plain(run, own)
            count, following = expired((m.age_s for m in own), ttl)
        if count:
            killed = [m for m in own if m.age_s >= ttl and self.helm.system.kill_member(m)]
            if killed:
                self._killed = self.helm.system.now()
                self._tell_killed(run, killed, ttl)
        if own or run.kin:
            self._look_in(run, min(LOOK_S, following if following is not None else LOOK_S))

    def _own(self, run: Run) -> list[Member]:
        """Return the living ones, by the time that they were awake; the walls around a sandboxed agent
        are not among them."""
        members = self.helm.system.members(run.process)
        own = {(m.pid, m.started): m for m in members if m.state not in ("Z", "X")}
        asleep = self.helm.system.asleep()
        self._slept = {key: self._slept.get(key, asleep) for key in own}
        return [replace(m, age_s=m.age_s - asleep + self._slept[key]) for key, m in own.items()]

    def _plain(self, run: Run, members: list[Member]) -> list[Member]:
        """Return those that are of no sub-agent with a time of its own."""
        placed = place(members, run.kin.values())
        return [m for m in members if m.pid not in placed or not placed[m.pid].own_time]

    def _tell_killed(self, run: Run, killed: list[Member], ttl: float) -> None:
        noun = "child" if len(killed) == 1 else "children"
        words = f"{len(killed):,} {noun} older than children.ttl, {show_duration(ttl)}"
        self._tell(
            run,
            {
                "stage": "killed",
                "killed": len(killed),
                "oldest_s": round(max(m.age_s for m in killed), 1),
                "ttl_s": ttl,
                "processes": named([(m.pid, m.name, m.age_s, m.session) for m in killed]),
                "reason": words,
            },
        )
        self.helm.say(f"{self.helm.name}: stopped {words}")

    def _tell(self, run: Run, data: dict[str, Any]) -> None:
        self.helm.tell.event("run.children", {"run_id": run.run_id, **data}, run.run_id)
