"""An agent's captured output, read from the end of `logs/AGENT/output.log`.

The name is checked before it becomes a path, links are not followed, and what is read is bounded.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Final

from midwatch.core.fleet import NAME
from midwatch.wire.problem import Refusal

MAX_READ: Final = 1024 * 1024
"""Bytes of output in one answer."""

MAX_LINES: Final = 10_000

MAX_LINE: Final = 8_192
"""Characters of one line; the rest of a longer one is left out."""


def read_log(logs: Path, agent: str, tail: int, since_offset: int | None) -> dict[str, Any]:
    """Return `{"agent", "lines", "offset", "truncated"}`. Raises Refusal 404."""
    if NAME.fullmatch(agent) is None or ".." in agent:
        raise Refusal(404, f"{agent[:64]!r} is not an agent's name", reason="unknown_agent")
    empty: dict[str, Any] = {"agent": agent, "lines": [], "offset": 0, "truncated": False}
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
    }
