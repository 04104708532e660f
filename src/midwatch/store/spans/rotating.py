"""When a generation has had enough, and what becomes of a rotation that fails: what was committed before it stays."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import duckdb

from midwatch.store.duck import first_line
from midwatch.store.spans.generation import Generation

AGAIN_S: Final = 1.0
"""How soon a rotation that failed is tried again; until then the generation grows."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Due:
    """When a generation has had enough."""

    rows: int = 250_000
    """Spans, contents, points and log records."""
    log_bytes: int = 128 * 1024 * 1024
    """Of its log: what a start after a crash replays."""
    age_s: float = 600.0
    """On the monotonic clock; one in which nothing is written ends only when it should be smaller."""
    idle_bytes: int = 1024 * 1024
    """Of the log of one that holds no rows: what probes and announcements leave behind."""

    def full(self, hot: Generation) -> bool:
        """Tell whether nothing more should be written to it."""
        return sum(hot.rows.values()) >= self.rows or hot.log_bytes >= self.log_bytes

    def old(self, hot: Generation, age_s: float) -> bool:
        """Tell whether it should be sealed, after so long."""
        if age_s < self.age_s:
            return False
        return any(hot.rows.values()) or hot.log_bytes > self.idle_bytes


class Rotation:
    """Rotates behind commits. For the writing thread."""

    def __init__(
        self, due: Due, rotate: Callable[[], None], failed: Callable[[Exception], None]
    ) -> None:
        """`failed` hears of a rotation that could not be done."""
        self._due = due
        self._rotate = rotate
        self._failed = failed
        self._again_at = 0.0

    def behind(self, hot: Generation) -> None:
        """Rotate if the generation is full. Never raises for its disk: what was committed is not refused for it."""
        if not self._due.full(hot) or time.monotonic() < self._again_at:
            return
        try:
            self._rotate()
        except (duckdb.Error, OSError) as error:
            self._again_at = time.monotonic() + AGAIN_S
            log.error("the next generation is begun later: %s", first_line(error))  # noqa: TRY400  its words suffice
            self._failed(error)
