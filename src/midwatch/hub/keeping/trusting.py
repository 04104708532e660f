"""Looks at the clocks before each round of keeping, remembers what it saw over restarts, and tells when they disagree."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.ports import IncidentBook
from midwatch.core.spans.reckoning import Reckoned, confirmed, look
from midwatch.wire.ids import new_id

WRITE_S: Final = 600.0
"""How old what was written may be when nothing else changed."""

KIND: Final = "clock-jump"

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
        steady: Callable[[], float] = steady,
        boot: Callable[[], str] = boot,
    ) -> None:
        """`file` remembers it; `clock` is the wall's; `tell` hears when a jump is seen, and when the clock is believed again."""
        self.now: Reckoned | None = None
        """What is known; None before the first look."""
        self._file = file
        self._counts = counts
        self._clock = clock
        self._tell = tell
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
        # meanwhile somebody may have confirmed it
        before = self.now if self.now is not None else before
        self.now = now = look(before, self._boot, self._clock(), self._steady(), last)
        await self._changed(now)
        return now.aged

    async def confirm(self) -> Reckoned:
        """Believe the wall clock as it is, because somebody looked at it; return how it is now."""
        before = self.now if self.now is not None else self._read()
        self.now = now = confirmed(look(before, self._boot, self._clock(), self._steady()))
        log.warning("the wall clock was confirmed; ages are reckoned by it")
        await self._changed(now)
        return now

    async def _changed(self, now: Reckoned) -> None:
        if self._written is None or self._written.need_s != now.need_s:
            if not now.believed:
                log.warning("%s", now.reason)
            self._write(now)
        elif abs(now.steady - self._written.steady) >= WRITE_S:
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


class ClockNews:
    """Tells of the clock as events of Midwatch itself: `clock.jumped`, `clock.steady`."""

    def __init__(
        self,
        append: Callable[[dict[str, Any]], Awaitable[object]],
        book: IncidentBook,
        clock: Callable[[], float],
        agent: str,
    ) -> None:
        self._append = append
        self._book = book
        self._clock = clock
        self._agent = agent

    async def __call__(self, now: Reckoned) -> None:
        """Tell how the clock is. That all is well is told only while its incident is open. Raises StoreError."""
        if not now.jumped and not any(i.kind == KIND for i in await self._book.open_incidents()):
            return
        await self._append(
            {
                "id": new_id(),
                "agent": self._agent,
                "at": round(self._clock(), 6),
                "kind": "clock.jumped" if now.jumped else "clock.steady",
                "data": {
                    "reason": now.reason,
                    "off_s": round(now.off_s, 3),
                    "need_s": now.need_s,
                    "aged": round(now.aged, 3),
                },
            }
        )
