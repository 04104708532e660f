"""What a line of an agent's log says: when it came, how grave it is, and its parts if it has any. Pure.

A stored line is the time at which it arrived, a space, and what the agent printed. JSON objects and
logfmt are recognised, and the levels of what people use (Python's logging, loguru, pino, zap, klog,
npm, tracebacks). All patterns look at a bounded beginning of the line, so that hostile output costs
no more than any other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, cast

LEVELS: Final = ("trace", "debug", "info", "warning", "error", "critical")
"""From the least to the most grave."""

UNKNOWN: Final = "info"
"""A line that does not say counts as this when lines are chosen by level."""

MAX_JSON: Final = 64 * 1024
"""Characters of a line that is read as JSON."""

MAX_LOGFMT: Final = 8 * 1024
LOOKED_AT: Final = 160
"""Characters at a line's beginning in which a level is looked for."""

STAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")
STAMP_LENGTH: Final = 25

_NAMES: Final = {
    "trace": "trace", "trc": "trace", "verbose": "trace", "silly": "trace",
    "debug": "debug", "dbg": "debug", "dbug": "debug",
    "info": "info", "inf": "info", "information": "info", "notice": "info", "log": "info",
    "warn": "warning", "warning": "warning", "wrn": "warning",
    "error": "error", "err": "error", "eror": "error", "severe": "error",
    "critical": "critical", "crit": "critical", "fatal": "critical", "panic": "critical",
    "alert": "critical", "emerg": "critical", "emergency": "critical", "dpanic": "critical",
}  # fmt: skip

_LEVEL_KEYS: Final = ("level", "severity", "levelname", "lvl", "log.level", "@l", "loglevel")
_TIME_KEYS: Final = ("time", "ts", "timestamp", "@timestamp", "asctime", "@t", "t", "datetime")
_TEXT_KEYS: Final = ("msg", "message", "event", "@m", "text")

_COLOURS: Final = re.compile(
    r"\x1b\[[0-9;?]{0,20}[ -/]{0,4}[@-~]|\x1b\][^\x07\x1b]{0,200}(?:\x07|\x1b\\)?"
)
_PAIR: Final = re.compile(
    r'([A-Za-z_@][A-Za-z0-9_.@/-]{0,63})=("(?:[^"\\]|\\.)*"|[^\s"]*)(?:\s+|$)'
)
_WORDS: Final = "|".join(sorted(_NAMES, key=len, reverse=True))
_BRACKETED: Final = re.compile(rf"[\[(<]\s{{0,4}}({_WORDS})\s{{0,4}}[\])>]", re.IGNORECASE)
_LEADING: Final = re.compile(rf"(?:npm )?({_WORDS})(?:[:!]|\s{{0,4}}[|\]-])", re.IGNORECASE)
_UPPER: Final = re.compile(
    r"(?:^|[\s|:\]-])(TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL)(?=[\s|:\]-]|$)"
)
_KLOG: Final = re.compile(r"([IWEF])\d{4} \d\d:\d\d:\d\d")
_EXCEPTION: Final = re.compile(
    r"Traceback \(most recent call last\)|(?:[A-Za-z_]\w{0,60}\.){0,8}[A-Z]\w{0,60}(?:Error|Exception)(?:: |$)"
    r"|Uncaught |Unhandled|thread '[^']{0,60}' panicked"
)
_PANIC: Final = re.compile(r"panic: |fatal error: ")


@dataclass(frozen=True, slots=True)
class Said:
    """What a line says, beyond its text. None: it does not tell."""

    level: str | None = None
    message: str | None = None
    time: str | None = None
    """The agent's own time, as written."""
    fields: dict[str, Any] | None = None
    """All of a structured line."""


def split(line: str) -> tuple[str | None, str]:
    """Return when a stored line arrived (RFC 3339), and what was printed."""
    if STAMP.match(line):
        return line[: STAMP_LENGTH - 1], line[STAMP_LENGTH:]
    return None, line


def plain(text: str) -> str:
    """Return text without colours."""
    return _COLOURS.sub("", text) if "\x1b" in text else text


