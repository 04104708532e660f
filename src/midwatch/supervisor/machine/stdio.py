"""Where the output of a child comes from, and its input goes to: a pipe, or a terminal.

Invariants: descriptors of ours never reach another child; reading never blocks, and takes one
bufferful per turn of the loop, so that a flood of one agent leaves room for the others.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

READ_BYTES: Final = 65_536
"""One read from an agent's output: the size of a pipe."""

LAST_BYTES: Final = 1 << 20
"""Output that is still taken after the end of its process."""

COLUMNS: Final = 220
ROWS: Final = 50
"""Size of a terminal: wide, so that tools do not fold what is to be read."""


@dataclass(slots=True)
class Ends:
    """Both ends before the child has its own. `theirs_in` is -1 when its stdin is /dev/null."""

    ours: int
    theirs_out: int
    theirs_in: int
    device: int
    """Device number of the terminal, 0 without one."""

    def close_theirs(self) -> None:
        os.close(self.theirs_out)


def open_ends(*, tty: bool) -> Ends:
    """Open a pipe or a terminal. Raises OSError."""
    if not tty:
        reading, writing = os.pipe()
        return Ends(reading, writing, -1, 0)
    ours, theirs = os.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        device = os.fstat(theirs).st_rdev
    except OSError:
        os.close(ours)
        os.close(theirs)
        raise
    return Ends(ours, theirs, theirs, device)


class Outlet:
    """Our end, read in the loop until everyone who could write has closed it."""

    __slots__ = ("_fd", "_loop", "_on_output", "_resting", "device")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, ends: Ends, on_output: Callable[[bytes], None]
    ) -> None:
        self.device = ends.device
        self._loop = loop
        self._fd = ends.ours
        self._on_output = on_output
        self._resting = False
        os.set_blocking(self._fd, False)
        loop.add_reader(self._fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # EIO: nobody has the terminal open any more
            data = b""
        if data:
            self._on_output(data)
        else:  # the process may well live on
            self.close()

    def rest(self, resting: bool) -> None:
        """Stop reading, or go on: whoever writes waits once the pipe or the terminal is full."""
        if self._fd < 0 or resting is self._resting:
            return
        self._resting = resting
        if resting:
            self._loop.remove_reader(self._fd)
        else:
            self._loop.add_reader(self._fd, self._read)

    def drain(self) -> None:
        """Take what is there at the end of the process, at most LAST_BYTES."""
        taken = 0
        while self._fd >= 0 and taken < LAST_BYTES:
            try:
                data = os.read(self._fd, READ_BYTES)
            except OSError:
                return
            if not data:
                return
            taken += len(data)
            self._on_output(data)

    def write(self, data: bytes) -> bool:
        """Send to the terminal; False when there is none, or its input queue (4 KiB) is full."""
        if not self.device or self._fd < 0:
            return False
        try:
            return os.write(self._fd, data) == len(data)
        except OSError:
            return False

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
