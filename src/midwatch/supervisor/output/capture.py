"""What an agent prints: taken at once, kept in a bounded way, written by a thread.

The loop's thread only copies bytes; one writer thread redacts, stamps, rotates and writes for all
agents. An agent that prints more than its allowance, and one that is faster than the disk, loses
output, which is counted by reason and marked in the file: the agent itself is never blocked.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from midwatch.core import units
from midwatch.core.excerpt import show_lines
from midwatch.core.exits import TAIL_LINES
from midwatch.core.flood import Allowance
from midwatch.supervisor.output.logfile import IDLE_S, LogFile, cut, resume

BUFFER_BYTES: Final = 4 * 1024 * 1024
"""Output of one agent that may wait for the disk; what comes on top is dropped and counted."""

BUFFERS_BYTES: Final = 64 * 1024 * 1024
"""The same of all agents together."""

PIECE_BYTES: Final = 64 * 1024
"""The writer works in pieces of this size: redaction holds the interpreter, and the loop waits."""

TAIL_BYTES: Final = 8192
"""The end of the output that is kept in memory for incidents."""

GATHER_S: Final = 0.02
"""How long the writer gathers before it writes: bounds both delay and wake-ups."""


class Capture:
    """The output of one agent, over all its runs."""

    def __init__(
        self, writer: Writer, folder: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.bytes_read = 0
        self.dropped_bytes = 0
        """Lost because the disk was slower than the agent."""
        self.flooded_bytes = 0
        """Left out because the agent printed more than it may."""
        self.file = LogFile(folder / "output.log")
        self._writer = writer
        self._clock = clock
        self._allowance: Allowance | None = None
        self._tail = bytearray()
        self._left_out = 0
        """Bytes of the stretch that is being left out."""
        self._out_open = False
        """That stretch ends, so far, in the middle of a line."""
        self._slow = 0
        """Bytes lost to a slow disk that the file does not tell of yet."""
        self._open_line = False
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0

    def allow(self, rate: int | None) -> None:
        """Keep at most `rate` bytes a second for long; None: everything."""
        known = self._allowance
        if rate is None:
            self._allowance = None
        elif known is None or known.rate != rate:
            self._allowance = Allowance(rate, self._clock())

    def feed(self, data: bytes) -> None:
        """Take bytes that the agent printed. Never blocks."""
        self.bytes_read += len(data)
        self._tail += data
        if len(self._tail) > 2 * TAIL_BYTES:
            # from the begin of a line, or where no secret can have begun: half a secret is not
            # recognised, and what is left of it would be shown
            start = len(self._tail) - TAIL_BYTES
            line = self._tail.find(b"\n", start, -1) + 1
            del self._tail[: line or cut(self._tail[:start])]
        if self._allowance is not None:
            data = self._within(self._allowance, data)
        if data:
            self._queue(data)

    def begin(self) -> None:
        """A new run begins: its tail must not show the last run's words."""
        self._tail.clear()

    def tail(self, count: int = TAIL_LINES) -> list[str]:
        """Return the run's last lines, printable and redacted."""
        return show_lines(bytes(self._tail), count)

    def settle(self) -> None:
        """Nothing more is coming for now: mark a stretch that was left out, and keep its last lines,
        which may say why the run ended."""
        if self._left_out:
            last = bytes(self._tail[-self._left_out :])
            if len(last) < self._left_out:
                last = last[resume(last) :]
            self._mark(len(last))
            self._queue(last)

    def take(self) -> list[bytes]:
        """Return all that waits, in pieces, for the writer."""
        with self._writer.lock:
            waiting = list(self._waiting)
            self._writer.waiting_bytes -= self._waiting_bytes
            self._waiting.clear()
            self._waiting_bytes = 0
            slow, self._slow = self._slow, 0
        if slow:
            waiting.append(_note(slow, "the disk was slower than the agent", open_line=True))
        data = memoryview(b"".join(waiting))
        return [bytes(data[at : at + PIECE_BYTES]) for at in range(0, len(data), PIECE_BYTES)]

    def _within(self, allowance: Allowance, data: bytes) -> bytes:
        """Return what of `data` may be kept. Stretches begin and end between lines, where there are
        lines, and never inside what could be a secret."""
        count = allowance.take(len(data), self._clock())
        start, end = 0, count
        if self._left_out and count:
            start = resume(data[:count]) if self._out_open else 0
            self._leave_out(start)
            self._mark()
        if count < len(data):
            end = max(start, data.rfind(b"\n", start, count) + 1)
            self._leave_out(len(data) - end)
            self._out_open = not data.endswith(b"\n")
        return data[start:end]

    def _leave_out(self, count: int) -> None:
        self.flooded_bytes += count
        self._left_out += count

    def _mark(self, rescued: int = 0) -> None:
        self.flooded_bytes -= rescued
        count, self._left_out = self._left_out - rescued, 0
        rate = units.show_size(self._allowance.rate) if self._allowance else "it may"
        if count:
            self._queue(_note(count, f"more than {rate}/s", open_line=self._open_line))

    def _queue(self, data: bytes) -> None:
        writer = self._writer
        with writer.lock:
            if (
                self._waiting_bytes + len(data) > BUFFER_BYTES
                or writer.waiting_bytes + len(data) > BUFFERS_BYTES
            ):
                self.dropped_bytes += len(data)
                self._slow += len(data)
                return
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            writer.waiting_bytes += len(data)
            writer.wake(self)
        self._open_line = not data.endswith(b"\n")


def _note(count: int, why: str, *, open_line: bool) -> bytes:
    head = b"\n" if open_line else b""
    return head + f"[midwatch: {count:,} bytes left out here: {why}]\n".encode()


class Writer:
    """The one thread that writes for all agents."""

    def __init__(self) -> None:
        self.waiting_bytes = 0
        self.lock = threading.RLock()
        self._ready: set[Capture] = set()
        self._condition = threading.Condition(self.lock)
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="midwatch-output", daemon=True)
        self._thread.start()

    def wake(self, capture: Capture) -> None:
        with self._condition:
            if capture not in self._ready:
                self._ready.add(capture)
                self._condition.notify()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits, and end."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join(timeout_s)

    def _work(self) -> None:
        holding: set[Capture] = set()
        known: set[Capture] = set()
        while True:
            with self._condition:
                if not self._ready and not self._closing:
                    self._condition.wait(IDLE_S if holding else None)
                ready, self._ready = self._ready, set()
                closing = self._closing
            known |= ready
            for capture in ready | holding:
                for piece in capture.take() or [b""]:
                    capture.file.write(piece, time.time())
            holding = {c for c in ready | holding if c.file.holds}
            if closing and not ready:
                for capture in known:
                    capture.file.flush(time.time())
                    capture.file.close()
                return
            if not closing:
                time.sleep(GATHER_S)
