"""Chooses lines of one agent's log: by time, level and pattern. The same for commands and the API."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from midwatch.core import loglines
from midwatch.core.loglines import STAMP_LENGTH
from midwatch.store.grep import Grep

AT_ONCE: Final = 2_000
"""Lines that are asked of the pattern together."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line that was chosen."""

    raw: bytes
    """As it is stored, its end included."""
    at: str
    """When it arrived; for a line without a time, when the one before it did."""
    level: str | None


class Filter:
    """Chooses lines; keeps what it knows from one batch to the next. Raises ValueError."""

    def __init__(
        self,
        since: bytes | None = None,
        until: bytes | None = None,
        level: str | None = None,
        grep: str | None = None,
    ) -> None:
        self._since = since
        self._until = until
        self._least = None if level is None else loglines.parse_level(level)
        self._grep = None if grep is None else Grep(grep)
        self._begun = since is None
        self._at = ""
        self._level: str | None = None
        self.over = False
        """True once a line later than `until` was met."""

    @property
    def is_open(self) -> bool:
        """Tell whether everything is chosen."""
        return self._begun and not (self._until or self._least or self._grep)

    def choose(self, lines: Iterable[bytes]) -> Generator[Line]:
        """Yield those that are wanted."""
        rest = iter(lines)
        while batch := list(islice(rest, AT_ONCE)):
            yield from self._choose(batch)
            if self.over:
                return

    def _choose(self, batch: list[bytes]) -> Generator[Line]:
        found: list[tuple[Line, str]] = []
        for raw in batch:
            at, text = loglines.split(raw.decode("utf-8", "replace").rstrip("\r\n"))
            if at is not None:
                self._at = at
                stamp = raw[: STAMP_LENGTH - 1]
                self._begun = self._begun or stamp >= (self._since or b"")
                if self._until is not None and stamp > self._until:
                    self.over = True
                    break
            level = self._level_of(text)
            if not self._begun or (self._least and not loglines.reaches(level, self._least)):
                continue
            found.append((Line(raw, self._at, level), text))
        if self._grep is None:
            yield from (line for line, _ in found)
            return
        kept = self._grep.keep([loglines.plain(text) for _, text in found])
        yield from (line for (line, _), keep in zip(found, kept, strict=True) if keep)

    def _level_of(self, text: str) -> str | None:
        """A line that only goes on has the level of the line that it goes on from."""
        if not loglines.continues(text):
            self._level = loglines.read(text).level
        return self._level
