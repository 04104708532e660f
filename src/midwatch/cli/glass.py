"""A window onto a screen elsewhere: keys come in raw, lines are drawn, and the terminal is given back.

What is drawn is text alone, cleaned before it comes here. Whatever ends the window (a key, an error, a
signal that asks to end) leaves the terminal as it was found.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import signal
import sys
import termios
import tty
import unicodedata
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Final

_ENTER: Final = "\x1b[?1049h\x1b[H\x1b[2J"
_LEAVE: Final = "\x1b[?25h\x1b[0m\x1b[?1049l"

_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""What ends us, by default without a chance to give the terminal back."""

READ_BYTES: Final = 1024


class Glass:
    """Use as a context manager, on a terminal."""

    def __init__(self) -> None:
        self._input = sys.stdin.fileno()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._before: list[Any] = []
        self._handlers: dict[int, Any] = {}
        self._shown: tuple[object, ...] = ()

    def __enter__(self) -> Glass:
        self._before = termios.tcgetattr(self._input)
        for number in _SIGNALS:
            self._handlers[number] = signal.signal(number, _end)
        try:
            tty.setraw(self._input)
            _write(_ENTER)
        except BaseException:
            self._give_back()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._give_back()

    def _give_back(self) -> None:
        try:
            with contextlib.suppress(OSError):  # the terminal is gone: nothing to give back
                _write(_LEAVE)
        finally:
            # drained first, so that nothing we wrote is shown by other rules
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def keys(self, wait_s: float) -> str | None:
        """Return what was typed within this time, empty for nothing; None when the terminal is gone."""
        try:
            ready, _, _ = select.select([self._input], [], [], wait_s)
            if not ready:
                return ""
            typed = os.read(self._input, READ_BYTES)
        except InterruptedError:
            return ""
        except OSError:
            return None
        return self._decoder.decode(typed) if typed else None

    def draw(self, headline: str, lines: Sequence[str], cursor: tuple[int, int] | None) -> None:
        """Show a line about the screen, and as much of the screen as there is room for."""
        size = _size()
        shown = (size, headline, tuple(lines), cursor)
        if shown == self._shown:
            return
        self._shown = shown
        room = max(1, size.lines - 1)
        first = _first_line(len(lines), room, cursor)
        rows = [f"\x1b[7m{clip(headline, size.columns)}\x1b[0m"]
        rows += [clip(line, size.columns) for line in lines[first : first + room]]
        place = "\x1b[?25l"
        if cursor is not None and first <= cursor[0] < first + room and cursor[1] < size.columns:
            place = f"\x1b[{cursor[0] - first + 2};{cursor[1] + 1}H\x1b[?25h"
        _write("\x1b[?25l\x1b[H" + "\x1b[K\r\n".join(rows) + "\x1b[K\x1b[J" + place)


def _size() -> os.terminal_size:
    """Return the size of the terminal itself: LINES and COLUMNS may be left over from another."""
    with contextlib.suppress(OSError):
        size = os.get_terminal_size(sys.stdout.fileno())
        if size.columns > 0 and size.lines > 0:
            return size
    return os.terminal_size((80, 24))


def clip(line: str, columns: int) -> str:
    """Return as much of a line as fits into so many columns."""
    used = 0
    for number, char in enumerate(line):
        wide = unicodedata.east_asian_width(char) in "WF"
        used += 0 if unicodedata.combining(char) else 2 if wide else 1
        if used > columns:
            return line[:number]
    return line


def _first_line(count: int, room: int, cursor: tuple[int, int] | None) -> int:
    """Return the first line to show: the end of the screen, unless the cursor is above it."""
    last = max(count, 0 if cursor is None else cursor[0] + 1)
    first = max(0, last - room)
    return first if cursor is None else min(first, cursor[0])


def _write(text: str) -> None:
    sys.stdout.flush()
    data = text.encode("utf-8", "replace")
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
