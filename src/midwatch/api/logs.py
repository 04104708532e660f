"""An agent's captured output: its last lines, or page by page what was chosen of all that is kept.

The name is checked before it becomes a path, links are not followed, and what is read is bounded.
"""

from __future__ import annotations

import contextlib
import os
import stat
import zlib
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from midwatch.core.fleet import NAME
from midwatch.core.loglines import STAMP_LENGTH
from midwatch.store.logfiles import Mark, Reader
from midwatch.store.logquery import Filter
from midwatch.wire.problem import Refusal

MAX_READ: Final = 1024 * 1024
"""Bytes of output in one answer."""

MAX_LINES: Final = 10_000

MAX_LINE: Final = 8_192
"""Characters of one line; the rest of a longer one is left out."""


MAX_SCAN: Final = 2 * 1024 * 1024
"""Bytes of output that one page of chosen lines looks at."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which lines are asked for. Times are RFC 3339 with milliseconds in UTC, as in the files."""

    after: str | None = None
    since: str | None = None
    until: str | None = None
    level: str | None = None
    grep: str | None = None

    def __bool__(self) -> bool:
        return any(
            v is not None for v in (self.after, self.since, self.until, self.level, self.grep)
        )


def choose_log(logs: Path, agent: str, choice: Choice) -> dict[str, Any]:
    """Return a page of chosen lines, oldest first: `{"agent", "lines", "after", "more", "gap", …}`.

    Begins behind `after`, else at `since`, else with the oldest that is kept. Raises Refusal 404, 422.
    """
    _check_name(agent)
    reader = Reader(logs / agent)
    with contextlib.closing(reader):
        try:
            chosen = Filter(
                choice.since.encode() if choice.since else None,
                choice.until.encode() if choice.until else None,
                choice.level,
                choice.grep,
            )
            if choice.after:
                reader.begin_after(Mark.parse(choice.after))
            elif choice.since:
                reader.begin_at(choice.since.encode())
        except ValueError as error:
            raise Refusal(422, str(error), reason="parameters") from None
        scan = _Scan(reader)
        lines = [line.raw for line in chosen.choose(scan.lines())]
        mark = reader.mark
        return {
            "agent": agent,
            "lines": [raw.decode("utf-8", "replace").rstrip("\r\n")[:MAX_LINE] for raw in lines],
            "offset": 0,
            "truncated": False,
            "after": choice.after if mark is None else str(mark),
            "more": scan.more and not chosen.over,
            "gap": reader.gaps > 0,
        }


def moment(at: float | None) -> str | None:
    """Return Unix seconds as the files have times. Raises Refusal 422."""
    if at is None:
        return None
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    except (ValueError, OverflowError, OSError):
        raise Refusal(422, f"{at!r} is no time", reason="parameters") from None


class _Scan:
    """Reads whole lines, as many as one page may look at."""

    def __init__(self, reader: Reader) -> None:
        self.more = False
        self._reader = reader

    def lines(self) -> Generator[bytes]:
        seen = 0
        for raw in self._reader.read(partial=False):
            seen += len(raw)
            yield raw
            if seen >= MAX_SCAN:
                self.more = True
                return


def _check_name(agent: str) -> None:
    if NAME.fullmatch(agent) is None or ".." in agent:
        raise Refusal(404, f"{agent[:64]!r} is not an agent's name", reason="unknown_agent")


def read_log(logs: Path, agent: str, tail: int, since_offset: int | None) -> dict[str, Any]:
    """Return `{"agent", "lines", "offset", "truncated"}`. Raises Refusal 404."""
    _check_name(agent)
    empty: dict[str, Any] = {
        "agent": agent,
        "lines": [],
        "offset": 0,
        "truncated": False,
        "after": None,
        "more": False,
        "gap": False,
    }
    try:
        descriptor = os.open(
            logs / agent / "output.log", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        )
    except FileNotFoundError:
        return empty
    except OSError as error:
        raise Refusal(
            404, f"the output of {agent!r} cannot be read: {error.strerror}", reason="log"
        ) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise Refusal(404, f"the output of {agent!r} is no file", reason="log")
    with os.fdopen(descriptor, "rb") as file:
        size = status.st_size
        start = 0 if since_offset is None or since_offset > size else since_offset
        truncated = size - start > MAX_READ
        start = max(start, size - MAX_READ)
        file.seek(start)
        data = file.read(size - start)
        head = os.pread(descriptor, STAMP_LENGTH - 1, 0)
    if since_offset is not None:
        # only whole lines, so that the next read does not begin in the middle of one
        end = data.rfind(b"\n") + 1
        data, size = data[:end], start + end
    if truncated:
        data = data[data.find(b"\n") + 1 :]
    lines = data.decode("utf-8", "replace").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return {
        "agent": agent,
        "lines": [line.rstrip("\r")[:MAX_LINE] for line in lines[-tail:]],
        "offset": size,
        "truncated": truncated or len(lines) > tail,
        "after": str(Mark(status.st_ino, zlib.crc32(head), size))
        if len(head) == STAMP_LENGTH - 1
        else None,
        "more": False,
        "gap": False,
    }
