"""Drift: what runs against what the fleet file, the env files and git say now. Looked at cheaply, told on change.

Every ten seconds the times of the files are compared; only what was touched is read. The fleet file's
is compared each second: who has just written it wants to see what that means. All of it happens in a
worker thread: a slow disk delays no agent.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from midwatch.core import change
from midwatch.core.change import Difference, Entry
from midwatch.core.errors import FleetFileError, MidwatchError
from midwatch.core.versions import SHORT, Revision, drift

if TYPE_CHECKING:
    from midwatch.supervisor.change.reload import Changes
    from midwatch.supervisor.keeper import Keeper
    from midwatch.supervisor.supervisor import Supervisor

LOOK_S: Final = 10.0

QUIET_S: Final = 0.1
"""A file that was written more recently than this may not be whole yet: it is looked at again."""

GLANCE_S: Final = 1.0
"""How often it is seen whether somebody wrote the fleet file."""

PREPARE_S: Final = 1.0
"""How long the first start may wait for what git says; slower disks are heard later."""

SHARE_S: Final = 0.25
"""Starts within so long of each other share one look at git's files."""

REMOVED: Final = "it was taken out of the fleet file; midwatch reload stops it"


class Drift:
    """Looks for drift as long as the instance lives."""

    def __init__(self, house: Supervisor, changes: Changes) -> None:
        self._house = house
        self._changes = changes
        self._seen: tuple[int, ...] = ()
        self._file: dict[str, Entry] | None = None
        """The file's entries as they are now; None: it says what was loaded."""
        self._told_file = ""
        self._env_files: dict[str, tuple[tuple[int, ...], str]] = {}

    async def prepare(self) -> None:
        """Look what is checked out before anything is started."""
        try:
            async with asyncio.timeout(PREPARE_S):
                await self._house.versions.look(self._directories(running=False), dirty=True)
        except TimeoutError:
            pass  # the thread goes on, and the next look has it

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            until = time.monotonic() + LOOK_S
            while (left := until - time.monotonic()) > 0:
                await asyncio.sleep(min(GLANCE_S, left))
                if await asyncio.to_thread(self._written):
                    break

    async def follow_starts(self) -> None:
        """Look, just after runs were started, what they were really made of. Until cancelled.

        What a start says of git was seen up to LOOK_S before; a person may have pulled since.
        """
        versions = self._house.versions
        while True:
            await versions.woken.wait()
            versions.woken.clear()
            names, versions.fresh = versions.fresh, set()
            started = {n: k for n in names if (k := self._house.keepers.get(n))}
            directories = {n: self._house.outfit.place(n, k.agent) for n, k in started.items()}
            # also of runs that have ended already: the next one is judged by it
            await versions.look(directories.values(), dirty=True)
            for name, keeper in started.items():
                self._correct(name, keeper, versions.there(directories[name]))
            await asyncio.sleep(SHARE_S)

    def _correct(self, name: str, keeper: Keeper, found: Revision | None) -> None:
        versions = self._house.versions
        if keeper.run is None:
            return
        known = versions.ran_with(name)[1]
        versions.correct(name, found)
        if found != known:
            keeper.tell.revision(keeper.run.run_id, found.to_json() if found is not None else {})

    async def look(self) -> None:
        """Look once, and tell what has changed since the last time."""
        versions = self._house.versions
        await versions.look(self._directories(running=True), dirty=False)
        remark = await asyncio.to_thread(self._look_at_file)
        if remark is not None and remark != self._told_file:
            self._told_file = remark  # once for each state of the file
            self._house.say(f"midwatch: {remark}")
        hashes = await asyncio.to_thread(self._hash_env_files)
        for name, keeper in list(self._house.keepers.items()):
            self._tell(keeper, self._of(name, keeper, hashes.get(name)))
        wanted = versions.places()
        for sentence in await asyncio.to_thread(self._house.worktrees.tidy, wanted):
            self._house.say(f"midwatch: {sentence}")

    def loaded(self) -> None:
        """The file was loaded again: what was known of it is over."""
        self._seen, self._file, self._told_file = (), None, ""
        for name, keeper in self._house.keepers.items():
            self._tell(keeper, self._of(name, keeper, None))

    def _directories(self, *, running: bool) -> list[str]:
        return [
            self._house.outfit.directory(keeper.agent)
            for keeper in self._house.keepers.values()
            if keeper.run is not None or not running
        ]

    # -- the files, in a worker thread ---------------------------------------------------------

    def _written(self) -> bool:
        """Tell whether the fleet file is another than at the last look, and rests."""
        source = self._changes.source
        if source is None or not (mark := _mark(source.file)) or mark == self._seen:
            return False
        return not 0 <= time.time_ns() - mark[0] < QUIET_S * 1e9

    def _look_at_file(self) -> str | None:
        """Read the fleet file where it was touched; return what is worth a word on the console."""
        source = self._changes.source
        if source is None or (mark := _mark(source.file)) == self._seen:
            return None
        self._seen = mark
        if not mark:
            return f"the fleet file {str(source.file)!r} is gone; agents go on as it was loaded"
        if not self._changes.differs():
            self._file = None
            return None
        try:
            self._file = self._changes.read_entries(source.read())
        except FleetFileError as error:
            return (
                f"the fleet file was changed and has problems: see midwatch check -f {error.file}"
            )
        except MidwatchError as error:
            return f"the fleet file was changed and cannot be read: {error}"
        return "the fleet file was changed; midwatch reload takes it over"

    def _hash_env_files(self) -> dict[str, str]:
        """Return the hash of each running agent's env file; one that was not touched is not read again."""
        found: dict[str, str] = {}
        for name, keeper in list(self._house.keepers.items()):
            file = self._house.outfit.env_file(keeper.agent)
            if file is None or keeper.run is None:
                continue
            mark = _mark(file)
            known = self._env_files.get(str(file))
            if known is None or known[0] != mark:
                known = (mark, self._house.outfit.env_file_hash(keeper.agent))
                self._env_files[str(file)] = known
            found[name] = known[1]
        return found

    # -- sentences ---------------------------------------------------------------------------

    def _of(self, name: str, keeper: Keeper, env_file: str | None) -> list[str]:
        versions, directory = self._house.versions, self._house.outfit.directory(keeper.agent)
        note = keeper.tenure.note
        if keeper.run is None:
            return drift(None, None, self._by_file(name, None), note) + self._missing(name)
        content, revision = versions.ran_with(name)
        back = versions.back(name)
        if back is not None and env_file == back.env_file:
            env_file = content  # it is known, and was taken back
        if back is not None and back.code:
            found = drift(None, None, self._by_file(name, env_file), note) + self._missing(name)
            there = versions.there(directory)
            if not back.tried(there) and there is not None:
                found.append(
                    f"its code moved to {there.commit[:SHORT]}; midwatch restart {name} tries it"
                )
            return found
        differs = env_file is not None and content is not None and env_file != content
        found = drift(revision, versions.there(directory), self._by_file(name, env_file), note)
        if differs and self._by_file(name, env_file) is None:
            found.append("its env file changed since it was started; midwatch reload restarts it")
        return found + self._missing(name)

    def _by_file(self, name: str, env_file: str | None) -> Difference | None:
        """Return how the file's entry differs from the one that was loaded; None when it does not."""
        agent = self._house.fleet.agents.get(name)
        entry = None if self._file is None else self._file.get(name)
        if agent is None or entry is None:
            return None
        same = entry.env_file if env_file is None else self._house.versions.ran_with(name)[0]
        found = change.compare(Entry(agent, same or ""), Entry(entry.agent, env_file or same or ""))
        return found or None

    def _missing(self, name: str) -> list[str]:
        return [REMOVED] if self._file is not None and name not in self._file else []

    def _tell(self, keeper: Keeper, found: list[str]) -> None:
        if found == keeper.tenure.drift:
            return
        keeper.tenure.drift = found
        run_id = keeper.run.run_id if keeper.run else None
        keeper.tell.event("agent.drift", {"drift": found}, run_id)


def _mark(file: Path) -> tuple[int, ...]:
    """Return what changes when a file does; empty when it cannot be found."""
    try:
        found = file.stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino)
