"""Duties: what a keeper looks after while a run lives, one concern each.

A keeper holds the states; a duty watches one thing about the run (its progress, its limits, its
children, its terminal, its output), decides by `core`, and asks at the helm for what follows. Each
lives as long as its keeper and is told of every run; no duty knows another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from midwatch.core.exits import Wish
from midwatch.core.fleet import Agent
from midwatch.core.states import State
from midwatch.supervisor.machine.system import Exit, Sample, System
from midwatch.supervisor.output.capture import Capture
from midwatch.supervisor.run import Run
from midwatch.supervisor.telling import Telling
from midwatch.supervisor.timers import Timers
from midwatch.wire.notify import Notice


class Helm(Protocol):
    """What a duty may know of its keeper, and ask it for."""

    @property
    def name(self) -> str: ...
    @property
    def agent(self) -> Agent: ...
    @property
    def state(self) -> State: ...
    @property
    def run(self) -> Run | None: ...
    @property
    def system(self) -> System: ...
    @property
    def timers(self) -> Timers:
        """Cancelled when the run ends; names are shared by all duties of a keeper."""
        ...

    @property
    def tell(self) -> Telling: ...
    @property
    def capture(self) -> Capture: ...
    @property
    def say(self) -> Callable[[str], None]: ...

    def become(self, state: State, reason: str) -> None:
        """Change the state and tell."""
        ...

    def up(self, how: str) -> None:
        """There is a sign of life: back to running from starting, unhealthy or waiting."""
        ...

    def look(self, run: Run) -> None:
        """Take a sample now, between the regular ones, and tell every duty."""
        ...

    def hear_now(self) -> None:
        """Read what the agent has said until now."""
        ...

    def weigh(self, done: Callable[[int | None], None]) -> None:
        """Measure the bytes in the directory that is the agent's own, aside; `done` is called later in
        the loop's thread, with None when there is no such directory or it could not be read whole."""
        ...

    def end(
        self, run: Run, wish: Wish, reason: str, *, grace_s: float | None, dump: bool = False
    ) -> None:
        """End the run for this reason, unless somebody did already. `grace_s` None: at once;
        `dump`: let a Python process print its stacks first."""
        ...


class Duty:
    """One concern. Every method is called in the loop's thread and returns at once."""

    def __init__(self, helm: Helm) -> None:
        self.helm = helm

    def begin(self, run: Run) -> None:
        """A run has just been started."""

    def heard(self, run: Run, notice: Notice, *, first_beat: bool) -> None:
        """The agent said something; `run.evidence` knows it already."""

    def printed(self, run: Run, count: int) -> None:
        """The agent printed `count` bytes."""

    def typed(self, run: Run, by: str) -> None:
        """Somebody (`by`) sent input to its terminal."""

    def sampled(self, run: Run, sample: Sample, now: float) -> None:
        """A sample was taken, regular or not; `run` holds it already."""

    def glanced(self, run: Run, sample: Sample, now: float) -> None:
        """A light sample was taken, each second, for hard limits alone; `run` does not hold it."""

    def over(self, run: Run, exit_: Exit) -> None:
        """The run has ended; its process is a zombie or gone, its timers are cancelled next."""

    def resumed(self, run: Run) -> None:
        """The run goes on after a suspension, during which the timers were off and nothing was judged."""

    def released(self) -> None:
        """A person started the agent: what earlier runs did is forgiven."""
