"""An append-only log of JSON lines that survives `kill -9` in the middle of a write.

Each line is `crc32 in hex, space, JSON, newline`. A line that was torn, or that is not what
was written, fails its checksum and is reported, never believed. Used for the supervisor's
journal and for the SDK's spool.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any


def encode(item: Any) -> bytes:
    """Return one line. Raises ValueError for NaN and TypeError for what is not JSON."""
    body = json.dumps(item, separators=(",", ":"), allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def decode(lines: Iterator[bytes]) -> Iterator[Any | None]:
    """Yield each item, or None for a line that is torn or damaged."""
    for line in lines:
        if len(line) < 10 or line[8:9] != b" " or not line.endswith(b"\n"):
            yield None
            continue
        body = line[9:-1]
        try:
            if int(line[:8], 16) != zlib.crc32(body):
                yield None
                continue
            item = json.loads(body)
        except ValueError:
            yield None
            continue
        yield item
