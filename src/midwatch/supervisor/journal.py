"""What survives the supervisor's death: who was held by whom, which runs lived, when it was last alive.

Lines of `wire.journal`; a torn one is skipped and counted. Each line updates one agent's record or
the supervisor's own. The file is rewritten at each start and when it grows, by an atomic rename.
Appends reach the kernel at once (they survive our death); what a person decided is also synced to
the disk (it survives the machine's).

An agent that left the fleet is forgotten when the file is rewritten: its record says nothing that
anybody needs, except for what a person decided about it, and for a single start that was made. Those
are kept for a year, should it come back, and not more than so many.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from midwatch.core.errors import SetupError
from midwatch.core.schedule import ONCE
from midwatch.wire import journal as lines

COMPACT_BYTES: Final = 1024 * 1024
"""Size at which the file is rewritten, unless what is known fills half of it."""

MEMORY_S: Final = 366 * 86_400.0
"""How long what is needed of an agent that left the fleet is kept."""

MEMORY_MAX: Final = 1000
"""Of so many such agents, those that left last."""

ALIVE_EVERY_S: Final = 2.0
"""How often the supervisor notes that it lives: the error of the gap that an incident shows."""


@dataclass(slots=True)
class Record:
    """What is remembered of one agent, or of hub and gateway."""

    held: str | None = None
    """State that only a person ends: stopped, parked, suspended. None: should run."""
    reason: str = ""
    since: float = 0.0
    entry: str = ""
    """Fingerprint of its entry in the fleet file when it was held."""
    run_id: str | None = None
    """The run that lives; None when none does."""
    pid: int = 0
    started: float = 0.0
    run_since: float = 0.0
    failures: int = 0
    streak: dict[str, Any] | None = None
    """What those failures were (`core.restart.Streak`)."""
    plan: str = ""
    """The rule of its schedule that `fired` and `owed` speak of."""
    fired: float | None = None
    """The last time of its schedule that is settled: started, missed and told, or before the rule was known."""
    owed: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    """Starts that are to be made, the next one first: (time in the rule, `core.schedule.Kind`)."""
    left: float | None = None
    """When it left the fleet; None: it is in it, or nothing of this record was needed then."""

    @property
    def needed(self) -> bool:
        """Something of it would count, should the agent come back: a person's decision, a single start."""
        return self.held is not None or self.plan.startswith(ONCE)


@dataclass(slots=True)
class Book:
    """All that the journal knows."""

    records: dict[str, Record] = field(default_factory=dict[str, Record])
    alive_at: float | None = None
    clean: bool = True
    """False while a supervisor works, and after its sudden death."""
    recent_runs: list[str] = field(default_factory=list[str])
    """Runs that ended lately: what they left behind may still live."""


RECENT_RUNS: Final = 1000

POST: Final = "/"
"""Begins the names of hub and gateway, and of no agent."""


