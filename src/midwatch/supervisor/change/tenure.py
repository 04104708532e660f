"""What an agent runs as, and by which right: its lease, its version, and the trial of a changed entry.

The keeper asks before a start (is the agent ours, and is its code there?), after one (what was it made
of?) and at an end (was what has changed at fault?). Without leases and versions, as in tests, every answer
is yes, nothing, no.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from midwatch.core import ground
from midwatch.core import versions as decisions
from midwatch.core.change import ENV_FILE_CONTENT
from midwatch.core.exits import End, Verdict
from midwatch.core.restart import Decision, Next
from midwatch.core.states import State
from midwatch.core.versions import SHORT, Takeback
from midwatch.supervisor.change.good import Good
from midwatch.supervisor.change.lease import RETRY_S, Holder
from midwatch.supervisor.change.placing import Supply
from midwatch.supervisor.surroundings import Surroundings

if TYPE_CHECKING:
    from midwatch.supervisor.keeper import Keeper

PLACE_S: Final = 60.0
"""How long a start waits for an earlier revision; longer than git is given for it."""


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
        self._placing = False
        """Its last good code is being checked out."""
        self._placed = False
        """It has just been: the next start need not ask."""
        self._why = ""
        """Why it is started when that is done."""
        self._untold: tuple[Takeback, dict[str, Any], str] | None = None
        """A rollback whose code is still to be had: what is told of it then."""
        self._hopeless: dict[str, str] = {}
        """Commits that could not be had again, and why."""

    def choose(self) -> None:
        """At the beginning: an entry that was taken back is not tried again before the file is changed."""
        versions, keeper = self._around.versions, self._keeper
        if versions is None:
            return
        file = self._around.entry(keeper.name)
        content = None if file is None else file.env_file
        agent, self.note = versions.instead(keeper.name, keeper.agent, content)
        if self.note:
            keeper.take(agent)
            keeper.say(f"{keeper.name}: {self.note}")

    def admitted(self, why: str) -> bool:
        """Tell whether the agent may be started here and now; else it is started as soon as it may."""
        return self._leased(why) and self._supplied(why)

    def _leased(self, why: str) -> bool:
        """Tell whether the agent is ours; else say who has it, and ask again later."""
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
            elif self._leased(why):
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
        """What runs is good."""
        if self._around.versions is not None:
            self._around.versions.prove(self._keeper.name, self._keeper.agent)

    def judge(self, verdict: Verdict, decision: Decision) -> Decision:
        """Return what follows the end of a run: the last good one when what has changed since is at fault."""
        versions, keeper = self._around.versions, self._keeper
        if versions is None or not keeper.agent.rollback:
            return decision
        if verdict.end is End.FINISHED:
            self.proved()
        good = versions.good(keeper.name)
        changed = versions.difference(keeper.name, keeper.agent)
        code = ""
        if good is not None and good.revision is not None and not verdict.expected:
            ran = versions.code_of(keeper.name, self._around.directory(keeper.agent))
            code = decisions.code_change(good.revision, ran)
        found = decisions.judge(
            verdict,
            wanted=keeper.agent.rollback,
            proven=versions.back(keeper.name) is not None,
            good_known=good is not None,
            changed=changed,
            code=code,
        )
        if not found.back or good is None:
            return decision
        taken, why = self._takeback(good, changed.keys), self._why_not(good)
        if not taken and why:
            left = f"not rolled back: its code stays as it is: {why}"
            return replace(decision, reason=f"{decision.reason}; {left}")
        looks = good.revision is not None and self._around.check_out is not None
        self.note = decisions.since_changed(taken, verdict.end)
        versions.take_back(keeper.name, keeper.agent, self.note, code=looks)
        told: dict[str, Any] = {
            "end": verdict.end,
            "reason": verdict.reason,
            "stable_after_s": keeper.agent.restart.stable_after,
        }
        keeper.take(good.agent)
        if looks:  # what is known of its code may be seconds old: it is told when that is seen
            self._untold = (taken, told, found.reason)
        else:
            self._tell(taken, told, found.reason)
        then = "what was good last is looked for" if looks else "rolled back to what was good last"
        return Decision(Next.RESTART, f"{verdict.reason}; {then}")

    def _takeback(self, good: Good, keys: tuple[str, ...]) -> Takeback:
        """Return what is taken back, its code left aside."""
        own = tuple(key for key in keys if key != ENV_FILE_CONTENT)
        left: list[tuple[str, str]] = []
        if good.agent.env_file is not None and good.env_file is None:
            left.append(("its env file's content", "the last good one was not kept"))
        return Takeback(own, ENV_FILE_CONTENT in keys, left=tuple(left))

    def _why_not(self, good: Good) -> str:
        """Return why the last good code cannot be run; empty when it may be had."""
        if self._around.check_out is None:
            return "there is no data directory for it"
        if ground.walled(good.agent) is not None:
            return "its walls are built around its own directory"
        why = decisions.stays(good.revision)
        commit = good.revision.commit if good.revision is not None else ""
        return why or self._hopeless.get(commit, "")

    def _tell(self, taken: Takeback, told: dict[str, Any], reason: str) -> None:
        keeper = self._keeper
        keeper.tell.event("agent.rolled_back", {**taken.to_json(), **told})
        left = f"; {taken.left_said}" if taken.left else ""
        keeper.say(f"{keeper.name}: rolled back: {reason}{left}")

    # -- code --------------------------------------------------------------------------------

    def _supplied(self, why: str) -> bool:
        """Tell whether what is to be started is there; an earlier revision is checked out first."""
        versions, keeper = self._around.versions, self._keeper
        back = None if versions is None else versions.back(keeper.name)
        if versions is None:
            return True
        self._why = ""
        if back is None:
            versions.placed.pop(keeper.name, None)
            return True
        file = self._around.entry(keeper.name)
        if file is not None and not versions.instead(keeper.name, file.agent, file.env_file)[1]:
            self._try_anew("its entry or its env file was changed")
            return True
        good = versions.good(keeper.name)
        if not back.code or good is None or good.revision is None or self._placed:
            self._placed = False
            return True
        self._why = why
        late = Supply(None, why="git took too long")
        keeper.timers.set("start", PLACE_S, lambda: self._go_on(late))
        reason = f"its last good code, {good.revision.commit[:SHORT]}, is being looked for"
        keeper.become(State.STARTING, reason)
        if not self._placing and self._around.check_out is not None:
            self._placing = True
            directory = self._around.directory(good.agent)
            why_not = self._why_not(good)
            self._around.check_out(directory, good.revision, back, why_not, self._given)
        return False

    def _given(self, supply: Supply) -> None:
        """Take the answer, unless somebody decided otherwise meanwhile, or it comes too late."""
        self._placing = False
        # a start that was made or planned for another reason meanwhile has taken the question back
        if self._why and self._keeper.timers.pending("start"):
            self._keeper.timers.cancel("start")
            self._go_on(supply)

    def _go_on(self, supply: Supply) -> None:
        """Start with the code that was had, or without."""
        versions, keeper = self._around.versions, self._keeper
        why, self._why = self._why, ""
        if versions is None or keeper.run is not None:
            return
        untold, self._untold = self._untold, None
        if not supply.tried:
            self._try_anew("its code was changed")
        elif supply.placed is not None:
            versions.placed[keeper.name] = supply.placed
            self._placed = True
            self._told(untold, supply)
        else:
            versions.placed.pop(keeper.name, None)
            self._told(untold, supply)
        keeper.start(why)

    def _told(self, untold: tuple[Takeback, dict[str, Any], str] | None, supply: Supply) -> None:
        """Keep and tell what was taken back, now that it is known whether its code is."""
        versions, keeper = self._around.versions, self._keeper
        assert versions is not None
        good = versions.good(keeper.name)
        revision = None if good is None else good.revision
        place = "" if supply.placed is None else supply.placed.name
        if supply.why and revision is not None:
            self._hopeless[revision.commit] = supply.why
        if untold is None:
            if supply.why:
                self.note += f"; its code stays as it is: {supply.why}"
                keeper.say(
                    f"{keeper.name}: its last good code cannot be had any more: {supply.why}"
                )
                if versions.code_alone(keeper.name):  # then nothing is taken back any more
                    versions.try_anew(keeper.name)
                    self.note = ""
                    return
            versions.amend(keeper.name, self.note, failed=supply.failed, place=place)
            return
        taken, told, reason = untold
        code = decisions.code_change(revision, supply.failed)
        if place and revision is not None:
            failed = supply.failed.commit if supply.failed is not None else ""
            taken = replace(taken, code=(failed, revision.commit))
        elif supply.why:
            taken = replace(taken, left=(*taken.left, ("its code", supply.why)))
        if not taken:
            versions.try_anew(keeper.name)
            self.note = ""
            keeper.say(
                f"{keeper.name}: not rolled back: {taken.left_said or 'its code is the good one again'}"
            )
            return
        self.note = decisions.since_changed(taken, str(told["end"]))
        versions.amend(keeper.name, self.note, failed=supply.failed, place=place)
        self._tell(taken, told, reason if not code or code in reason else f"{code}, {reason}")

    def _try_anew(self, why: str) -> None:
        """What was taken back is another now: it is tried."""
        versions, keeper = self._around.versions, self._keeper
        assert versions is not None
        versions.try_anew(keeper.name)
        versions.placed.pop(keeper.name, None)
        self.note, self._untold = "", None
        keeper.say(f"{keeper.name}: {why} since it was taken back; it is tried anew")
        file = self._around.entry(keeper.name)
        if file is not None and file.agent != keeper.agent:
            keeper.take(file.agent)
