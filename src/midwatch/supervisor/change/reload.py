"""Change: the fleet file read again while everything runs, and what has drifted from it since.

A reload reads the file whole, checks all of it, and only then touches anything: a file that was being
written, is gone or is wrong changes nothing. What is decided (`core.change`) is carried out at once for
all agents; reloads follow one another, and none begins before the start is over or after the stop has begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from midwatch.core import change
from midwatch.core.change import Do, Entry, Step, Wake
from midwatch.core.errors import FleetFileError, MidwatchError, SetupError
from midwatch.core.exits import Wish
from midwatch.core.fleet import Agent, Fleet
from midwatch.core.states import State
from midwatch.supervisor.change.drift import QUIET_S, Drift
from midwatch.supervisor.keeper import Keeper
from midwatch.supervisor.orders import PATIENCE_S, Outcome
from midwatch.supervisor.reporter import INSTANCE

if TYPE_CHECKING:
    from midwatch.supervisor.supervisor import Supervisor

TRIES: Final = 20
"""How often a file that changes while it is read is read again, QUIET_S apart."""

MAX_LISTED: Final = 1_000
"""Agents and problems that an answer lists one by one."""


@dataclass(frozen=True, slots=True)
class Source:
    """The fleet file, and how it is read. `read` raises FleetFileError or another MidwatchError."""

    file: Path
    read: Callable[[], Fleet]
    fleet: Fleet
    """As it was read for the start."""


@dataclass(slots=True)
class Did:
    """What a reload did with one agent."""

    agent: str
    result: str
    keys: tuple[str, ...] = ()
    over: asyncio.Event | None = None
    """Set when the run that had to end has ended."""

    def to_json(self) -> dict[str, Any]:
        return {"agent": self.agent, "result": self.result, "keys": list(self.keys)}


@dataclass(slots=True)
class _Loaded:
    """What was loaded last."""

    fleet: Fleet
    """As the file has it, before instances and ports were filled in."""
    digest: str = ""
    env_files: dict[str, str] = field(default_factory=dict[str, str])
    """Agent → hash of its env file's content when the entry was taken over."""


def expand(fleet: Fleet) -> dict[str, Agent]:
    """Return every agent to be run, `instances` of one entry as NAME.1, NAME.2, …

    The fleet's time zone goes into the schedules that name none: then it changes with their entries.
    """
    agents: dict[str, Agent] = {}
    for name, agent in fleet.agents.items():
        if agent.schedule is not None and agent.schedule.timezone is None:
            zoned = agent.schedule.model_copy(update={"timezone": fleet.timezone})
            agent = agent.model_copy(update={"schedule": zoned})
        if agent.instances == 1:
            agents[name] = agent
            continue
        for number in range(1, agent.instances + 1):
            lease = None if agent.lease is None else f"{agent.lease}.{number}"
            single = agent.model_copy(update={"instances": 1, "lease": lease})
            agents[f"{name}.{number}"] = single
    return agents


def settled(source: Source) -> tuple[Fleet, str]:
    """Read the file when it is still, and return the fleet and a digest of the text. Blocking.

    Raises what `read` raises, and SetupError for a file that never rests.
    """
    for _ in range(TRIES):
        before, age = look(source.file)
        if 0 <= age < QUIET_S:
            time.sleep(QUIET_S)
            continue
        try:
            fleet = source.read()
        except MidwatchError:
            if look(source.file)[0] == before:
                raise
            continue
        if look(source.file)[0] == before:
            return fleet, before
    raise SetupError(
        f"{str(source.file)!r} is written all the time; nothing was changed: try again when it rests"
    )


