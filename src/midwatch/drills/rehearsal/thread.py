"""A rehearsal model in a thread of its own, for programs that have no event loop: drills and tests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from midwatch.drills.rehearsal.answering import CALL_HEADER
from midwatch.drills.rehearsal.model import Rehearsal
from midwatch.drills.rehearsal.script import Script


@contextmanager
def running(
    playing: Script | None = None,
    *,
    seed: int = 0,
    call_header: str = CALL_HEADER,
    clock: Callable[[], float] = time.time,
) -> Generator[Rehearsal]:
    """Run a rehearsal model while the block lasts; `.url` is where it listens."""
    model = Rehearsal(playing, seed=seed, call_header=call_header, clock=clock)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="rehearsal", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(model.start(), loop).result(10)
        yield model
    finally:
        asyncio.run_coroutine_threadsafe(model.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
