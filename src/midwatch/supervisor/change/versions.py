"""What runs are made of, and the last good entry of agents that may be rolled back.

Hashes are keyed with the instance's secret: they tell whether two environments are the same, and nothing
else. What git has checked out is looked up in a worker thread and remembered by directory, so a start
never waits for it. The last good entries stand in one file, mode 0600; it holds what the fleet file held.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from midwatch.core.change import Difference, Entry, compare
from midwatch.core.fleet import Agent
from midwatch.core.versions import Revision, Version
from midwatch.supervisor.change import checkout
from midwatch.supervisor.datadir import DataDir

FILE: Final = "supervisor/versions"

SAVE_S: Final = 0.5
"""How long changes wait to be written together."""

_OWN: Final = re.compile(
    r"MIDWATCH_.*|NOTIFY_SOCKET|WATCHDOG_(?:USEC|PID)|OTEL_EXPORTER_OTLP_HEADERS|OTEL_RESOURCE_ATTRIBUTES"
)
"""Variables that differ in each run."""


@dataclass(slots=True)
class Kept:
    """What is remembered of one agent. Entries are as `Agent.model_dump` gives them."""

    good: Agent | None = None
    refused: str = ""
    """Configuration hash of the entry that was taken back; empty: none."""
    note: str = ""
    """What is shown about it."""


@dataclass(slots=True)
class _Started:
    environment: str = ""
    env_file: str = ""
    revision: Revision | None = None


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

    def starting(self, name: str, env: Mapping[str, str], env_file: bytes | None) -> None:
        """Take what the next run of an agent is given."""
        shared = {k: v for k, v in env.items() if _OWN.fullmatch(k) is None}
        started = self._started.setdefault(name, _Started())
        started.environment = self.keyed(json.dumps(shared, sort_keys=True).encode())
        started.env_file = self.of_env_file(env_file)

    def of_env_file(self, content: bytes | None) -> str:
        return "" if content is None else self.keyed(content)

    def started(self, name: str, agent: Agent, directory: str) -> Version:
        """Return the version of the run that has just been started."""
        known = self._started.setdefault(name, _Started())
        known.revision = self._revisions.get(directory)
        self.fresh.add(name)
        self.woken.set()
        return Version(self.configuration(agent, known.env_file), known.environment, known.revision)

    def ran_with(self, name: str) -> tuple[str | None, Revision | None]:
        """Return the env file's hash and the revision of an agent's last start; None: it never started."""
        known = self._started.get(name)
        return (None, None) if known is None else (known.env_file, known.revision)

    def correct(self, name: str, revision: Revision | None) -> None:
        """Take what was found about the directory of a run that had been started before it was known."""
        if (known := self._started.get(name)) is not None:
            known.revision = revision

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

    # -- good entries ------------------------------------------------------------------------

    def good(self, name: str) -> Agent | None:
        """Return the last entry that was good, where it is kept."""
        return self._kept.get(name, Kept()).good

    def difference(self, name: str, agent: Agent) -> Difference:
        """Return what differs between the last good entry and this one."""
        good = self.good(name)
        return Difference() if good is None else compare(Entry(good), Entry(agent))

    def prove(self, name: str, agent: Agent) -> None:
        """Take it that this entry is good. Kept for agents that may be rolled back."""
        kept = self._kept.setdefault(name, Kept())
        if not agent.rollback or kept.good == agent or (kept.refused and kept.good is not None):
            return
        self._kept[name] = Kept(agent)
        self._save_soon()

    def take_back(self, name: str, agent: Agent, note: str) -> Agent | None:
        """Remember that this entry was taken back; return the last good one."""
        kept = self._kept.setdefault(name, Kept())
        kept.refused, kept.note = self.configuration(agent, ""), note
        self._save_soon()
        return kept.good

    def instead(self, name: str, agent: Agent) -> tuple[Agent, str]:
        """Return the entry to run where the file says `agent`: the good one when this was taken back."""
        kept = self._kept.get(name)
        if kept is None or kept.good is None or not kept.refused or not agent.rollback:
            return agent, ""
        if kept.refused != self.configuration(agent, ""):
            kept.refused = kept.note = ""  # the file was changed again: a new trial
            self._save_soon()
            return agent, ""
        return kept.good, kept.note

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
                good = Agent.model_validate(value["good"]) if value.get("good") else None
                self._kept[name] = Kept(good, str(value["refused"]), str(value["note"]))
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
            name: {
                "good": kept.good.model_dump(mode="json") if kept.good else None,
                "refused": kept.refused,
                "note": kept.note,
            }
            for name, kept in self._kept.items()
            if kept.good is not None or kept.refused
        }
        try:
            self._data.write(FILE, json.dumps(content).encode() + b"\n")
        except OSError:
            self.failed_writes += 1