def look(file: Path) -> tuple[str, float]:
    """Return a digest of what a file is now (`` when it cannot be read), and the seconds since it was written."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as stream:  # noqa: PTH123  opened by its descriptor
            found = os.fstat(fd)
            content = hashlib.sha256()
            # no more than is accepted as a fleet file is ever of interest
            for _ in range(64):
                part = stream.read(1 << 20)
                if not part:
                    break
                content.update(part)
    except OSError as error:
        return f"errno {error.errno}", -1.0
    mark = (
        f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}:{content.hexdigest()}"
    )
    return mark, time.time() - found.st_mtime


class Changes:
    """Reloads of one instance, one after the other."""

    def __init__(self, house: Supervisor, source: Source | None) -> None:
        self.reloads = 0
        self.refused = 0
        self._house = house
        self._source = source
        self._loaded = _Loaded(source.fleet if source is not None else house.fleet)
        self._leaving: dict[str, Keeper] = {}
        self._one_at_a_time = asyncio.Lock()
        self._begun = asyncio.Event()
        self._stopping = False
        self._drift = Drift(house, self)

    # -- life --------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Look at what the first runs are made of; before any agent is started."""
        self._note_env_files()
        if self._source is not None:
            mark = await asyncio.to_thread(look, self._source.file)
            self._loaded.digest = mark[0]
        await self._drift.prepare()

    def begin(self) -> None:
        """All agents have been started: from now on the file may be read again."""
        self._begun.set()
        self._house.tasks.spawn(self._drift.watch(), "drift")
        self._house.tasks.spawn(self._drift.follow_starts(), "revisions")

    def stop(self) -> list[Keeper]:
        """The instance stops: nothing is reloaded any more. Return the keepers of runs that are still leaving."""
        self._stopping = True
        self._begun.set()
        return list(self._leaving.values())

    @property
    def source(self) -> Source | None:
        return self._source

    def differs(self) -> bool:
        """Tell whether the file's text is another than the one that was loaded. Blocking."""
        assert self._source is not None
        fresh = look(self._source.file)[0]
        return fresh.rpartition(":")[2] != self._loaded.digest.rpartition(":")[2]

    def hang_up(self) -> None:
        """Reload because of a signal: there is nobody to answer but the console."""
        self._house.tasks.spawn(self.reload(), "reload")

    def tell_loaded(self) -> None:
        """Let the hub read `fleet.json` again."""
        house = self._house
        data = {"fleet": house.fleet.fleet, "agents": list(house.fleet.agents)}
        house.reports.event(INSTANCE, "fleet.loaded", house.system.wall(), data)

    def entries(self) -> dict[str, Entry]:
        """Return what runs: by the words of the file that was loaded last, or the entry it was taken back to."""
        keepers = self._house.keepers
        return {
            name: Entry(keepers[name].agent if name in keepers else agent, self._env_file_of(name))
            for name, agent in self._house.fleet.agents.items()
        }

    def read_entries(self, fleet: Fleet) -> dict[str, Entry]:
        """Return the entries of a fleet that was read, with their env files as they are now. Blocking."""
        outfit = self._house.outfit
        return {name: Entry(a, outfit.env_file_hash(a)) for name, a in expand(fleet).items()}

    def _env_file_of(self, name: str) -> str:
        """Return the env file that a run was started with, or that was there when its entry was loaded."""
        keeper = self._house.keepers.get(name)
        started = self._house.versions.ran_with(name)[0]
        if keeper is not None and keeper.run is not None and started is not None:
            return started
        return self._loaded.env_files.get(name, "")

    def _note_env_files(self) -> None:
        outfit = self._house.outfit
        self._loaded.env_files = {
            name: outfit.env_file_hash(agent) for name, agent in self._house.fleet.agents.items()
        }

    # -- reload ------------------------------------------------------------------------------

    async def reload(self) -> Outcome:
        """Read the file again, and do what has changed; the answer says what was done with each agent."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._begun.wait(), PATIENCE_S)
        async with self._one_at_a_time:
            if (refusal := self._refusal()) is not None:
                return self._refuse(refusal)
            source = self._source
            assert source is not None
            try:
                fleet, digest = await asyncio.to_thread(settled, source)
                entries = await asyncio.to_thread(self.read_entries, fleet)
            except FleetFileError as error:
                return self._refuse_file(error)
            except MidwatchError as error:
                return self._refuse(str(error))
            if (refusal := self._refusal()) is not None:
                return self._refuse(refusal)
            try:
                notes, done = self._take_over(fleet, digest, entries)
            except SetupError as error:
                return self._refuse(str(error))
            notes += await self._house.board.reload()
        await self._wait(done)
        if any(did.agent not in self._house.fleet.agents for did in done):
            self.tell_loaded()  # those that left have ended: the hub need not show them any more
        return self._answer(notes, done)

    def _refusal(self) -> str | None:
        if self._source is None:
            return "this instance was started without a fleet file; there is nothing to read again"
        if self._stopping:
            return "Midwatch is stopping; nothing was changed"
        return None if self._begun.is_set() else "Midwatch is still starting; try again when it has"

    def _take_over(
        self, fleet: Fleet, digest: str, entries: dict[str, Entry]
    ) -> tuple[list[str], list[Did]]:
        """Make the new file the one that counts. Raises SetupError, and then nothing was changed."""
        house, before = self._house, self.entries()
        notes = [
            f"{key} stays as it is until Midwatch is started again"
            for key in change.fixed(self._loaded.fleet, fleet)
        ]
        agents = {name: entry.agent for name, entry in entries.items()}
        # what is kept of telemetry, and where it goes on to, counts from now on; addresses and stores do not
        stays = ("listen", "otlp_http", "otlp_grpc", "stores")
        hub = fleet.hub.model_copy(update={key: getattr(house.fleet.hub, key) for key in stays})
        fresh = fleet.model_copy(
            update={"agents": agents, "hub": hub, "gateway": house.fleet.gateway}
        )
        house.data.write_json("fleet.json", fresh.model_dump(mode="json"))
        house.fleet = fresh
        house.journal.fleet(agents, house.system.wall())
        house.around.timezone = fresh.timezone
        # ports keep counting as they were at the start: they are still in force
        first = {"hub": self._loaded.fleet.hub, "gateway": self._loaded.fleet.gateway}
        self._loaded = _Loaded(fleet.model_copy(update=first), digest)
        self.tell_loaded()
        self._loaded.env_files = {name: entry.env_file for name, entry in entries.items()}
        self.reloads += 1
        wanted = {name: self._in_force(name, entry) for name, entry in entries.items()}
        # who leaves is asked first: an agent that only got another name waits for its lease, and no longer than needed
        steps = sorted(change.plan(before, wanted), key=lambda step: step.do is not Do.STOP)
        done = [self._carry_out(step, agents.get(step.name)) for step in steps]
        house.versions.forget([d.agent for d in done if d.agent not in agents])
        self._drift.loaded()
        return notes, done

    def _in_force(self, name: str, entry: Entry) -> Entry:
        """Return what is to run where the file says `entry`: what was good, when this was taken back."""
        versions = self._house.versions
        agent, note = versions.instead(name, entry.agent, entry.env_file)
        kept = versions.env_file(name) if note else None
        return Entry(agent, entry.env_file if kept is None else versions.of_env_file(kept))

    def _carry_out(self, step: Step, agent: Agent | None) -> Did:
        keepers, name = self._house.keepers, step.name
        keeper = keepers.get(name)
        keys = step.difference.keys
        if agent is None or (agent.external and keeper is not None):
            return self._drop(name, keeper)
        if agent.external:
            return Did(name, "unchanged" if step.do is Do.NOTHING else "watched", keys)
        if keeper is None:
            return self._add(name, agent)
        if step.do is Do.NOTHING:
            keeper.tenure.note = self._house.versions.instead(name, agent)[1]
            return Did(name, "unchanged")
        return self._adopt(keeper, step, agent)

    def _add(self, name: str, agent: Agent) -> Did:
        leaving = self._leaving.get(name) or next(
            (k for k in self._leaving.values() if agent.lease and k.agent.lease == agent.lease),
            None,
        )
        if leaving is not None:
            leaving.ended.append(lambda: self._begin_again(name))
            return Did(name, f"starts when the last run of {leaving.name} has ended")
        keeper = self._begin(name, agent)
        return Did(name, "started" if keeper.run else f"{keeper.state}: {keeper.reason}")

    def _begin(self, name: str, agent: Agent) -> Keeper:
        keeper = self._house.make_keeper(name, agent)
        keeper.begin(resumed=False)
        return keeper

    def _begin_again(self, name: str) -> None:
        """Begin an agent that waited, by what the file says of it now."""
        agent = self._house.fleet.agents.get(name)
        waits = agent is not None and not agent.external and name not in self._house.keepers
        if agent is not None and waits and not self._stopping:
            self._begin(name, agent)

    def _drop(self, name: str, keeper: Keeper | None) -> Did:
        if keeper is None:
            return Did(name, "not watched any more")
        self._leaving[name] = keeper
        del self._house.keepers[name]
        over = asyncio.Event()

        def gone() -> None:
            self._leaving.pop(name, None)
            keeper.tenure.leave()
            self._house.versions.placed.pop(name, None)
            self._house.notices.forget(name)
            self._house.journal.hold(name, None, "", self._house.system.wall())
            over.set()

        if keeper.run is None:
            keeper.shut_down(Wish.CHANGE, "taken out of the fleet file")
            gone()
            return Did(name, "removed")
        keeper.ended.append(gone)
        keeper.shut_down(Wish.CHANGE, "taken out of the fleet file")
        return Did(name, "stopped and removed", over=over)

    def _adopt(self, keeper: Keeper, step: Step, agent: Agent) -> Did:
        """Let an agent that is known take its changed entry."""
        changed, tenure = step.difference, keeper.tenure
        held = self._house.journal.of(keeper.name).held is not None
        was, said = keeper.agent, changed.said
        # a younger one that was on trial proved nothing: the last good one stays the way back
        proved = not was.rollback or self._house.versions.good(keeper.name) is None
        if proved and keeper.state is State.RUNNING and not keeper.failures and not tenure.note:
            self._house.versions.prove(
                keeper.name, was.model_copy(update={"rollback": agent.rollback})
            )
        if "lease" in changed.keys and keeper.run is None:
            tenure.leave()
        entry, tenure.note = self._house.versions.instead(keeper.name, agent)
        keeper.take(entry)
        if not agent.enabled:
            return self._disable(keeper, changed.keys)
        if keeper.run is None:
            return self._wake(keeper, changed, held=held, was_job=was.schedule is not None)
        if held:
            return Did(keeper.name, f"stays {keeper.state}: {keeper.reason} ({said})", changed.keys)
        if step.do is Do.APPLY and "enabled" not in changed.keys:
            later = (
                f"; {change.listed(changed.later)} from the next run on" if changed.later else ""
            )
            return Did(keeper.name, f"applied without a restart ({said}{later})", changed.keys)
        if agent.schedule is not None and was.schedule is not None:
            return Did(
                keeper.name, f"its run goes on; the next one takes it ({said})", changed.keys
            )
        over = asyncio.Event()
        keeper.ended.append(over.set)
        if agent.schedule is not None:
            keeper.rest(f"its entry changed: {change.listed(changed.keys)}")
            return Did(keeper.name, f"stopped, to follow its schedule ({said})", changed.keys, over)
        keeper.finish(Wish.CHANGE, f"its entry changed: {change.listed(changed.keys)}")
        return Did(keeper.name, f"restarted ({said})", changed.keys, over)

    def _wake(
        self, keeper: Keeper, changed: change.Difference, *, held: bool, was_job: bool
    ) -> Did:
        """Give an agent without a process what its changed entry asks for."""
        job, said = keeper.agent.schedule is not None, changed.said
        wake = change.wakes(keeper.state, held=held, changed=changed, job=job, was_job=was_job)
        if wake is Wake.STAY:
            return Did(keeper.name, f"stays {keeper.state} ({said})", changed.keys)
        reason = f"its entry changed: {change.listed(changed.keys)}"
        (keeper.wait if wake is Wake.WAIT else keeper.release)(reason)
        became = "started" if keeper.run else f"{keeper.state}: {keeper.reason}"
        return Did(keeper.name, f"{became} ({said})", changed.keys)

    def _disable(self, keeper: Keeper, keys: tuple[str, ...]) -> Did:
        reason = "not enabled in the fleet file"
        if keeper.run is None:
            keeper.rest(reason)  # an end that is not judged yet must start nothing
            keeper.timers.cancel("start")
            if self._house.journal.of(keeper.name).held is None:
                keeper.become(State.STOPPED, reason)
            keeper.tenure.leave()
            return Did(keeper.name, f"{keeper.state}: {reason}", keys)
        over = asyncio.Event()
        keeper.ended += [keeper.tenure.leave, over.set]
        keeper.rest(reason)
        return Did(keeper.name, f"stopped: {reason}", keys, over)

    async def _wait(self, done: list[Did]) -> None:
        """Wait for the runs that have to end, but not for ever: a grace may be long."""
        waiting = [did for did in done if did.over is not None]
        if not waiting:
            return
        ends = [asyncio.ensure_future(did.over.wait()) for did in waiting if did.over is not None]
        _, open_ = await asyncio.wait(ends, timeout=PATIENCE_S)
        for end in open_:
            end.cancel()
        for did in waiting:
            if did.over is not None and not did.over.is_set():
                did.result += "; still ending, within its grace"

    # -- answers -----------------------------------------------------------------------------

    def _answer(self, notes: list[str], done: list[Did]) -> Outcome:
        changed = [did for did in done if did.result != "unchanged"]
        for note in notes:
            self._house.say(f"midwatch: {note}")
        for did in changed:
            self._house.say(f"{did.agent}: {did.result}")
        count, same = len(changed), len(done) - len(changed)
        result = f"{count} of {len(done)} agents changed" if count else "nothing has changed"
        self._house.say(f"midwatch: the fleet file was read again: {result}, {same} unchanged")
        data = {
            "file": self._name,
            "agents": [did.to_json() for did in (*changed, *(d for d in done if d not in changed))][
                :MAX_LISTED
            ],
            "notes": notes,
        }
        return Outcome(result, "reloaded", data)

    @property
    def _name(self) -> str:
        return str(self._source.file) if self._source is not None else ""

    def _refuse(self, reason: str) -> Outcome:
        self.refused += 1
        self._house.say(f"midwatch: not reloaded: {reason}")
        return Outcome(reason[:1000], "refused", {"file": self._name, "problems": []})

    def _refuse_file(self, error: FleetFileError) -> Outcome:
        self.refused += 1
        problems = [
            {
                "file": error.file,
                "line": p.line,
                "column": p.column,
                "key": p.key,
                "message": p.message,
            }
            for p in error.problems[:MAX_LISTED]
        ]
        count = len(error.problems)
        what = "1 problem" if count == 1 else f"{count} problems"
        first = error.problems[0].render(error.file) if error.problems else ""
        self._house.say(f"midwatch: not reloaded: {what} in the fleet file; the first: {first}")
        result = f"{what} in {error.file}; nothing was changed"
        return Outcome(result[:1000], "refused", {"file": self._name, "problems": problems})
