"""Small documents that outlive the process: holds, keys, runs that ended. JSON, replaced whole, mode 0600.

What is put counts at once in memory, and is on disk when `saved` returns: written by a thread, flushed, renamed.
After a crash the file is the old one or the new one. Several gateways of one data directory share a document:
each change is a function of an entry, done again under a lock on what the file holds then, so that nobody's change
undoes another's; `look` takes over what others wrote. A document of a newer version is refused, never overwritten.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Final, cast

from midwatch.core.errors import SetupError

VERSION: Final = 1

RETRY_S: Final = 1.0
"""Pause before a document that could not be written is tried again."""

SAVED_S: Final = 2.0
"""How long somebody waits for what they put to be on disk; then it is told that it is not yet."""

LOCK_S: Final = 1.0
"""How long the lock of another process is waited for: it is held for milliseconds."""

MAX_BYTES: Final = 64 * 1024 * 1024

MAX_PENDING: Final = 64
"""Changes of one entry that wait for the disk one by one; of more, what they came to here is written."""

Entry = dict[str, Any]
Change = Callable[[Entry | None], Entry | None]
"""What an entry becomes of what it is; None: it is not there. Done more than once: it may look at nothing else."""

log = logging.getLogger(__name__)


class Kept:
    """One document: entries by name. Used from the event loop, files are touched in a thread."""

    def __init__(self, path: Path, changed: Callable[[], object] = lambda: None) -> None:
        """`changed` is called when entries differ from what they were, whoever changed them."""
        self.entries: dict[str, Entry] = {}
        self.failures = 0
        """Times that it could not be written; it is tried again until it is."""
        self.problem: str | None = None
        """Why what is in memory is not on disk; None when it is."""
        self._path = path
        self._changed = changed
        self._pending: dict[str, tuple[Change, ...]] = {}
        self._seen: tuple[int, int] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._failed_at: float | None = None
        self._clock = time.monotonic

    def open(self) -> None:
        """Read it; one that is not there is empty. Raises SetupError. Blocking."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SetupError(f"{str(self._path.parent)!r}: {error.strerror}") from None
        self.entries, self._seen = self._read()

    def put(self, name: str, entry: Entry) -> None:
        """Set an entry, whatever it was. In force at once."""
        self.change(name, _to(entry))

    def drop(self, name: str) -> None:
        """Remove an entry, if it is there. In force at once."""
        if name in self.entries:
            self.change(name, _to(None))

    def change(self, name: str, change: Change) -> None:
        """Change an entry; on disk, as another process may have left it since. In force at once."""
        _lay(self.entries, name, (change,))
        waiting = (*self._pending.get(name, ()), change)
        if len(waiting) > MAX_PENDING:  # the disk is full, and has been for long
            waiting = (_to(self.entries.get(name)),)
        self._pending[name] = waiting
        if self._writing is None or self._writing.done():
            self._begin()
        self._changed()

    async def saved(self) -> None:
        """Return when all that was put is on disk. Raises OSError when it cannot be written now, or is not within
        `SAVED_S`: a disk that hangs keeps nobody waiting, and what was put is in force all the same."""
        try:
            async with asyncio.timeout(SAVED_S):
                while self._pending:
                    if self._writing is None or self._writing.done():
                        self._begin()
                    assert self._writing is not None
                    await asyncio.shield(self._writing)
                    if self.problem is not None:
                        raise OSError(self.problem)
        except TimeoutError:
            late = (
                f"{self._path.name} is not on disk after {SAVED_S:g} s; it is still being written"
            )
            raise OSError(late) from None

    async def look(self) -> None:
        """Take over what another process wrote."""
        if self._pending:
            due = self._failed_at is None or self._clock() - self._failed_at >= RETRY_S
            if due and (self._writing is None or self._writing.done()):
                self._begin()
            return
        if self._stamp() == self._seen:
            return
        try:
            entries, seen = await asyncio.to_thread(self._read)
        except SetupError as error:
            self.problem = str(error)  # the last good one stays in force
            return
        if not self._pending:
            self.problem, self._seen = None, seen
            self._take(entries)

    def _begin(self) -> None:
        self._writing = asyncio.get_running_loop().create_task(self._save())

    async def _save(self) -> None:
        while self._pending:
            batch = dict(self._pending)
            try:
                entries, seen = await asyncio.to_thread(self._merge, batch)
            except (OSError, SetupError) as error:
                self.failures += 1
                self._failed_at = self._clock()
                problem = f"{self._path.name} cannot be written: {error}"
                if problem != self.problem:
                    log.warning(
                        "%s; what it should hold is in force until the gateway ends", problem
                    )
                self.problem = problem
                return
            for name, done in batch.items():
                waiting = self._pending[name]
                if waiting[: len(done)] == done:
                    waiting = waiting[len(done) :]
                if waiting:
                    self._pending[name] = waiting
                else:
                    del self._pending[name]
            self.problem, self._failed_at, self._seen = None, None, seen
            for name, changes in self._pending.items():  # what came in the meantime
                _lay(entries, name, changes)
            self._take(entries)

    def _take(self, entries: dict[str, Entry]) -> None:
        if entries != self.entries:
            self.entries = entries
            self._changed()

    # -- in a thread ---------------------------------------------------------------------------------

    def _merge(
        self, batch: Mapping[str, tuple[Change, ...]]
    ) -> tuple[dict[str, Entry], tuple[int, int] | None]:
        with self._locked():
            entries, _ = self._read()
            for name, changes in batch.items():
                _lay(entries, name, changes)
            self._write(json.dumps({"v": VERSION, "entries": entries}, indent=1).encode() + b"\n")
            return entries, self._stamp()

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        fd = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            until = time.monotonic() + LOCK_S
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise OSError("another process holds its lock") from None
                    time.sleep(0.005)
            yield
        finally:
            os.close(fd)

    def _read(self) -> tuple[dict[str, Entry], tuple[int, int] | None]:
        what = f"{self._path.parent.name}/{self._path.name}"
        try:
            with self._path.open("rb") as stream:
                found = os.fstat(stream.fileno())
                data = stream.read(MAX_BYTES)
        except FileNotFoundError:
            return {}, None
        except OSError as error:
            raise SetupError(f"{what} cannot be read: {error.strerror}") from None
        try:
            document = json.loads(data)
            version, entries = document["v"], document["entries"]
            sound = isinstance(entries, dict) and all(
                isinstance(entry, dict) for entry in cast("dict[str, object]", entries).values()
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            version, entries, sound = VERSION, {}, False
        if version != VERSION:
            raise SetupError(
                f"{what} is of version {str(version)[:20]!r}, and this midwatch knows {VERSION}; update midwatch"
            )
        if not sound:
            raise SetupError(
                f"{what} is damaged; put a copy back, or remove it, which forgets all that it held"
            )
        return cast("dict[str, Entry]", entries), (found.st_ino, found.st_mtime_ns)

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return (found.st_ino, found.st_mtime_ns)

    def _write(self, data: bytes) -> None:
        fresh = self._path.with_name(f"{self._path.name}.new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        fresh.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _to(entry: Entry | None) -> Change:
    return lambda _: entry


def _lay(entries: dict[str, Entry], name: str, changes: tuple[Change, ...]) -> None:
    entry = entries.get(name)
    for change in changes:
        entry = change(entry)
    if entry is None:
        entries.pop(name, None)
    else:
        entries[name] = entry
