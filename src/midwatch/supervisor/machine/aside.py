"""Long work in small steps, done aside: the loop never waits for a disk or for the kernel's page tables.

Work is a generator that yields wherever it may be interrupted, and returns what came of it. One thread
goes round all that is there, a slice each, so that nothing small waits behind something large. A step
that the kernel holds up (a dead network disk, a process that is stuck) holds up its own work alone:
another thread then goes on with the rest. Invariant: each work is told exactly once, in the loop's
thread, or never after `close`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final

from midwatch.supervisor.machine.system import Counters

Work = Generator[None, None, Any]

SLICE_S: Final = 0.01
"""How long one work goes on while others wait."""

STUCK_S: Final = 2.0
"""A step that takes so long is the kernel's doing: the others go on without it."""

MAX_THREADS: Final = 4
"""Threads of one `Aside`, the stuck ones included. When all are stuck, the rest waits."""


@dataclass(eq=False, slots=True)
class _Job:
    work: Work
    done: Callable[[Any], None]


class Aside:
    """`rest`: how many times as long as it worked it rests after each slice, so that it takes a bounded
    part of a core however much there is to do."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        counters: Counters,
        *,
        rest: float = 0.0,
    ) -> None:
        self._loop = loop
        self._counters = counters
        self._name = name
        self._rest = rest
        self._lock = threading.Lock()
        self._jobs: deque[_Job] = deque()
        self._turn: object | None = None
        """Names the thread that goes round; None without one. Who is stuck loses the turn."""
        self._slices = 0
        self._threads = 0
        self._closed = False
        self._watch: asyncio.TimerHandle | None = None

    def do(self, work: Work, done: Callable[[Any], None]) -> None:
        """Do this soon, and hand what it returns to `done` in the loop's thread."""
        with self._lock:
            if self._closed:
                return
            self._jobs.append(_Job(work, done))
            if self._turn is None:
                self._begin()
        if self._watch is None:
            self._watch = self._loop.call_later(STUCK_S, self._look, self._slices)

    def close(self) -> None:
        """Stop after the present step; nothing more is told."""
        with self._lock:
            self._closed = True
            self._jobs.clear()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _begin(self) -> None:
        turn = object()
        # a daemon: nobody can end a thread that is stuck, and nobody shall wait for it at the exit
        thread = threading.Thread(target=self._go_round, args=(turn,), name=self._name, daemon=True)
        with contextlib.suppress(RuntimeError):  # the machine has no thread left: the next look
            thread.start()
            self._turn = turn
            self._threads += 1

    def _look(self, before: int) -> None:
        """Leave behind whoever has not moved since the last look, and go on with the rest."""
        with self._lock:
            stuck = self._slices == before or self._turn is None
            if stuck and self._jobs and self._threads < MAX_THREADS:
                self._begin()
            self._watch = None
            if (self._threads or self._jobs) and not self._closed:
                self._watch = self._loop.call_later(STUCK_S, self._look, self._slices)

    def _go_round(self, turn: object) -> None:
        while (job := self._next(turn)) is not None:
            began = time.monotonic()
            over, result = self._slice(job, began + SLICE_S)
            with self._lock:
                self._slices += 1
                if not over and not self._closed:
                    self._jobs.append(job)
            if over:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know
                    self._loop.call_soon_threadsafe(self._tell, job, result)
            if self._rest:
                time.sleep(self._rest * (time.monotonic() - began))

    def _next(self, turn: object) -> _Job | None:
        with self._lock:
            if self._turn is turn and self._jobs and not self._closed:
                return self._jobs.popleft()
            # in the same breath: whoever adds work from now on starts another thread
            self._threads -= 1
            if self._turn is turn:
                self._turn = None
            return None

    def _slice(self, job: _Job, until: float) -> tuple[bool, Any]:
        try:
            while True:
                next(job.work)
                if time.monotonic() >= until:
                    return False, None
        except StopIteration as end:
            return True, end.value
        except Exception:  # noqa: BLE001  the top of a thread that must outlive its faults; counted
            self._counters.asides_failed += 1
            return True, None

    def _tell(self, job: _Job, result: object) -> None:
        if not self._closed:
            job.done(result)
