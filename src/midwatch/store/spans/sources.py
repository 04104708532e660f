"""What is read from: a generation or a segment, kept as long as anybody reads it.

A reader pins every source of the layout that it sees. What is replaced is retired at once, so that no new reader
sees it, and disposed of after the last pin: nobody's file disappears under him, and `gone` tells when it did.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future

log = logging.getLogger(__name__)


class Pins:
    """How many read a source, and what to do when it is retired and none does."""

    def __init__(self, dispose: Callable[[], None]) -> None:
        self.gone: Future[None] = Future()
        self._dispose = dispose
        self._lock = threading.Lock()
        self._count = 0
        self._retired = False

    def pin(self) -> None:
        """Keep the source; every pin needs its `unpin`."""
        with self._lock:
            self._count += 1

    def unpin(self) -> None:
        """Let go of it; the last one disposes of what is retired."""
        with self._lock:
            self._count -= 1
            last = self._retired and self._count == 0
        if last:
            self._end()

    def retire(self) -> None:
        """Dispose of the source as soon as nobody reads it. No new pins may be taken."""
        with self._lock:
            first = not self._retired
            self._retired = True
            last = first and self._count == 0
        if last:
            self._end()

    def _end(self) -> None:
        try:
            self._dispose()
        except Exception as error:
            # the next start removes it; whoever waits for it is told now
            log.exception("what nobody reads any more could not be removed")
            self.gone.set_exception(error)
        else:
            self.gone.set_result(None)
