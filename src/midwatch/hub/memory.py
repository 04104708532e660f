"""What this process holds of memory without need, given back to the system when it has worked and when it rests.

Two things stay otherwise. glibc keeps what threads freed: each has an arena of its own, of which only the top goes
back by itself, and a burst of telemetry leaves tens of megabytes. And code that ran once, mostly while the process
started, stays mapped: it counts as resident, and is spared when the system is short, as if it were in use; half of an
idle hub was that. Nothing is lost by either: pages of free memory are empty, pages of code are the file's.
"""

from __future__ import annotations

import asyncio
import ctypes
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

LOOK_EVERY_S: Final = 30.0
"""How often it is looked whether there was work."""

FIRST_S: Final = 0.5
"""When it is looked first: a start is done with what it loaded."""

WORKED_S: Final = 0.1
"""Processor time since the last look from which on it is worth it: giving back takes some milliseconds itself."""

MAPS: Final = Path("/proc/self/smaps")

_REGION = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-([x-])p \S+ \S+ [1-9]\d* +/.*\.so(?:\.[\d.]+)?\n")
_HEAD = re.compile(r"[0-9a-f]+-[0-9a-f]+ ")
_DONTNEED: Final = 4
"""MADV_DONTNEED of Linux."""


class Region(NamedTuple):
    """A range of addresses."""

    start: int
    size: int


def code_regions(maps: list[str]) -> list[Region]:
    """Return where code and constants of libraries are mapped, by the lines of `/proc/PID/smaps`.

    Only what is as it is in the file: a region in which the loader or a debugger wrote has pages of its own, which
    would be lost. Only of libraries: they are never unmapped here, so that a region that was found stays that region.
    """
    found: list[Region] = []
    region: Region | None = None
    for line in maps:
        if _HEAD.match(line):
            named = _REGION.fullmatch(line)
            region = (
                Region(int(named[1], 16), int(named[2], 16) - int(named[1], 16)) if named else None
            )
        elif region is not None and line.startswith("Anonymous:"):
            if line.split()[1] == "0":
                found.append(region)
            region = None
    return found


class Memory:
    """Gives back what was freed and what is not run. On systems that know neither it does nothing."""

    def __init__(self, maps: Path = MAPS) -> None:
        self._maps = maps
        library = ctypes.CDLL(None)
        self._trim: Callable[[int], int] | None = getattr(library, "malloc_trim", None)
        self._advise: Callable[..., int] | None = getattr(library, "madvise", None)

    def trim(self) -> None:
        """Give back what was freed, now. Other threads may go on working."""
        if self._trim is not None:
            self._trim(0)

    def let_code_go(self) -> None:
        """Unmap code, now. Other threads may go on working: what they run comes back by itself, a page at a time."""
        if self._advise is None:
            return
        try:
            with self._maps.open(encoding="utf-8", errors="replace") as lines:
                regions = code_regions(list(lines))
        except OSError:
            return
        for start, size in regions:
            self._advise(ctypes.c_void_p(start), ctypes.c_size_t(size), _DONTNEED)

    def give_back(self) -> None:
        """Do both."""
        self.trim()
        self.let_code_go()

    async def keep_low(self) -> None:
        """Give back after the start; from then on what was freed whenever there was work, and code when there is no
        more: what the next post or question runs had better stay. Runs until it is cancelled."""
        await asyncio.sleep(FIRST_S)
        await asyncio.to_thread(self.give_back)
        before, mapped = time.process_time(), False
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            worked = time.process_time() - before >= WORKED_S
            if worked:
                await asyncio.to_thread(self.trim)
            elif mapped:
                await asyncio.to_thread(self.let_code_go)
            before, mapped = time.process_time(), worked
