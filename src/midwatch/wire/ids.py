"""Identifiers: UUIDv7, so that ids sort by the time they were made."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def sub_run_id(run_id: str, agent: str, started: float) -> str:
    """Return the run of a sub-agent that says in its environment who it is, where it carries `run_id`: known
    alike to itself and to its supervisor. `started`: of its first process, in ticks of the system."""
    return f"{run_id}.{agent.rpartition(':')[2]}.{int(started)}"[:128]


def new_id(now_ms: int | None = None, randomness: Callable[[int], bytes] = os.urandom) -> str:
    """Return a UUIDv7 (RFC 9562 section 5.7) as 36 characters; `now_ms` is Unix time. `randomness` returns so
    many random bytes."""
    ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    value = (ms & 0xFFFFFFFFFFFF) << 80 | int.from_bytes(randomness(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
