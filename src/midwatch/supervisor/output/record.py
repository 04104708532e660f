"""The end of a run's output as it came: what a screen is drawn from, and where stacks are found.

Bounded, and kept only for runs that need it: those with a terminal, and those that hang.
"""

from __future__ import annotations

from typing import Final

from midwatch.core.excerpt import show_lines
from midwatch.core.redact import LONGEST
from midwatch.supervisor.output.screen import Screen

RECORD_BYTES: Final = 64 * 1024
"""Output that is kept; a full repaint of a large terminal program takes about 20 KiB."""


class Record:
    """Bytes, the newest last. `fed` counts all that ever came: it names a state of the record."""

    def __init__(self) -> None:
        self.fed = 0
        self.drawn: tuple[int, Screen] | None = None
        """The screen after so many bytes, for whoever looks again before more came."""
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        """Take bytes; costs little more than the copy, however fast they come."""
        self.fed += len(data)
        self._data += data[-RECORD_BYTES:]
        if len(self._data) > 2 * RECORD_BYTES:
            del self._data[:-RECORD_BYTES]

    def bytes(self) -> bytes:
        """Return the end of the output, not beginning inside of what could be a secret."""
        kept = bytes(self._data[-RECORD_BYTES:])
        if self.fed == len(kept):
            return kept
        start = 0
        while start < LONGEST and (kept[start : start + 1].isalnum() or kept[start] in b"-_."):
            start += 1
        return kept[start:]

    def lines(self, count: int) -> list[str]:
        """Return the last lines, printable and redacted."""
        return show_lines(self.bytes(), count)
