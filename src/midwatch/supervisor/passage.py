"""Passes one stream of a command on to ours, unchanged, and lets the loop hear of it.

A thread per stream: whoever reads our stdout may be slow, and then the command waits, as it would
without us, while the loop does not. Invariant: a chunk is passed on before it is heard of.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from typing import Final

from midwatch.supervisor.stdio import READ_BYTES

IN_FLIGHT: Final = 16
"""Chunks that the loop may be behind; more, and the command waits for it."""

LAST_S: Final = 2.0
"""How long the last output may take after the command's end: a slow reader, or a stranger that holds
the pipe open."""


class Tee:
    """One stream. `writing` is the command's end; closed here once it has been started."""

    def __init__(self, target: int, on_output: Callable[[bytes], None]) -> None:
        """`target`: our own descriptor, 1 or 2. Raises OSError."""
        self._reading, self.writing = os.pipe()
        self._target = target
        self._on_output = on_output
        self._loop = asyncio.get_running_loop()
        self._free = threading.Semaphore(IN_FLIGHT)
        self._deadline: float | None = None
        self._thread = threading.Thread(
            target=self._pump, name=f"midwatch-tee-{target}", daemon=True
        )

    def begin(self) -> None:
        """The command has its end: close ours, and pass on what comes."""
        os.close(self.writing)
        self._thread.start()

    def cancel(self) -> None:
        """The command was not started."""
        os.close(self.writing)
        os.close(self._reading)

    def finish(self) -> None:
        """The command has ended; what it left in the pipe has so long."""
        self._deadline = self._loop.time() + LAST_S

    @property
    def is_over(self) -> bool:
        late = self._deadline is not None and self._loop.time() > self._deadline
        return late or not self._thread.is_alive()

    @staticmethod
    def after(tees: Sequence[Tee], act: Callable[[], None]) -> None:
        """Call `act` in the loop when all have passed on everything, or were too slow."""

        def look() -> None:
            if all(tee.is_over for tee in tees):
                act()
            else:
                loop.call_later(0.002, look)

        loop = asyncio.get_running_loop()
        # behind what the pumps have queued already
        loop.call_soon(look)

    def _pump(self) -> None:
        try:
            while data := os.read(self._reading, READ_BYTES):
                view = memoryview(data)
                while view:
                    view = view[os.write(self._target, view) :]
                self._free.acquire()
                self._loop.call_soon_threadsafe(self._hear, data)
        except (OSError, RuntimeError):
            # nobody reads our stdout any more: closing the pipe tells the command as usual; or the loop is over
            return
        finally:
            with contextlib.suppress(OSError):
                os.close(self._reading)

    def _hear(self, data: bytes) -> None:
        self._free.release()
        self._on_output(data)
