"""What an agent runs as, and by which right: its lease, its version, and the trial of a changed entry.

The keeper asks before a start (is the agent ours?), after one (what was it made of?) and at an end (was
the entry at fault?). Without leases and versions, as in tests, every answer is yes, nothing, no.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from midwatch.core import versions as decisions
from midwatch.core.exits import End, Verdict
from midwatch.core.restart import Decision, Next
from midwatch.core.states import State
from midwatch.supervisor.change.lease import RETRY_S, Holder
from midwatch.supervisor.surroundings import Surroundings

if TYPE_CHECKING:
    from midwatch.supervisor.keeper import Keeper


class Tenure:
    """The rights of one agent."""

    def __init__(self, keeper: Keeper, around: Surroundings) -> None:
        self.drift: list[str] = []
        """What differs between what runs and what the file says, in sentences."""
        self.note = ""
        """Why it runs another entry than the file's."""
        self._keeper = keeper
        self._around = around
        self._elsewhere: Holder | None = None

    def choose(self) -> None:
        """At the beginning: an entry that was taken back is not tried again before the file is changed."""
        versions, keeper = self._around.versions, self._keeper
        if versions is None:
            return
        agent, self.note = versions.instead(keeper.name, keeper.agent)
        if self.note:
            keeper.take(agent)
            keeper.say(f"{keeper.name}: {self.note}")

    def admitted(self, why: str) -> bool:
        """Tell whether the agent may be started here; else say who has it, and ask again later."""
        leases, keeper = self._around.leases, self._keeper
        if leases is None:
            return True
        now = keeper.system.wall()
        holder = leases.take(keeper.name, keeper.agent, now)
        if holder is None:
            self._elsewhere = None
            return True
        keeper.timers.set("start", RETRY_S, self._again(why))
        known = self._elsewhere
        if known is not None and known == holder and keeper.state is State.PARKED:
            return False
        self._elsewhere = holder
        then = "started" if keeper.agent.schedule is None else "its schedule is followed"
        reason = f"{holder.sentence(now)}; {then} here when that one lets go"
        keeper.become(State.PARKED, reason)
        keeper.say(f"{keeper.name}: not started: {reason}")
        data: dict[str, Any] = {
            "reason": holder.sentence(now),
            "pid": holder.pid,
            "data": holder.data,
            "since": holder.since,
        }
        keeper.tell.event("agent.duplicate", data)
        return False

    def _again(self, why: str) -> Callable[[], None]:
        keeper, holder = self._keeper, "the other instance has let go of it"

        def start() -> None:
            if keeper.run is not None:
                return
            if keeper.agent.schedule is None:
                keeper.start(why if why.endswith(holder) else f"{why}; {holder}")
            elif self.admitted(why):
                keeper.between_runs()  # its time is over, and the other one has used it

        return start

    def leave(self) -> None:
        """Give the lease back, unless a new run was begun meanwhile: the agent was stopped, or left the file."""
        if self._around.leases is not None and self._keeper.run is None:
            self._around.leases.release(self._keeper.name)

    # -- versions ----------------------------------------------------------------------------

    def started(self) -> dict[str, Any]:
        """A run has been started: return what it was made of, and begin its trial."""
        versions, keeper = self._around.versions, self._keeper
        if versions is None:
            return {}
        if keeper.agent.rollback:
            keeper.timers.set("proved", keeper.agent.restart.stable_after, self.proved)
        directory = self._around.directory(keeper.agent)
        return versions.started(keeper.name, keeper.agent, directory).to_json()

    def proved(self) -> None:
        """This entry is good."""
        if self._around.versions is not None:
            self._around.versions.prove(self._keeper.name, self._keeper.agent)

    def judge(self, verdict: Verdict, decision: Decision) -> Decision:
        """Return what follows the end of a run: the last good entry when the changed one is at fault."""
        versions, keeper = self._around.versions, self._keeper
        if versions is None or not keeper.agent.rollback:
            return decision
        if verdict.end is End.FINISHED:
            self.proved()
        good, changed = versions.good(keeper.name), versions.difference(keeper.name, keeper.agent)
        found = decisions.judge(
            verdict,
            wanted=keeper.agent.rollback,
            proven=good == keeper.agent,
            good_known=good is not None,
            changed=changed,
        )
        if not found.back or good is None:
            return decision
        self.note = decisions.since_changed(changed.keys, verdict.end)
        versions.take_back(keeper.name, keeper.agent, self.note)
        data: dict[str, Any] = {
            "keys": list(changed.keys),
            "end": verdict.end,
            "reason": verdict.reason,
            "stable_after_s": keeper.agent.restart.stable_after,
        }
        keeper.tell.event("agent.rolled_back", data)
        keeper.say(f"{keeper.name}: rolled back: {found.reason}")
        keeper.take(good)
        return Decision(Next.RESTART, f"{verdict.reason}; rolled back to the last good entry")
