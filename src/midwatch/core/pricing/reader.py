"""The seam of the three readers: an answer or the events of a stream in, a `Usage` or None out."""

from __future__ import annotations

from typing import Protocol

from midwatch.core.pricing.usage import Usage


class Accumulator(Protocol):
    """Collects the usage of one stream. Events may be anything that JSON can say; nothing raises."""

    def feed(self, event: object) -> None:
        """Take the next decoded event of the stream."""
        ...

    def usage(self) -> Usage | None:
        """Return what was told so far; None when nothing was."""
        ...
