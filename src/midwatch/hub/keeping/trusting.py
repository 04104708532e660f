"""Looks at the clocks before each round of keeping, remembers what it saw over restarts, and tells when they disagree."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.ports import Marks
from midwatch.core.spans.reckoning import Reckoned, agreed, confirmed, look
from midwatch.wire.ids import new_id

WRITE_S: Final = 600.0
"""How old what was written may be when nothing else changed."""

CONFIRMED: Final = "clock_confirmed"
"""The mark of when a clock was confirmed last: microseconds since 1970, by that clock."""

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")

log = logging.getLogger(__name__)

TellClock = Callable[[Reckoned], Awaitable[None]]


def steady() -> float:
    """Return seconds that count on while the machine sleeps, where it can tell."""
    kind = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if kind is None else time.clock_gettime(kind)


def boot() -> str:
    """Return a text that is another one after the machine was started anew; where none is known, an empty one."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


def _time(said: Any) -> float:
    found = float(said)
    if not math.isfinite(found):
        raise ValueError(f"{found} is no time")
    return found


class ClockTrust:
    """The time by which ages are reckoned. `aged` once before each round."""

    def __init__(
        self,
        file: Path,
        counts: Counts,
        clock: Callable[[], float],
        tell: TellClock | None = None,
        *,
        marks: Marks | None = None,
        steady: Callable[[], float] = steady,
        boot: Callable[[], str] = boot,
    ) -> None:
        """`file` remembers it; `clock` is the wall's; `tell` hears when a jump is seen, and when the clock is believed again.
        `marks` are those of all hubs of the fleet: by them one hub's confirmation holds for all."""
        self.now: Reckoned | None = None
        """What is known; None before the first look."""
        self._file = file
        self._counts = counts
        self._clock = clock
        self._tell = tell
        self._marks = marks
        self._steady = steady
        # where no boot is known, each process counts for itself
        self._boot = boot() or new_id()
        self._written: Reckoned | None = None
        self._told: bool | None = None

    async def aged(self, newest: Callable[[], Awaitable[float | None]]) -> float:
        """Return the time by which ages are reckoned now (Unix seconds). `newest` returns the time of the newest that
        is stored, if anything is. What cannot be written or told is counted, and tried again with the next look."""
        before = self.now if self.now is not None else self._read()
        # asked for first: between the two clocks nothing may take its time
        last = await newest() if before is None else None
        said = await self._confirmed()
        # meanwhile somebody may have confirmed it
        before = self.now if self.now is not None else before
        now = look(before, self._boot, self._clock(), self._steady(), last)
        if said is not None:
            now = agreed(now, said)
        self.now = now
        await self._changed(now)
        return now.aged

    async def confirm(self) -> Reckoned:
        """Believe the wall clock as it is, because somebody looked at it; return how it is now. All hubs of the fleet
        whose clocks agree do so with their next look. Raises StoreError: then none does."""
        micros = round(self._clock() * 1e6)
        if self._marks is not None:
            await self._marks.put(CONFIRMED, micros)
        before = self.now if self.now is not None else self._read()
        now = confirmed(look(before, self._boot, self._clock(), self._steady()))
        self.now = now = replace(now, heard=micros / 1e6)
        log.warning("the wall clock was confirmed; ages are reckoned by it")
        await self._changed(now)
        return now

    async def _confirmed(self) -> float | None:
        """Return when a hub's clock was confirmed last; None as well where that cannot be known now."""
        try:
            micros = None if self._marks is None else await self._marks.get(CONFIRMED)
        except StoreError as error:
            self._counts.add("keeping_failures", "clock")
            log.warning("whether the clock was confirmed is not known: %s", error)
            return None
        return None if micros is None else micros / 1e6

    async def _changed(self, now: Reckoned) -> None:
        written = self._written
        if written is None or (written.need_s, written.heard) != (now.need_s, now.heard):
            if not now.believed:
                log.warning("%s", now.reason)
            self._write(now)
        elif abs(now.steady - written.steady) >= WRITE_S:
            self._write(now)
        if self._tell is not None and self._told is not now.jumped:
            try:
                await self._tell(now)
                self._told = now.jumped
            except StoreError as error:
                self._counts.add("keeping_failures", "clock")
                log.error("the state of the clock is not told: %s", error)  # noqa: TRY400  its words suffice

    def _read(self) -> Reckoned | None:
        try:
            said: dict[str, Any] = json.loads(self._file.read_text())
            numbers = {k: _time(v) for k, v in said.items() if k != "boot"}
            found = Reckoned(str(said["boot"]), **numbers)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, ArithmeticError, TypeError, KeyError, AttributeError) as error:
            self._counts.add("keeping_failures", "clock")
            log.warning(
                "%s is not used: %s; what is stored tells how late it is", self._file, error
            )
            return None
        self._written = found
        return found

    def _write(self, now: Reckoned) -> None:
        part = self._file.with_name(f"{self._file.name}.part")
        try:
            part.write_text(json.dumps(asdict(now)))
            part.replace(self._file)
        except OSError as error:
            self._counts.add("keeping_failures", "clock")
            log.error("%s cannot be written: %s", self._file, error.strerror)  # noqa: TRY400
            return
        self._written = now
