"""What runs are made of, and what was good last of agents that may be rolled back.

Hashes are keyed with the instance's secret: they tell whether two environments are the same, and nothing
else. What git has checked out is looked up in a worker thread and remembered by directory, so a start
never waits for it. What was good stands in one file, mode 0600 (`change.good`).
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

from midwatch.core.change import Difference, Entry, compare
from midwatch.core.fleet import Agent
from midwatch.core.versions import Revision, Version
from midwatch.supervisor.change import checkout
from midwatch.supervisor.change.good import Back, Good, Kept
from midwatch.supervisor.change.worktree import Placed
from midwatch.supervisor.datadir import DataDir

FILE: Final = "supervisor/versions"

SAVE_S: Final = 0.5
"""How long changes wait to be written together."""

_OWN: Final = re.compile(
    r"MIDWATCH_.*|NOTIFY_SOCKET|WATCHDOG_(?:USEC|PID)|OTEL_EXPORTER_OTLP_HEADERS|OTEL_RESOURCE_ATTRIBUTES"
)
"""Variables that differ in each run."""


@dataclass(slots=True)
class _Started:
    environment: str = ""
    env_file: str = ""
    content: bytes | None = None
    revision: Revision | None = None
    looked: bool = False
    """The revision was looked up while this run lived; until then it is what was seen before."""
    proved: bool = False


class Versions:
    """The versions of one instance. Without a data directory nothing is kept: for tests and single runs."""

    def __init__(self, data: DataDir | None, secret: bytes) -> None:
        self.failed_writes = 0
        self.woken = asyncio.Event()
        """Set when runs were started; `fresh` names their agents."""
        self.fresh: set[str] = set()
        self._data = data
        self._secret = secret
        self._started: dict[str, _Started] = {}
        self._revisions: dict[str, Revision | None] = {}
        self._kept: dict[str, Kept] = {}
        self.placed: dict[str, Placed] = {}
        """Agent → the worktree in which its runs are started instead of its directory."""
        self._saving: asyncio.TimerHandle | None = None
        self._read()

    # -- hashes ------------------------------------------------------------------------------

    def keyed(self, content: bytes) -> str:
        """Return a keyed hash: equal for equal content, and nothing else can be learned from it."""
        return hmac.digest(self._secret, content, "sha256").hex()[:16]

    def configuration(self, agent: Agent, env_file: str) -> str:
        """Return the hash of an entry."""
        whole = json.dumps([agent.model_dump(mode="json"), env_file], sort_keys=True)
        return self.keyed(whole.encode())

    def reading(self, name: str, env_file: bytes | None) -> None:
        """Take the env file's content that the next run of an agent is to be given, if it makes sense."""
        started = self._started.setdefault(name, _Started())
        started.env_file, started.content = self.of_env_file(env_file), env_file

    def starting(
        self,
        name: str,
        env: Mapping[str, str],
        env_file: bytes | None,
        own: Collection[str] = (),
    ) -> None:
        """Take what the next run of an agent is given; values of `own` are this run's alone."""
        self.reading(name, env_file)
        shared = {k: v for k, v in env.items() if _OWN.fullmatch(k) is None and v not in own}
        whole = json.dumps(shared, sort_keys=True)
        self._started[name].environment = self.keyed(whole.encode())

    def of_env_file(self, content: bytes | None) -> str:
        return "" if content is None else self.keyed(content)

    def started(self, name: str, agent: Agent, directory: str) -> Version:
        """Return the version of the run that has just been started."""
        known, placed = self._started.setdefault(name, _Started()), self.placed.get(name)
        known.revision = self._revisions.get(directory) if placed is None else placed.revision
        known.looked = known.proved = False
        self.fresh.add(name)
        self.woken.set()
        return Version(self.configuration(agent, known.env_file), known.environment, known.revision)

    def ran_with(self, name: str) -> tuple[str | None, Revision | None]:
        """Return the env file's hash and the revision of an agent's last start; None: it never started."""
        known = self._started.get(name)
        return (None, None) if known is None else (known.env_file, known.revision)

    def code_of(self, name: str, directory: str) -> Revision | None:
        """Return what the last run of an agent was made of. Where it ended before anybody had looked, what is
        checked out now: two small files are read for it, as a start reads more."""
        known = self._started.get(name)
        if known is None or known.looked or name in self.placed:
            return None if known is None else known.revision
        return checkout.revision(Path(directory)) or known.revision

    def correct(self, name: str, revision: Revision | None) -> None:
        """Take what was found about the directory of a run that had been started before it was known."""
        if (known := self._started.get(name)) is None:
            return
        known.revision, known.looked = revision, True
        good = self.good(name)
        if known.proved and good is not None and self.back(name) is None:
            self._keep(name, replace(good, revision=revision))

    # -- git ---------------------------------------------------------------------------------

    def there(self, directory: str) -> Revision | None:
        """Return what was checked out when it was last looked."""
        return self._revisions.get(directory)

    async def look(self, directories: Iterable[str], *, dirty: bool) -> None:
        """Look in a worker thread what is checked out."""
        wanted = dict.fromkeys(directories)
        found = await asyncio.to_thread(
            lambda: {d: checkout.revision(Path(d), dirty=dirty) for d in wanted}
        )
        for directory, fresh in found.items():
            known = self._revisions.get(directory)
            if (
                not dirty
                and known is not None
                and fresh is not None
                and known.commit == fresh.commit
            ):
                continue  # what is known says more
            self._revisions[directory] = fresh

    # -- what was good -----------------------------------------------------------------------

    def good(self, name: str) -> Good | None:
        """Return what was good last, where it is kept."""
        return self._kept.get(name, Kept()).good

    def back(self, name: str) -> Back | None:
        """Return what was taken back, while that is in force."""
        return self._kept.get(name, Kept()).back

    def env_file(self, name: str) -> bytes | None:
        """Return the env file's content that the next run is given in place of the file's; None: the file's."""
        good = self.good(name)
        return None if good is None or self.back(name) is None else good.env_file

    def difference(self, name: str, agent: Agent) -> Difference:
        """Return what differs between the last good entry, with its env file, and this one as it was started."""
        good = self.good(name)
        if good is None:
            return Difference()
        kept = good.env_file is not None
        started = self._started.get(name)
        now = started.env_file if started is not None and kept else ""
        was = self.of_env_file(good.env_file) if now else ""
        return compare(Entry(good.agent, was), Entry(agent, now))

    def prove(self, name: str, agent: Agent) -> None:
        """Take it that what runs is good. Kept for agents that may be rolled back."""
        kept = self._kept.setdefault(name, Kept())
        if not agent.rollback or kept.back is not None:
            return
        started = self._started.get(name, _Started())
        started.proved = True
        self._keep(name, Good(agent, started.content, started.revision))

    def _keep(self, name: str, good: Good) -> None:
        kept = self._kept[name]
        if kept.good != good:
            kept.good = good
            self._save_soon()

    def take_back(self, name: str, agent: Agent, note: str, *, code: bool = False) -> Good | None:
        """Remember that what was started last, by this entry, was taken back; return what was good.

        `code`: its code may be taken back, too; `amend` says what came of that.
        """
        kept, started = self._kept.setdefault(name, Kept()), self._started.get(name, _Started())
        entry = self.configuration(agent, "")
        kept.back = Back(entry, started.env_file, code=code, note=note)
        self._save_soon()
        return kept.good

    def amend(
        self,
        name: str,
        note: str,
        *,
        failed: Revision | None = None,
        place: str = "",
    ) -> None:
        """Take what came of the code: `failed` was replaced by what lies at `place`; empty: it stays."""
        back = self.back(name)
        if back is not None:
            back.code, back.place, back.note = bool(place), place, note
            if place and failed is not None:
                back.commit, back.edited = failed.commit, bool(failed.dirty)
            self._save_soon()

    def code_alone(self, name: str) -> bool:
        """Tell whether entry and env file that were taken back are those that were good."""
        good, back = self.good(name), self.back(name)
        if good is None or back is None:
            return False
        same = good.env_file is None or back.env_file == self.of_env_file(good.env_file)
        return same and back.entry == self.configuration(good.agent, "")

    def try_anew(self, name: str) -> None:
        """What was taken back is tried again: it is another now."""
        if self.back(name) is not None:
            self._kept[name].back = None
            self._save_soon()

    def instead(self, name: str, agent: Agent, env_file: str | None = None) -> tuple[Agent, str]:
        """Return the entry to run where the file says `agent`: the good one when this was taken back.

        `env_file` is the hash of its env file's content as it is now; None: not known.
        """
        kept = self._kept.get(name)
        if kept is None or kept.good is None or kept.back is None or not agent.rollback:
            return agent, ""
        fixed = (
            env_file is not None
            and kept.good.env_file is not None
            and env_file != kept.back.env_file
        )
        if kept.back.entry != self.configuration(agent, "") or fixed:
            self.try_anew(name)  # it was changed again: a new trial
            return agent, ""
        return kept.good.agent, kept.back.note

    def places(self) -> set[str]:
        """Return the names of the worktrees that are in use, or will be."""
        wanted = {k.back.place for k in self._kept.values() if k.back is not None and k.back.code}
        return {*wanted, *(placed.name for placed in self.placed.values())} - {""}

    def forget(self, names: Collection[str]) -> None:
        """Drop what is known of agents that left the fleet file."""
        for name in names:
            self._started.pop(name, None)
            if self._kept.pop(name, None) is not None:
                self._save_soon()

    def keep_only(self, names: Collection[str]) -> None:
        """Drop what is known of agents that left the fleet file while nobody was there."""
        self.forget([name for name in self._kept if name not in names])

    # -- file --------------------------------------------------------------------------------

    def _read(self) -> None:
        if self._data is None:
            return
        try:
            found: object = json.loads((self._data.path / FILE).read_bytes())
        except (OSError, ValueError):
            return  # none yet, or torn: the next good run writes it anew
        if not isinstance(found, dict):
            return
        for name, value in cast("dict[str, Any]", found).items():
            try:
                self._kept[name] = Kept.of(value)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # of a version with other keys: not good any more

    def _save_soon(self) -> None:
        if self._data is not None and self._saving is None:
            self._saving = asyncio.get_running_loop().call_later(SAVE_S, self.save)

    def save(self) -> None:
        """Write what is to be kept; a failure is counted and costs a rollback, no agent."""
        if self._saving is None or self._data is None:
            return
        self._saving.cancel()
        self._saving = None
        content = {
            name: kept.to_json()
            for name, kept in self._kept.items()
            if kept.good is not None or kept.back is not None
        }
        try:
            self._data.write(FILE, json.dumps(content).encode() + b"\n")
        except OSError:
            self.failed_writes += 1
