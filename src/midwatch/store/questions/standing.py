"""Trees of long traces that stay for a minute, so that the next page is not the whole work anew.

A next page of the same tree also fits the one before: what came meanwhile moves no line. A first page is always of
what is there now. Bounded by what they hold; of several the one that was asked for last stays. For the event loop.
"""

from __future__ import annotations

import asyncio
from typing import Final

from midwatch.core.spans.tree import Forest

STANDS_S: Final = 60.0
"""How long a tree stays after a page of it was shown."""

FEW: Final = 5_000
"""Trees of so many spans are made again within milliseconds."""

MOST: Final = 250_000
"""Spans of all that stay together, of 50 to 110 bytes each. A longer tree is made anew for each page."""


class Standing:
    """Trees by their traces."""

    def __init__(self) -> None:
        self._trees: dict[bytes, tuple[Forest, asyncio.TimerHandle]] = {}

    def __len__(self) -> int:
        return len(self._trees)

    def find(self, trace: bytes) -> Forest | None:
        """Return the tree of a trace if it stays."""
        found = self._trees.get(trace)
        return None if found is None else found[0]

    def keep(self, trace: bytes, tree: Forest) -> None:
        """Let a tree stay from now on, instead of the one of that trace before."""
        self.drop(trace)
        if not FEW < len(tree) <= MOST:
            return
        held = len(tree) + sum(len(other) for other, _ in self._trees.values())
        for other in list(self._trees):
            if held <= MOST:
                break
            held -= len(self._trees[other][0])
            self.drop(other)
        timer = asyncio.get_running_loop().call_later(STANDS_S, self.drop, trace)
        self._trees[trace] = tree, timer

    def drop(self, trace: bytes) -> None:
        """Let go of the tree of a trace."""
        found = self._trees.pop(trace, None)
        if found is not None:
            found[1].cancel()
