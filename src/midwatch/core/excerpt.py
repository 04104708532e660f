"""Parts of long texts that fit into an incident: lines, bounded in width and in bytes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from midwatch.core.exits import TAIL_LINES
from midwatch.core.plain import clean
from midwatch.core.redact import redact

WIDTH: Final = 300
"""Characters of one line."""

LINE_SHOWN: Final = 500
"""Characters of one line in a tail."""

_COLOURS: Final = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def last_lines(lines: Sequence[str], limit_bytes: int, width: int = WIDTH) -> list[str]:
    """Return the newest lines that fit."""
    return _fit(reversed(lines), limit_bytes, width)[::-1]


def first_lines(lines: Sequence[str], limit_bytes: int, width: int = WIDTH) -> list[str]:
    """Return the first lines that fit; one more says how many are left out."""
    fitting = _fit(lines, limit_bytes, width)
    left = len(lines) - len(fitting)
    return [*fitting, f"… {left:,} more"] if left else fitting


def lines_of(value: Any, most: int = 1_000) -> list[str]:
    """Return the texts of a list that came from outside, each one printable line that keeps its indent."""
    if not isinstance(value, list):
        return []
    items: list[Any] = value[-most:]  # pyright: ignore[reportUnknownVariableType]
    return [_line(item) for item in items if isinstance(item, str)]


def _line(text: str) -> str:
    indent = len(text) - len(text.lstrip(" "))
    return " " * min(indent, 100) + clean(text, WIDTH)


def _fit(lines: Iterable[str], limit_bytes: int, width: int) -> list[str]:
    kept: list[str] = []
    left = limit_bytes
    for line in lines:
        clipped = line if len(line) <= width else line[: width - 1] + "…"
        left -= len(clipped.encode("utf-8", "replace")) + 4  # as it stands in a JSON list
        if left < 0:
            break
        kept.append(clipped)
    return kept


def show_lines(data: bytes, count: int = TAIL_LINES) -> list[str]:
    """Return the last lines of hostile output as printable text without secrets."""
    text = redact(data)[0].decode("utf-8", "replace")
    lines = _COLOURS.sub("", text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and not lines[-1]:
        lines.pop()
    return [_show(line) for line in lines[-count:]]


def _show(line: str) -> str:
    clipped = line if len(line) <= LINE_SHOWN else line[: LINE_SHOWN - 1] + "…"
    return _CONTROL.sub(
        lambda m: m[0].encode("unicode_escape").decode(), clipped.replace("\t", "    ")
    )
