"""Passes one stream of a command on to ours, unchanged, and lets the loop hear of it.

A thread per stream: whoever reads our stdout may be slow, and then the command waits, as it would
without us, while the loop does not. A pipe is read by that thread (`Tee`), where a chunk is passed on
before it is heard of; a terminal is read by the loop, and rests while our reader is behind (`Show`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import threading
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from midwatch.supervisor.machine.stdio import READ_BYTES, Outlet

IN_FLIGHT: Final = 16
"""Chunks that the loop may be behind; more, and the command waits for it."""

SHOWN_BYTES: Final = 65_536
"""What a terminal printed and our reader has not taken: above it the terminal rests. A pipe's size."""

LAST_S: Final = 2.0
"""How long the last output may take after the command's end: a slow reader, or a stranger that holds
the pipe open."""


class Stream(Protocol):
    """What is being passed on."""

    @property
    def is_over(self) -> bool:
        """Whether all has been passed on, or took too long."""
        ...


def after(streams: Sequence[Stream], act: Callable[[], None]) -> None:
    """Call `act` in the loop when all have passed on everything, or were too slow."""

    def look() -> None:
        if all(stream.is_over for stream in streams):
            act()
        else:
            loop.call_later(0.002, look)

    loop = asyncio.get_running_loop()
    # behind what the threads have queued already
    loop.call_soon(look)


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

    def _pump(self) -> None:
        try:
            while data := os.read(self._reading, READ_BYTES):
                _write_all(self._target, data)
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


class Show:
    """What terminals of a command print, over all its lives, on a stream of ours.

    Invariant: what was given is written, in order, or still waited for; nothing is dropped while
    somebody reads. The loop never waits: beyond SHOWN_BYTES the terminal is not read, and what it
    holds itself (a few KiB) comes on top at its end.
    """

    def __init__(self, target: int) -> None:
        """`target`: our own descriptor."""
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._outlet: Outlet | None = None
        self._deadline: float | None = None
        self._condition = threading.Condition()
        self._waiting = bytearray()
        self._held = 0
        """Bytes that wait, and those that are being written."""
        self._gone = False
        """Nobody reads any more: from now on all of it goes nowhere, and the command goes on."""
        threading.Thread(target=self._work, name=f"midwatch-show-{target}", daemon=True).start()

    def begin(self, outlet: Outlet) -> None:
        """A life begins; this is its terminal."""
        self._outlet, self._deadline = outlet, None
        self._balance()

    def give(self, data: bytes) -> None:
        """Take what was printed. Never blocks."""
        with self._condition:
            if self._gone:
                return
            self._waiting += data
            self._held += len(data)
            self._condition.notify()
        self._balance()

    def finish(self) -> None:
        """The command has ended; its reader has so long for the rest."""
        self._outlet, self._deadline = None, self._loop.time() + LAST_S

    @property
    def is_over(self) -> bool:
        late = self._deadline is not None and self._loop.time() > self._deadline
        return late or self._held == 0

    def _balance(self) -> None:
        if self._outlet is not None:
            self._outlet.rest(self._held > SHOWN_BYTES)

    def _work(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            while True:
                with self._condition:
                    while not self._waiting:
                        self._condition.wait()
                    data = bytes(self._waiting)
                    self._waiting.clear()
                try:
                    _write_all(self._target, data)
                except OSError:
                    self._gone = True
                with self._condition:
                    if self._gone:
                        self._waiting.clear()
                        self._held = 0
                    else:
                        self._held -= len(data)
                self._loop.call_soon_threadsafe(self._balance)
                if self._gone:
                    return


def _write_all(fd: int, data: bytes) -> None:
    """Write all of it, however long that takes. Raises OSError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # it is shared with somebody who wants it so, as Node does
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
