"""Measures the directories that belong to single agents, beside the loop.

An agent owns its `cwd`, when the fleet file gives it one, no other agent works in it, above it or
below it, and neither the fleet file's directory nor Midwatch's data lies inside. Any other place is
shared, and what fills it is nobody's in particular. Only what is allocated counts: a hole in a file
fills no disk.

However many files there are, all are looked at, in slices: a quarter of one core at most for all
agents together, and no large directory keeps a small one waiting. What is remembered on the way is
bounded, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Final

from midwatch.core.fleet import Fleet
from midwatch.supervisor.machine.aside import Aside
from midwatch.supervisor.machine.system import Counters

REST: Final = 3.0
"""Pauses, as a multiple of the work: a quarter of one core, about 30,000 files a second."""

STEP: Final = 32
"""Files between two moments at which somebody else may have a turn."""

MAX_WALKS: Final = 8
"""Directories that are measured in turns; more wait."""

MAX_OPEN: Final = 16
"""Directories that one measurement has open: each level down is one. What is deeper comes later. With
MAX_WALKS this is what agents' starts have fewer descriptors for."""

MAX_LINKED: Final = 200_000
"""Files with several names that are remembered by their inode. Of more, each name counts for its part:
never too much, and too little only where a name lies elsewhere."""

OWNED_S: Final = 30.0
"""How old the knowledge of whose directory is whose may be, as long as the fleet is the same."""

BLOCK: Final = 512
"""Unit of st_blocks."""


def owned(directories: Mapping[str, str], shared: list[str]) -> dict[str, str]:
    """Return the directory of each agent that has one of its own.

    `directories` holds the `cwd` of every agent that has one; `shared` is what must not lie inside.
    """
    real = {name: os.path.realpath(directory) for name, directory in directories.items()}
    rest = [_key(os.path.realpath(path)) for path in shared]
    # among sorted paths a directory is followed by all that lies in it
    order = sorted((_key(path), name) for name, path in real.items())
    found: dict[str, str] = {}
    above = ""
    for number, (key, name) in enumerate(order):
        is_below = bool(above) and key.startswith(above)
        above = above if is_below else key
        holds = number + 1 < len(order) and order[number + 1][0].startswith(key)
        if not is_below and not holds and not any(path.startswith(key) for path in rest):
            found[name] = real[name]
    return found


def _key(path: str) -> str:
    return path.rstrip("/") + "/"


def allocated(directory: str) -> Generator[None, None, int | None]:
    """Return, in steps, the bytes that everything in the directory takes; None when it cannot be read.

    Links are not followed, other file systems are not entered, hard links count once. What cannot be
    seen (gone, or closed to us) does not count.
    """
    total = count = 0
    linked: set[int] = set()
    try:
        device = os.stat(directory).st_dev  # noqa: PTH116 - one Path per file would double the cost
        walk = _Walk(directory)
    except OSError:
        return None
    with contextlib.closing(walk):
        for entry in walk:
            count += 1
            if count % STEP == 0:
                yield
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            used = info.st_blocks * BLOCK
            if stat.S_ISDIR(info.st_mode):
                if info.st_dev == device:
                    walk.enter(entry.path)
            elif info.st_nlink > 1:
                if info.st_ino in linked:
                    continue
                if len(linked) < MAX_LINKED:
                    linked.add(info.st_ino)
                else:
                    used //= info.st_nlink
            total += used
    return None if walk.failed else total


class _Walk:
    """Yields what lies in a directory and in those that are entered on the way, deepest first."""

    def __init__(self, directory: str) -> None:
        """Raises OSError."""
        self.failed = False
        """There were no descriptors left: what follows would be a count of a part."""
        self._open = [os.scandir(directory)]
        self._later: list[str] = []

    def enter(self, path: str) -> None:
        if len(self._open) < MAX_OPEN:
            self._scan(path)
        else:
            self._later.append(path)

    def __iter__(self) -> Iterator[os.DirEntry[str]]:
        while not self.failed and (self._open or self._later):
            if not self._open:
                self._scan(self._later.pop())
                continue
            try:
                entry = next(self._open[-1], None)
            except OSError:
                entry = None  # gone in the middle
            if entry is None:
                self._open.pop().close()
            else:
                yield entry

    def _scan(self, path: str) -> None:
        try:
            self._open.append(os.scandir(path))
        except OSError as error:
            self.failed = error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

    def close(self) -> None:
        for entries in self._open:
            entries.close()


class Scales:
    """Weighs the agents' own directories. `fleet` returns the fleet as it is now; `data` is Midwatch's
    own directory."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fleet: Callable[[], Fleet],
        data: str,
        counters: Counters,
    ) -> None:
        self._fleet = fleet
        self._data = data
        self._aside = Aside(loop, "midwatch-scales", counters, rest=REST)
        self._known: tuple[Fleet, float, dict[str, str]] | None = None
        self._waiting: deque[tuple[str, Callable[[int | None], None]]] = deque()
        self._walks = 0

    def weigh(self, name: str, done: Callable[[int | None], None]) -> None:
        """Measure the agent's own directory and tell `done`; None when it has none, or it cannot be
        read."""
        self._waiting.append((name, done))
        self._begin()

    def close(self) -> None:
        """Stop measuring; nobody is told any more."""
        self._aside.close()

    def _begin(self) -> None:
        while self._waiting and self._walks < MAX_WALKS:
            name, done = self._waiting.popleft()
            self._walks += 1
            self._aside.do(self._weigh(name), lambda used, done=done: self._told(done, used))

    def _told(self, done: Callable[[int | None], None], used: int | None) -> None:
        self._walks -= 1
        self._begin()
        done(used)

    def _weigh(self, name: str) -> Generator[None, None, int | None]:
        directory = self._owned().get(name)
        yield
        return None if directory is None else (yield from allocated(directory))

    def _owned(self) -> dict[str, str]:
        """Whose directory is whose: in the thread, because each part of a path is looked up on a disk."""
        fleet, now, known = self._fleet(), time.monotonic(), self._known
        if known is None or known[0] is not fleet or now - known[1] > OWNED_S:
            known = self._known = (fleet, now, own_directories(fleet, self._data))
        return known[2]


def own_directories(fleet: Fleet, data: str) -> dict[str, str]:
    """Return by agent the directory that is its own, of those in the fleet file."""
    root = Path(fleet.root).absolute()
    cwds = {n: str(root / Path(a.cwd).expanduser()) for n, a in fleet.agents.items() if a.cwd}
    return owned(cwds, [str(root), data])
