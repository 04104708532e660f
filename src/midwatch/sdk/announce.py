"""Tells the hub of spans while they are open, so that work that never ends is seen, and is known when it dies.

Only what has been open for a second is announced, once, by the worker: a span that is over sooner costs its thread
one entry in a table, put in and taken out. An announced span is left alone until it ends; then its end, with the
same ids, takes the place of the announcement.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from midwatch.sdk.span import Span

AFTER_S = 1.0
"""How long a span is open before it is announced. With posting, it is seen before two seconds are over."""

MAX_YOUNG = 10_000
"""Spans younger than AFTER_S that are kept in mind; what is opened beyond is seen when it ends."""

SLACK_S = 0.05
"""Spans that are due within this time are announced along with one that is due now."""


class Announcer:
    """Which spans are open and not announced. `ring` wakes the worker, which may sleep for a minute."""

    __slots__ = ("_ring", "_watched", "_young")

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._young: dict[int, tuple[Span, float]] = {}
        self._watched = False

    def opened(self, span: Span) -> None:
        """Keep a span in mind. Any thread may call it, a signal handler too."""
        if len(self._young) < MAX_YOUNG:
            self._young[id(span)] = (span, time.monotonic())
            if not self._watched:
                self._watched = True
                self._ring()

    def ended(self, span: Span) -> None:
        """Forget a span."""
        self._young.pop(id(span), None)

    def forget(self) -> None:
        """Begin anew in a forked child: what is open there is the parent's to tell."""
        self._young.clear()
        self._watched = False

    # What follows is called by the worker.

    def due_s(self) -> float:
        """Return in how many seconds the next span is due; infinity when none is open."""
        # cleared first: who opens a span from here on rings, and the worker looks again
        self._watched = False
        oldest = min((at for _, at in list(self._young.values())), default=None)
        if oldest is None:
            return float("inf")
        self._watched = True
        return max(0.0, oldest + AFTER_S - time.monotonic())

    def take(self) -> list[Span]:
        """Return the spans that are due, each once, parents before their children."""
        now = time.monotonic() + SLACK_S
        due = [span for span, at in list(self._young.values()) if at + AFTER_S <= now]
        for span in due:
            self._young.pop(id(span), None)
        return due
