"""What an agent prints: taken at once, kept in a bounded way, written by a thread.

The loop's thread only copies bytes; one writer thread redacts, stamps, rotates and writes for all
agents. When the disk is slower than an agent, or full, output is dropped and counted: the agent is
never blocked. Each line in the file begins with the time at which it arrived.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from midwatch.core.exits import TAIL_LINES
from midwatch.core.redact import LONGEST, redact

FILE_BYTES: Final = 10 * 1024 * 1024
"""Size at which output.log is rotated."""

FILES_KEPT: Final = 5
"""Rotated files beside the current one: output.log.1 is the youngest."""

BUFFER_BYTES: Final = 1024 * 1024
"""Output of one agent that may wait for the disk; what comes on top is dropped and counted."""

TAIL_BYTES: Final = 8192
"""The end of the output that is kept in memory for incidents."""

LINE_BYTES: Final = 16 * 1024
"""A line without end is written in pieces of about this size."""

LINE_SHOWN: Final = 500
"""Characters of one line in a tail."""

IDLE_S: Final = 0.5
"""An unfinished line (a prompt) is written after this long."""

GATHER_S: Final = 0.02
"""How long the writer gathers before it writes: bounds both delay and wake-ups."""

_COLOURS: Final = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def show_lines(data: bytes, count: int = TAIL_LINES) -> list[str]:
    """Return the last lines of hostile output as printable text without secrets."""
    text = redact(data)[0].decode("utf-8", "replace")
    lines = _COLOURS.sub("", text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and not lines[-1]:
        lines.pop()
    return [_show(line) for line in lines[-count:]]


def _show(line: str) -> str:
    clipped = line if len(line) <= LINE_SHOWN else line[: LINE_SHOWN - 1] + "…"
    return _CONTROL.sub(
        lambda m: m[0].encode("unicode_escape").decode(), clipped.replace("\t", "    ")
    )


class Capture:
    """The output of one agent, over all its runs."""

    def __init__(self, writer: Writer, folder: Path) -> None:
        self.dropped_bytes = 0
        self.bytes_read = 0
        self.file = LogFile(folder / "output.log")
        self._writer = writer
        self._tail = bytearray()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._unreported = 0
        self._lock = threading.Lock()

    def feed(self, data: bytes) -> None:
        """Take bytes that the agent printed. Never blocks."""
        self.bytes_read += len(data)
        self._tail += data
        if len(self._tail) > 2 * TAIL_BYTES:
            # from the begin of a line, or where no secret can have begun: half a secret is not
            # recognised, and what is left of it would be shown
            start = len(self._tail) - TAIL_BYTES
            line = self._tail.find(b"\n", start, -1) + 1
            del self._tail[: line or _cut(self._tail[:start])]
        with self._lock:
            if self._waiting_bytes + len(data) > BUFFER_BYTES:
                self.dropped_bytes += len(data)
                self._unreported += len(data)
                return
            self._waiting.append(data)
            self._waiting_bytes += len(data)
        self._writer.wake(self)

    def begin(self) -> None:
        """A new run begins: its tail must not show the last run's words."""
        self._tail.clear()

    def tail(self) -> list[str]:
        """Return the run's last lines, printable and redacted."""
        return show_lines(bytes(self._tail))

    def take(self) -> bytes:
        """Return all that waits, for the writer."""
        with self._lock:
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0
            if self._unreported:
                data += (
                    b"\n[midwatch: %d bytes dropped here: the disk was slower than the agent]\n"
                    % self._unreported
                )
                self._unreported = 0
        return data


class LogFile:
    """One rotated file. Used by the writer's thread alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.redacted = 0
        self.lost_bytes = 0
        self.rotations = 0
        self._fd = -1
        self._size = 0
        self._held = b""
        self._mid_line = False
        self._touched = 0.0

    @property
    def holds(self) -> bool:
        return bool(self._held)

    def write(self, data: bytes, now: float) -> None:
        """Write whole lines, hold the unfinished one back so that a secret is not cut in two."""
        if data:
            self._touched = now
        block = self._held + data
        end = block.rfind(b"\n") + 1
        if len(block) - end > LINE_BYTES:
            end = _cut(block)
        key = block.rfind(b"-----BEGIN ", 0, end)
        if key >= 0 and len(block) - key <= LINE_BYTES and b"-----END " not in block[key:end]:
            end = (
                block.rfind(b"\n", 0, key) + 1
            )  # a private key is redacted as a whole or not at all
        if not data and now - self._touched >= IDLE_S:
            end = len(block)
        self._held = block[end:]
        if end:
            self._put(block[:end], now)

    def flush(self, now: float) -> None:
        held, self._held = self._held, b""
        if held:
            self._put(held, now)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _put(self, block: bytes, now: float) -> None:
        clean, count = redact(block)
        self.redacted += count
        stamp = (
            datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3].encode() + b"Z "
        )
        ends = clean.endswith(b"\n")
        body = (clean[:-1] if ends else clean).replace(b"\n", b"\n" + stamp)
        text = (b"" if self._mid_line else stamp) + body + (b"\n" if ends else b"")
        self._mid_line = not ends
        try:
            self._append(text)
        except OSError:  # disk full or gone: the next block tries again
            self.lost_bytes += len(text)
            self.close()

    def _append(self, text: bytes) -> None:
        if self._fd < 0:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._fd = os.open(
                self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
            )
            self._size = os.fstat(self._fd).st_size
        if self._size >= FILE_BYTES:
            self._rotate()
            self._append(text)
            return
        view = memoryview(text)
        while view:
            written = os.write(self._fd, view)
            self._size += written
            view = view[written:]

    def _rotate(self) -> None:
        self.close()
        self.rotations += 1
        for number in range(FILES_KEPT - 1, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            if older.exists():
                older.replace(self.path.with_name(f"{self.path.name}.{number + 1}"))
        self.path.replace(self.path.with_name(f"{self.path.name}.1"))


def _cut(block: bytes | bytearray) -> int:
    """Return where to cut endless output: in front of whatever could be the begin of a secret."""
    least = len(block) - LONGEST
    for at in range(len(block) - 1, least, -1):
        if not (block[at : at + 1].isalnum() or block[at] in b"-_."):
            return at + 1
    return least


class Writer:
    """The one thread that writes for all agents."""

    def __init__(self) -> None:
        self._ready: set[Capture] = set()
        self._condition = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="midwatch-output", daemon=True)
        self._thread.start()

    def wake(self, capture: Capture) -> None:
        with self._condition:
            if capture not in self._ready:
                self._ready.add(capture)
                self._condition.notify()

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
                capture.file.write(capture.take(), time.time())
            holding = {c for c in ready | holding if c.file.holds}
            if closing and not ready:
                for capture in known:
                    capture.file.flush(time.time())
                    capture.file.close()
                return
            if not closing:
                time.sleep(GATHER_S)
