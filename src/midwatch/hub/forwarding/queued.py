"""What stands in a target's queue: a body of OTLP, and before it what it is and whose."""

from __future__ import annotations

import json
import struct
from typing import Any, Final, NamedTuple, cast

from midwatch.core.spans.form import Signal

SIGNALS: Final = (Signal.SPANS, Signal.POINTS, Signal.LOGS)

_HEAD: Final = struct.Struct("<BII")
"""Signal, number of items, and length of the JSON that says whose each group of the request is."""

_VERSION: Final = 0x20
"""Added to the signal: what does not begin so was not written here."""


class Queued(NamedTuple):
    """One entry."""

    signal: Signal
    items: int
    """Spans, points or log records."""
    whose: tuple[tuple[str, str | None], ...]
    """Agent and run of each group of the request."""
    data: bytes
    """A request."""

    def record(self) -> bytes:
        """Return it as it stands in the queue."""
        whose = json.dumps(self.whose, separators=(",", ":")).encode()
        kind = _VERSION + SIGNALS.index(self.signal)
        return _HEAD.pack(kind, self.items, len(whose)) + whose + self.data

    @classmethod
    def read(cls, record: bytes) -> Queued | None:
        """Return what `record` wrote; None for anything else."""
        if len(record) < _HEAD.size:
            return None
        kind, items, size = cast("tuple[int, int, int]", _HEAD.unpack_from(record))
        place = kind - _VERSION
        if not 0 <= place < len(SIGNALS):
            return None
        end = _HEAD.size + size
        said: list[Any] = json.loads(record[_HEAD.size : end])
        return cls(SIGNALS[place], items, tuple((agent, run) for agent, run in said), record[end:])


def weight(head: bytes) -> int:
    """Return for how many items an entry counts, by its first bytes; what cannot be read for one."""
    if len(head) < _HEAD.size or not 0 <= head[0] - _VERSION < len(SIGNALS):
        return 1
    return max(1, cast("int", _HEAD.unpack_from(head)[1]))
