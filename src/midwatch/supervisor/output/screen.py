"""What a person would see on an agent's terminal, drawn from the end of its output.

Output is hostile: a sequence may repaint the whole screen in three bytes, or break the library that
reads it. So drawing is bounded in bytes and in time, and ends in plain lines where it cannot be done.
What comes out is printable text without secrets; colours are left out. Called in a thread.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from midwatch.core.excerpt import show_lines
from midwatch.core.redact import redact

if TYPE_CHECKING:
    import pyte

COLUMNS: Final = 220
ROWS: Final = 50
"""Size of the terminal that agents are given (`system.Launch.tty`)."""

DRAW_S: Final = 0.25
"""Processor time that drawing may take; 64 KiB of an honest program take a tenth of it. Time in which a busy
machine lets others work is not the output's doing."""

PIECE: Final = 512
"""Characters that are drawn between two looks at the clock: the worst of them take some 0.1 s."""

_PIECES: Final = re.compile(rf"\x1b?[^\x1b]{{0,{PIECE}}}", re.DOTALL)

_FAULTS: Final = (TypeError, ValueError, LookupError, AttributeError, NameError)
"""What the library raises for sequences that no terminal knows; found by a property test."""


@dataclass(frozen=True, slots=True)
class Screen:
    """Lines from the top, without empty ones at the end. `cursor` is (row, column), from 0; None where
    nothing could be drawn and the lines are simply the last ones."""

    lines: list[str]
    cursor: tuple[int, int] | None = None


def draw(data: bytes, *, budget_s: float = DRAW_S) -> Screen:
    """Return the screen after this output."""
    clean = redact(data)[0]  # before a long one is broken into two lines
    drawn = _draw(clean.decode("utf-8", "replace"), budget_s)
    if drawn is None:
        return Screen(show_lines(clean, ROWS))
    rows = ["".join(drawn.buffer[y][x].data for x in range(COLUMNS)) for y in range(ROWS)]
    # each cell may carry many combining marks: `show_lines` clips
    lines = show_lines("\n".join(row.rstrip() for row in rows).encode("utf-8", "replace"), ROWS)
    return Screen(lines, (min(drawn.cursor.y, ROWS - 1), min(drawn.cursor.x, COLUMNS - 1)))


def _draw(text: str, budget_s: float) -> pyte.Screen | None:
    """Return the drawn screen, or None when the time is over."""
    import pyte  # here: most supervisors never draw one

    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.Stream(screen)
    deadline = (
        time.thread_time() + budget_s
    )  # from here on: to load the library takes longer than to draw
    for piece in _PIECES.finditer(text):
        if time.thread_time() > deadline:
            return None
        try:
            stream.feed(piece[0])
        except _FAULTS:
            stream = pyte.Stream(screen)  # a broken parser stays broken
        if (screen.columns, screen.lines) != (COLUMNS, ROWS):
            screen.resize(ROWS, COLUMNS)  # a program may ask for 132 columns
    return screen