class Journal:
    """The journal of one data directory; opening it reads and compacts it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        self.failed_writes = 0
        self.book = Book()
        self._fd = -1
        self._size = 0
        self._compact_at = COMPACT_BYTES
        self._fleet: Collection[str] | None = None
        """The agents of the fleet; None: not known yet, and nobody is forgotten."""
        self._torn = False
        """Whether the file no longer holds all that is known: the next write rewrites it."""
        self._read()
        try:
            self.compact()
        except OSError as error:
            raise SetupError(
                f"cannot write {str(path)!r}: {error.strerror}; free space or choose another directory with --data"
            ) from error

    def of(self, name: str) -> Record:
        """Return the record of `name`, empty when it is new."""
        return self.book.records.setdefault(name, Record())

    def hold(self, name: str, state: str | None, reason: str, at: float, entry: str = "") -> None:
        """Remember that an agent stays in `state` until a person says otherwise; None releases it."""
        record = self.of(name)
        if record.held == state and record.reason == reason:
            return
        self._update(
            name, {"held": state, "reason": reason, "since": at, "entry": entry}, sync=True
        )

    def started(
        self,
        name: str,
        run_id: str,
        pid: int,
        started: float,
        at: float,
        owed: list[tuple[float, str]] | None = None,
    ) -> None:
        """Remember a run, and in the same line what its schedule still owes, when that has changed."""
        change = {"run_id": run_id, "pid": pid, "started": started, "run_since": at}
        self._update(name, change if owed is None else {**change, "owed": owed})

    def ended(self, name: str, failures: int, streak: dict[str, Any] | None = None) -> None:
        kept = {} if streak is None else {"streak": streak}
        self._update(name, {"run_id": None, "pid": 0, "failures": failures, **kept})

    def schedule(self, name: str, **change: Any) -> None:
        """Remember what changed of `plan`, `fired` and `owed`."""
        self._update(name, change)

    def begin(self, names: Collection[str], at: float) -> None:
        """Take which agents there are. What an earlier supervisor had left of others has been ended."""
        for name, record in list(self.book.records.items()):
            if record.run_id is not None and self._is_stranger(name, names):
                self.ended(name, 0)
        self.fleet(names, at)

    def fleet(self, names: Collection[str], at: float) -> None:
        """Take which agents there are from now on; others are forgotten when nothing of them is needed."""
        self._fleet = frozenset(names)
        for name, record in list(self.book.records.items()):
            gone = record.needed and self._is_stranger(name, names)
            left = (record.left or at) if gone else None
            if left != record.left:
                self._update(name, {"left": left})

    @staticmethod
    def _is_stranger(name: str, names: Collection[str]) -> bool:
        return name not in names and not name.startswith(POST)

    def alive(self, at: float) -> None:
        self._own({"alive_at": at, "clean": False})

    def stopped(self, at: float) -> None:
        """Mark a stop in good order."""
        self._own({"alive_at": at, "clean": True}, sync=True)

    def compact(self) -> None:
        """Rewrite the file with what is needed. Raises OSError and leaves the old file as it was."""
        self._forget()
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self.path.with_name(self.path.name + ".new")
        own = {
            "alive_at": self.book.alive_at,
            "clean": self.book.clean,
            "recent": self.book.recent_runs,
        }
        body = lines.encode({"own": own}) + b"".join(
            lines.encode({"agent": name, **asdict(record)})
            for name, record in self.book.records.items()
        )
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(fd, body)
            os.fsync(fd)
            fresh.replace(self.path)
            _sync_folder(self.path.parent)
        except OSError:
            os.close(fd)
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._size = fd, len(body)
        self._compact_at = max(COMPACT_BYTES, 2 * len(body))

    def _forget(self) -> None:
        """Drop the records of agents that left the fleet, once no run of theirs lives."""
        if self._fleet is None:
            return
        records, now = self.book.records, self.book.alive_at or 0.0
        needed: list[tuple[float, str]] = []
        for name, record in list(records.items()):
            if record.run_id is not None or not self._is_stranger(name, self._fleet):
                continue
            left = now if record.left is None else record.left
            if record.needed and now - left <= MEMORY_S:
                needed.append((left, name))
            else:
                del records[name]
        for _, name in sorted(needed, reverse=True)[MEMORY_MAX:]:
            del records[name]

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        try:
            with self.path.open("rb") as file:
                for item in lines.decode(iter(file)):
                    self._apply(item)
        except FileNotFoundError:
            return
        except OSError as error:
            raise SetupError(
                f"cannot read {str(self.path)!r}: {error.strerror}; it must belong to you"
            ) from error

    def _apply(self, item: Any) -> None:
        if not isinstance(item, dict):
            self.damaged += 1
            return
        change: dict[str, Any] = item  # pyright: ignore[reportUnknownVariableType]
        if "own" in change:
            own: dict[str, Any] = change["own"]
            self.book.alive_at = own.get("alive_at", self.book.alive_at)
            self.book.clean = own.get("clean", self.book.clean)
            self.book.recent_runs = own.get("recent", self.book.recent_runs)
            return
        record = self.of(str(change.get("agent")))
        if change.get("run_id", record.run_id) != record.run_id and record.run_id is not None:
            self.book.recent_runs.append(record.run_id)
            del self.book.recent_runs[:-RECENT_RUNS]
        for name in Record.__slots__:
            if name in change:
                setattr(record, name, change[name])

    def _update(self, name: str, change: dict[str, Any], *, sync: bool = False) -> None:
        item = {"agent": name, **change}
        self._apply(item)
        self._append(item, sync=sync)

    def _own(self, change: dict[str, Any], *, sync: bool = False) -> None:
        self._apply({"own": change})
        self._append({"own": change}, sync=sync)

    def _append(self, item: dict[str, Any], *, sync: bool) -> None:
        try:
            line = lines.encode(item)
            if self._torn or self._size + len(line) > self._compact_at:
                self.compact()  # a line after a torn one would be lost with it
                self._torn = False
                return
            _write_all(self._fd, line)
            self._size += len(line)
            if sync:
                os.fdatasync(self._fd) if hasattr(os, "fdatasync") else os.fsync(self._fd)
        except OSError:  # disk full: agents matter more than their history
            self.failed_writes += 1
            self._torn = True


def _sync_folder(folder: Path) -> None:
    """Let a rename survive the machine's death: what is appended from now on goes to the new file."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
