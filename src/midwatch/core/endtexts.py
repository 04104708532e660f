"""Reads what a run said last: the class of its end, whose credential it was, how long to wait. Pure.

`endrows.ROWS` says what words mean, `closing` which words are the last; here both meet. Also how two
failures are compared: by what stays the same when ids, numbers and times are taken out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from midwatch.core.closing import Statement, statements
from midwatch.core.endrows import EARLY_S, ROWS, Row
from midwatch.core.ends import End

RETRY_MIN_S: Final = 1.0
RETRY_MAX_S: Final = 6 * 3600.0
"""A longer wait that a text asks for is cut to this; the next refusal may ask again."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the closing words tell."""

    row: str
    end: End
    line: str
    """The line that says it."""
    credential: str | None = None
    retry_after_s: float | None = None
    sure: bool = True
    """These were its very last words, and they can mean nothing else."""


_REFUSALS: Final = frozenset(
    {End.QUOTA, End.RATE_LIMITED, End.CREDENTIALS, End.BUDGET, End.SUSPENDED}
)
"""What a program catches, says, and then leaves in good order, as it believes."""

_VARIABLE: Final = re.compile(
    r"\b([A-Z][A-Z0-9_]{0,60}_(?:API_KEY|TOKEN|SECRET|ACCESS_KEY|KEY|PASSWORD))\b"
)
"""A variable that the text names itself tells more than the table does."""

_SECOND_NAMES: Final = frozenset({"OPENAI_ADMIN_KEY"})
"""Variables that a text names beside the usual one."""

_HOST: Final = re.compile(r"\bfor url:? '?https?://([A-Za-z0-9.-]{1,100})")

_PROVIDER: Final = re.compile(r"\b([A-Z][A-Za-z]{2,30})Exception - ")
"""LiteLLM's name for whoever refused."""

UNNAMED: Final = "API key"
"""What a credential is called when nothing names it."""


def find(tail: Sequence[str], *, code: int | None, ran_s: float) -> Found | None:
    """Return what the last words of a run's output say about its end, or None.

    `code` is the exit code, None after a signal; then only memory is looked for, because the signal
    explains the rest.
    """
    for statement in statements(tail):
        if statement.is_remark:
            continue
        for row in ROWS:
            if _may(row, code, ran_s) and _fits(row, statement) and _nowhere(row, tail):
                return _found(row, statement)
    return None


def _may(row: Row, code: int | None, ran_s: float) -> bool:
    if code is None:
        return row.end is End.OUT_OF_MEMORY
    if code == 0 and row.end not in _REFUSALS:
        return False
    return (row.codes is None or code in row.codes) and not (row.early and ran_s > EARLY_S)


def _fits(row: Row, statement: Statement) -> bool:
    return (
        row.words.search(statement.text) is not None
        and (row.end not in _REFUSALS or statement.is_complaint or _begins(row, statement))
        and (row.unless is None or row.unless.search(statement.text) is None)
        and (row.frames is None or row.frames.search(statement.frames) is not None)
    )


def _begins(row: Row, statement: Statement) -> bool:
    """Tell whether the row's words begin the line, as where a program prints an error's message alone."""
    return row.words.match(statement.head.lstrip()) is not None


def _nowhere(row: Row, tail: Sequence[str]) -> bool:
    return row.nowhere is None or not any(row.nowhere.search(line) for line in tail)


def _found(row: Row, statement: Statement) -> Found:
    line = _line(statement)
    if row.end in (End.CREDENTIALS, End.QUOTA):
        sure = not row.general and statement.after == 0
        return Found(row.name, row.end, line, _credential(row, statement.text), sure=sure)
    waits = row.end in (End.RATE_LIMITED, End.BUDGET)
    wait = retry_after(statement.text) if waits else None
    return Found(row.name, row.end, line, None, wait)


def _line(statement: Statement) -> str:
    """Return the head, and what it needs to be understood: the file of a parser, the fields of a check."""
    head, *rest = statement.text.split("\n")
    if rest and rest[0].startswith('  in "'):
        return f"{head} {rest[0].strip()}"
    fields = [line for line in rest[:40] if re.fullmatch(r"[A-Za-z_][\w.]{0,80}", line)]
    return f"{head}: {', '.join(fields[:5])}" if fields and "validation error" in head else head


def _credential(row: Row, text: str) -> str:
    named = [n for n in _VARIABLE.findall(text) if n not in _SECOND_NAMES]
    if named or row.credential:
        return named[0] if named else row.credential or UNNAMED
    whose = _HOST.search(text) or _PROVIDER.search(text)
    return f"{UNNAMED} for {whose[1]}" if whose else UNNAMED


# -- how long to wait ---------------------------------------------------------------------------

_SECONDS: Final = (0.001, 1.0, 60.0, 3600.0, 86400.0)
"""Of each group in `_UNIT`."""

_UNIT: Final = r"(?:(ms|milliseconds?)|(s|secs?|seconds?)|(m|mins?|minutes?)|(h|hrs?|hours?)|(d|days?))(?![a-z])"

_AGAIN: Final = re.compile(
    r"(?i)\b(?:(?:try again|retry|retrying|available|resets?) in:?|retry after) ((?:\d{1,9}(?:\.\d{1,12})? ?"
    + _UNIT
    + r" ?){1,4})"
)
"""`Please try again in 1m12.5s`, `in 20s`, `retry in 34.07s`, `in 6 minutes`, Azure's `retry after 20 seconds`."""

_PART: Final = re.compile(r"(?i)(\d{1,9}(?:\.\d{1,12})?) ?" + _UNIT)

_HEADER: Final = re.compile(
    r"(?i)\bretry[-_ ]after['\"]?\s{0,3}[:=]\s{0,3}['\"]?(\d{1,9}(?:\.\d{1,6})?)\b"
)
"""The header, in seconds, as clients print it. Its other form, a date, is not read."""

_DELAY: Final = re.compile(r"\bretryDelay['\"]?\s{0,3}:\s{0,3}['\"](\d{1,9}(?:\.\d{1,12})?)s")


def retry_after(text: str) -> float | None:
    """Return for how many seconds the text asks to wait, within bounds; None when it does not say."""
    found: float | None = None
    if again := _AGAIN.search(text):
        found = sum(
            float(number) * next(s for s, unit in zip(_SECONDS, units, strict=True) if unit)
            for number, *units in _PART.findall(again[1])
        )
    for pattern in (_HEADER, _DELAY):
        if match := pattern.search(text):
            # the header counts whole seconds; the longer of two is the safe one
            found = max(found or 0.0, float(match[1]))
    return None if found is None else min(max(found, RETRY_MIN_S), RETRY_MAX_S)


# -- the same failure again ---------------------------------------------------------------------

_CHANGING: Final = (
    (re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"), "ID"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b"), "ID"),
    (re.compile(r"\b(?:req|run|resp|msg|call|chatcmpl|trace|span)[_-][A-Za-z0-9]{6,}\b"), "ID"),
    (re.compile(r"\b(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{12,}\b"), "ID"),
    (re.compile(r"/(?:tmp|T)/[^\s'\",:)]+"), "/0"),
    (re.compile(r"\d+(?:[.,:T_-]\d+)*"), "0"),
    (re.compile(r"\s+"), " "),
)
"""Ids, addresses, temporary files, then every number and time."""


def mark_of(end: End, line: str) -> str:
    """Return what stays the same when the same failure happens again: its class and its words."""
    text = line.strip()[:300]
    for pattern, instead in _CHANGING:
        text = pattern.sub(instead, text)
    return f"{end.value}: {text}"[:200]
