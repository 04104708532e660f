"""The event loop that the gateway runs on: uvloop's where it is installed, asyncio's own elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes a loop. uvloop halves what a thousand streams cost; nothing else depends on it."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end, as `asyncio.run` does."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main)


OPEN_FILES: Final = 65_536


def raise_open_files() -> int:
    """Let this process hold up to OPEN_FILES open files, and return how many it may.

    A call takes two connections; the usual limit of 1,024 would end at 500 calls at one time.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    wanted = OPEN_FILES if hard == infinite else min(hard, OPEN_FILES)
    if soft != infinite and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # forbidden here: fewer calls at one time
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
