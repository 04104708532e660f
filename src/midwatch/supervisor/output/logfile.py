"""One agent's log on disk: stamped, redacted, rotated by size and by day, within a fixed total.

Used by the writer's thread alone. Every file begins with a stamp, and every line has one; a line
without end is broken, so that whoever reads needs a bounded buffer.
"""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

from midwatch.core.redact import LONGEST, redact

FILE_BYTES: Final = 10 * 1024 * 1024
"""Size at which output.log is rotated."""

FILES_KEPT: Final = 14
"""Rotated files beside the current one: output.log.1 is the youngest. One per day at least, so two
weeks of an agent that prints little."""

TOTAL_BYTES: Final = 64 * 1024 * 1024
"""All files of one agent together; the oldest go first."""

PIECE_BYTES: Final = 16 * 1024
"""A line without end is written in pieces of about this size."""

LINE_BYTES: Final = 256 * 1024
"""A line longer than this is broken in two."""

IDLE_S: Final = 0.5
"""An unfinished line (a prompt) is written after this long."""


class LogFile:
    """One rotated file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.redacted = 0
        self.lost_bytes = 0
        self.rotations = 0
        self._fd = -1
        self._size = 0
        self._day = date.min
        self._held = b""
        self._line = 0
        """Bytes of the unfinished line that are in the file."""
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
        if len(block) - end > PIECE_BYTES:
            end = cut(block)
        key = block.rfind(b"-----BEGIN ", 0, end)
        if key >= 0 and len(block) - key <= PIECE_BYTES and b"-----END " not in block[key:end]:
            # a private key is redacted as a whole or not at all
            end = block.rfind(b"\n", 0, key) + 1
        if not data and now - self._touched >= IDLE_S:
            end = len(block)
        self._held = block[end:]
        if end:
            self._put(block[:end], now)

    def flush(self, now: float) -> None:
        """Write what is held back."""
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
        at = datetime.fromtimestamp(now, UTC)
        stamp = at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3].encode() + b"Z "
        try:
            self._open()
            if self._is_due(at.date()):
                if self._line:
                    self._append(b"\n")
                    self._line = 0
                self._rotate()
                self._open()
            self._day = max(self._day, at.date())
            self._append(self._stamped(clean, stamp))
        except OSError:  # disk full or gone: the next block tries again
            self.lost_bytes += len(clean)
            self.close()

    def _stamped(self, clean: bytes, stamp: bytes) -> bytes:
        ends = clean.endswith(b"\n")
        body = (clean[:-1] if ends else clean).replace(b"\n", b"\n" + stamp)
        head = b"" if self._line else stamp
        last = body.rfind(b"\n")
        length = len(body) - last - 1 if last >= 0 else self._line + len(head) + len(body)
        if ends or length > LINE_BYTES:
            self._line = 0
            return head + body + b"\n"
        self._line = length
        return head + body

    def _open(self) -> None:
        if self._fd >= 0:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self.path, flags, 0o600)
        status = os.fstat(self._fd)
        self._size = status.st_size
        self._line = 0
        if self._size:
            self._day = datetime.fromtimestamp(status.st_mtime, UTC).date()
            if os.pread(self._fd, 1, self._size - 1) != b"\n":
                self._append(b"\n")  # an earlier writer died in the middle of a line
        else:
            self._day = date.min

    def _is_due(self, today: date) -> bool:
        """A clock that goes back rotates nothing: a file is of the youngest day that it saw."""
        return self._size >= FILE_BYTES or (
            self._size > 0 and self._day != date.min and today > self._day
        )

    def _append(self, text: bytes) -> None:
        view = memoryview(text)
        while view:
            written = os.write(self._fd, view)
            self._size += written
            view = view[written:]

    def _rotate(self) -> None:
        self.close()
        self.rotations += 1
        kept = [self.path, *(self._older(number) for number in range(1, FILES_KEPT + 1))]
        for older, target in reversed(list(pairwise(kept))):
            if older.exists():
                older.replace(target)
        total = FILE_BYTES  # what the current file may become
        for file in kept[1:]:
            if file.exists():
                total += file.stat().st_size
                if total > TOTAL_BYTES:
                    file.unlink()

    def _older(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def cut(block: bytes | bytearray) -> int:
    """Return where to cut endless output: in front of whatever could be the begin of a secret."""
    least = max(0, len(block) - LONGEST)
    for at in range(len(block) - 1, least, -1):
        if not (block[at : at + 1].isalnum() or block[at] in b"-_."):
            return at + 1
    return least


def resume(block: bytes) -> int:
    """Return from where output can be shown again when what came before it is not there: behind
    whatever could be the end of a secret."""
    line = block.find(b"\n") + 1
    if line:
        return line
    for at, byte in enumerate(block[:LONGEST]):
        if not (block[at : at + 1].isalnum() or byte in b"-_."):
            return at + 1
    return min(len(block), LONGEST)
