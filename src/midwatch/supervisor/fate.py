"""What becomes of an agent whose run has ended: the rules' memory, and a moment's doubt before a verdict.

A machine that goes down, or a session that is closed, sends SIGTERM to everything at once; the
supervisor may hear that its agent has died before it hears that it is to stop itself. An end by such
a signal, which nobody here asked for, is therefore judged a moment later: if we are told to stop
meanwhile it was part of that, and no failure. Every other end is judged at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from midwatch.core import restart
from midwatch.core.exits import Facts, Verdict, Wish, is_stop_signal
from midwatch.core.restart import NO_FAILURE, Decision, Streak
from midwatch.core.terms import Restart
from midwatch.supervisor.journal import Journal, Record
from midwatch.supervisor.machine.system import System, Timer

DOUBT_S: Final = 1.0
"""How long an end by an outside signal waits for the rest of the shutdown that it may belong to."""


class Fate:
    """The memory of one agent's failures in a row, and at most one end that is not judged yet."""

    def __init__(
        self, name: str, system: System, journal: Journal, random: Callable[[], float]
    ) -> None:
        self.streak = NO_FAILURE
        self._name = name
        self._system = system
        self._journal = journal
        self._random = random
        self._pending: Callable[[Wish | None, str], None] | None = None
        self._timer: Timer | None = None

    def remember(self, record: Record) -> None:
        """Take up the streak where an earlier supervisor left it."""
        self.streak = Streak.of(record.streak, record.failures)

    def decide(self, rules: Restart, verdict: Verdict, *, failures: int, ran_s: float) -> Decision:
        """Return what the rules say about an end. No `failures`: whatever there was is forgiven."""
        streak = self.streak if failures else NO_FAILURE
        jitter = self._random()
        return restart.decide(
            rules, verdict, failures=failures, ran_s=ran_s, jitter=jitter, streak=streak
        )

    def sealed(self, decision: Decision) -> None:
        """The decision stands: keep what the next one needs."""
        self.streak = decision.streak if decision.failures else NO_FAILURE
        self._journal.ended(self._name, decision.failures, self.streak.to_json())

    # -- doubt -------------------------------------------------------------------------------

    def judge(self, facts: Facts, follow: Callable[[Facts], None]) -> None:
        """Hand the facts of an end to `follow`, at once or when the doubt is over."""
        if not is_stop_signal(facts) or facts.host_stops:
            follow(facts)
            return

        def settled(wish: Wish | None, reason: str) -> None:
            follow(replace(facts, wish=wish, wish_reason=reason) if wish else facts)

        self._pending = settled
        self._timer = self._system.call_at(self._system.now() + DOUBT_S, self.settle)

    def settle(self, wish: Wish | None = None, reason: str = "") -> None:
        """End the doubt: with what is wanted now, or, without a wish, by what the run left behind."""
        pending, self._pending = self._pending, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if pending is not None:
            pending(wish, reason)