def read(text: str) -> Said:
    """Return what a printed line says."""
    text = plain(text).strip()
    fields = _json(text) if text[:1] == "{" and text[-1:] == "}" else _logfmt(text)
    if fields is None:
        return Said(level_of(text))
    message = _first(fields, _TEXT_KEYS)
    return Said(
        level=_named(_first(fields, _LEVEL_KEYS)) or level_of(str(message or "")),
        message=None if message is None else str(message),
        time=None if (time := _first(fields, _TIME_KEYS)) is None else str(time),
        fields=fields,
    )


def level_of(text: str) -> str | None:
    """Return the level that an unstructured line names at its beginning, or None."""
    head = text[:LOOKED_AT]
    if _PANIC.match(head):
        return "critical"
    if _EXCEPTION.match(head):
        return "error"
    if (klog := _KLOG.match(head)) is not None:
        return {"I": "info", "W": "warning", "E": "error", "F": "critical"}[klog[1]]
    found = _LEADING.match(head) or _UPPER.search(head) or _BRACKETED.search(head)
    return None if found is None else _NAMES[found[1].lower()]


def continues(text: str) -> bool:
    """Tell whether a line belongs to the one before it: an indented line of a traceback or a dump."""
    return text[:1] in (" ", "\t")


def parse_level(name: str) -> str:
    """Return a level by any of its names. Raises ValueError that lists them."""
    found = _NAMES.get(name.strip().lower())
    if found is None:
        raise ValueError(f"expected one of {', '.join(LEVELS)}, got {name!r}")
    return found


def reaches(level: str | None, least: str) -> bool:
    """Tell whether a line's level is `least` or graver."""
    return LEVELS.index(level or UNKNOWN) >= LEVELS.index(least)


def chosen(names: Sequence[str], patterns: Sequence[str], posts: Sequence[str]) -> list[str]:
    """Return the names that are asked for: all agents, a name, its instances NAME.1 …, or a glob.

    `posts` (the instance's own servers) are found by their full name alone.
    """
    if not patterns:
        return [name for name in names if name not in posts]
    found: list[str] = []
    for pattern in patterns:
        if pattern in names:
            found.append(pattern)
            continue
        found += [
            name
            for name in names
            if name not in posts
            and (
                fnmatchcase(name, pattern)
                or (name.startswith(f"{pattern}.") and name[len(pattern) + 1 :].isdecimal())
            )
        ]
    return list(dict.fromkeys(found))


def _json(text: str) -> dict[str, Any] | None:
    if len(text) > MAX_JSON:
        return None
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def _logfmt(text: str) -> dict[str, Any] | None:
    """Read pairs; a line that is not pairs from beginning to end, or names neither level nor text, is
    no logfmt but a sentence with an equals sign."""
    if len(text) > MAX_LOGFMT or "=" not in text[:LOOKED_AT]:
        return None
    fields: dict[str, Any] = {}
    at = 0
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None:
            return None
        value = pair[2]
        if value[:1] == '"':
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        fields[pair[1]] = value
        at = pair.end()
    known = fields.keys() & {*_LEVEL_KEYS, *_TEXT_KEYS}
    return fields if len(fields) >= 2 and known else None


def _first(fields: dict[str, Any], keys: Sequence[str]) -> Any:
    return next((fields[key] for key in keys if fields.get(key) not in (None, "")), None)


def _named(value: Any) -> str | None:
    """Return a level that is written as a word, or as a number: pino's tens, Python's, syslog's."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        if value < 8:  # syslog: 0 is the gravest
            return (
                ("critical", "critical", "critical", "error", "warning", "info", "info", "debug")[
                    int(value)
                ]
                if value >= 0
                else None
            )
        return LEVELS[max(0, min(5, int(value) // 10 - 1))]
    if isinstance(value, dict):  # structlog, ECS: {"level": {"name": …}}
        return _named(cast("dict[str, Any]", value).get("name"))
    return _NAMES.get(value.strip().lower()) if isinstance(value, str) else None
