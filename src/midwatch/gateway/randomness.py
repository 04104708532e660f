"""Random bytes for ids, from the system, a block at a time.

Each read of the system's gives up the interpreter's lock. Where another thread waits for that (the ledger's, under
load always) the event loop gets it back 0.1 ms later: as much as a tenth of a call's work. Not for a process that
forks: the child would go on with the parent's block.
"""

from __future__ import annotations

import os
from typing import Final

BLOCK_BYTES: Final = 4_096


class Randomness:
    """Used from one thread."""

    __slots__ = ("_at", "_block")

    def __init__(self) -> None:
        self._block = b""
        self._at = 0

    def __call__(self, count: int) -> bytes:
        """Return so many bytes, at most a block's; none of them is given twice."""
        at = self._at
        if at + count > len(self._block):
            self._block, at = os.urandom(BLOCK_BYTES), 0
        self._at = at + count
        return self._block[at : at + count]
