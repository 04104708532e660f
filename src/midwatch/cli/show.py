"""Printing: results on stdout, everything else on stderr; colours only where someone looks.

All text that an agent may have written passes `line` or `clean` first: a control character in a
name or sentence must not move the cursor, change a title or pretend to be another line.
"""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import contextmanager

from midwatch.cli.exits import CommandError, ReaderGone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any, Final, TextIO

_ESCAPES: Final = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC and its kin: titles, links
    r"|\x1b[ -/]*[0-~]?"
)
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060\u2066-\u2069\ufeff\ud800-\udfff]"
)
_COLOURS: Final = {
    "green": "32",
    "yellow": "33",
    "red": "31",
    "cyan": "36",
    "blue": "34",
    "magenta": "35",
    "dim": "2",
    "bold": "1",
}
_STATES: Final = {
    "running": "green",
    "starting": "cyan",
    "draining": "cyan",
    "scheduled": "cyan",
    "waiting": "yellow",
    "backing-off": "yellow",
    "unhealthy": "red",
    "suspended": "red",
    "parked": "red",
    "lost": "red",
    "stopped": "dim",
}


def clean(text: object) -> str:
    """Return text without escape sequences and control characters; line ends and tabs stay."""
    return _UNSAFE.sub("", _ESCAPES.sub("", str(text).replace("\r\n", "\n")))


def line(text: object) -> str:
    """Return text as one line without control characters."""
    return " ".join(clean(text).split())


def coloured(stream: TextIO) -> bool:
    """Tell whether colours are wanted: a terminal, and no NO_COLOR (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str | None, stream: TextIO | None = None) -> str:
    """Return text in a colour, where colours are wanted."""
    if colour is None or not coloured(stream or sys.stdout):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def state(name: str, width: int = 0) -> str:
    """Return a state in its colour, padded."""
    shown = line(name)
    return paint(shown.ljust(width), _STATES.get(shown))


@contextmanager
def writing() -> Generator[None]:
    """Guard writing to stdout. Raises ReaderGone, or CommandError for a full disk."""
    try:
        yield
    except BrokenPipeError:
        raise ReaderGone from None
    except OSError as error:
        raise CommandError(
            f"cannot write the output: {error.strerror}; make room, or send it elsewhere"
        ) from None


def out(text: str = "") -> None:
    """Print a result."""
    with writing():
        try:
            print(text)
        except UnicodeEncodeError:
            encoding = sys.stdout.encoding or "ascii"
            print(text.encode(encoding, "replace").decode(encoding))


def document(value: Any) -> None:
    """Print the one JSON document. Non-ASCII is escaped: it is safe on any terminal."""
    with writing():
        print(json.dumps(value, indent=2))


def complain(text: str) -> None:
    """Print on stderr what went wrong."""
    head = paint("midwatch:", "red", sys.stderr)
    print(f"{head} {clean(text)}", file=sys.stderr)


def note(text: str) -> None:
    """Print on stderr what is worth a word."""
    print(clean(text), file=sys.stderr)


def columns(rows: list[tuple[str, ...]], colours: list[str | None] | None = None) -> None:
    """Print rows aligned; the last column wraps on a terminal, under itself or under the row.

    `colours` gives the colour of each row's second column.
    """
    if not rows:
        return
    import shutil
    import textwrap

    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    indent = sum(wide) + 2 * len(wide)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    stacked = bool(width) and width - indent < 30
    for row, colour in zip(rows, colours or [None] * len(rows), strict=True):
        cells = [cell.ljust(w) for cell, w in zip(row, wide, strict=False)]
        if len(cells) > 1:
            cells[1] = paint(cells[1], colour)
        head = "  ".join(cells)
        if stacked:
            out(head.rstrip())
            out(textwrap.fill(row[-1], max(width, 20), initial_indent="  ", subsequent_indent="  "))
        elif width:
            body = textwrap.wrap(row[-1], width - indent) or [""]
            out(f"{head}  {body[0]}".rstrip())
            for more in body[1:]:
                out(" " * indent + more)
        else:
            out(f"{head}  {row[-1]}".rstrip())


def state_colour(name: str) -> str | None:
    """Return the colour of a state's name."""
    return _STATES.get(name)


def moment(value: object) -> str:
    """Return a time of the API (Unix seconds or RFC 3339) in local time, or `-`."""
    from datetime import datetime

    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            at = datetime.fromtimestamp(value).astimezone()
        elif isinstance(value, str):
            at = datetime.fromisoformat(value).astimezone()
        else:
            return "-"
    except (ValueError, OverflowError, OSError):
        return "-"
    today = at.date() == datetime.now().astimezone().date()
    return f"{at:%H:%M:%S}" if today else f"{at:%Y-%m-%d %H:%M}"
