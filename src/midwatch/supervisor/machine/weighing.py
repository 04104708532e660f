"""Measures the directories that belong to single agents, in a thread of its own.

An agent owns its `cwd`, when the fleet file gives it one, no other agent works in it, above it or
below it, and neither the fleet file's directory nor Midwatch's data lies inside. Any other place is
shared, and what fills it is nobody's in particular. Only what is allocated counts: a hole in a file
fills no disk.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from midwatch.core.fleet import Fleet

MAX_ENTRIES: Final = 200_000
"""Files and directories that are looked at. A directory with more is not measured: a count of a part
would be a wrong one."""

BLOCK: Final = 512
"""Unit of st_blocks."""


def owned(directories: Mapping[str, str], shared: list[str]) -> dict[str, str]:
    """Return the directory of each agent that has one of its own.

    `directories` holds the `cwd` of every agent that has one; `shared` is what must not lie inside.
    """
    real = {name: os.path.realpath(directory) for name, directory in directories.items()}
    rest = [os.path.realpath(path) for path in shared]
    found: dict[str, str] = {}
    for name, mine in real.items():
        others = [its for other, its in real.items() if other != name]
        if any(_within(its, mine) or _within(mine, its) for its in others):
            continue
        if not any(_within(path, mine) for path in rest):
            found[name] = mine
    return found


def allocated(directory: str, most: int = MAX_ENTRIES) -> int | None:
    """Return the bytes that everything in the directory takes; None when it cannot be read whole.

    Links are not followed, other file systems are not entered, hard links count once.
    """
    total, seen = 0, 0
    linked: set[int] = set()
    try:
        device = os.stat(directory).st_dev  # noqa: PTH116 - one Path per file would double the cost
    except OSError:
        return None
    queue = [directory]
    while queue:
        try:
            with os.scandir(queue.pop()) as entries:
                for entry in entries:
                    seen += 1
                    if seen > most:
                        return None
                    try:
                        info = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
                        if info.st_ino in linked:
                            continue
                        linked.add(info.st_ino)
                    total += info.st_blocks * BLOCK
                    if stat.S_ISDIR(info.st_mode) and info.st_dev == device:
                        queue.append(entry.path)
        except OSError:
            continue  # gone, or closed to us: what cannot be seen does not count
    return total


class Scales:
    """Weighs in one thread, so that a slow disk holds up neither the loop nor a second thread."""

    def __init__(
        self, whole: Callable[[], dict[str, str]], soon: Callable[[Callable[[], None]], object]
    ) -> None:
        """`whole` returns the owned directories as they are now; `soon` calls in the loop's thread."""
        self._owned = whole
        self._soon = soon
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="weighing")
        self._closed = False

    def weigh(self, name: str, done: Callable[[int | None], None]) -> None:
        """Measure the agent's own directory and tell `done`."""
        directory = self._owned().get(name)
        if directory is None or self._closed:
            return

        def work() -> None:
            used = allocated(directory)
            if not self._closed:
                self._soon(lambda: done(used))

        self._pool.submit(work)

    def close(self) -> None:
        """Stop; what is being measured is measured to its end, and told nobody."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)


def own_directories(fleet: Fleet, data: str) -> dict[str, str]:
    """Return by agent the directory that is its own, of those in the fleet file."""
    root = Path(fleet.root).absolute()
    cwds = {n: str(root / Path(a.cwd).expanduser()) for n, a in fleet.agents.items() if a.cwd}
    return owned(cwds, [str(root), data])


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
