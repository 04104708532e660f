"""NOTIFY_SOCKET: one datagram socket per agent, read in the event loop.

A socket per agent, because a datagram does not say which run it comes from and credentials name
only a process that may be any grandchild. They tell a sub-agent from its parent, where the kernel gives
them (Linux). A flood of datagrams is bounded per turn of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from midwatch.supervisor.machine.system import StartError
from midwatch.supervisor.run import BEAT
from midwatch.wire import notify

LONGEST_PATH: Final = 100
"""A socket's path may have 107 bytes on Linux and 103 on macOS."""

AT_ONCE: Final = 256
"""Datagrams of one agent that are read before its exit or its silence is judged: more than a socket holds."""

_BEAT: Final = b"WATCHDOG=1"

_UCRED: Final = struct.Struct("3i")
"""pid, uid, gid: unix(7)."""

_PASSES: Final[int | None] = getattr(socket, "SO_PASSCRED", None)
_CREDENTIALS: Final[int | None] = getattr(socket, "SCM_CREDENTIALS", None)
_SPACE: Final = socket.CMSG_SPACE(_UCRED.size) if _PASSES is not None else 0

Hear: TypeAlias = Callable[[notify.Notice, int], None]


class Notices:
    """The sockets of all agents."""

    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.received = 0
        self.clipped = 0
        self._loop = loop
        self._folder = folder
        self._temporary: Path | None = None
        self._open: dict[str, tuple[socket.socket, Hear]] = {}

    def listen(self, agent: str, hear: Hear) -> str:
        """Open the agent's socket and return its path; opened before, the path is the same.

        Raises StartError.
        """
        path = self._path(agent)
        if agent in self._open:
            return str(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.setblocking(False)
        if _PASSES is not None:
            sock.setsockopt(socket.SOL_SOCKET, _PASSES, 1)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.unlink(missing_ok=True)
            sock.bind(str(path))
            path.chmod(0o600)
        except OSError as error:
            sock.close()
            raise StartError(
                errno.EAGAIN, f"cannot make its notify socket {str(path)!r}: {error.strerror}"
            ) from error
        self._open[agent] = (sock, hear)
        self._loop.add_reader(sock, self._read, sock, hear)
        return str(path)

    def drain(self, agent: str) -> None:
        """Read what waits now: what was said before an exit counts for that run."""
        if agent in self._open:
            with contextlib.suppress(BlockingIOError, InterruptedError):
                for _ in range(AT_ONCE):
                    self._take(*self._open[agent])

    def forget(self, agent: str) -> None:
        """Close an agent's socket: it left the fleet."""
        if (known := self._open.pop(agent, None)) is not None:
            self._loop.remove_reader(known[0])
            known[0].close()
            self._path(agent).unlink(missing_ok=True)

    def close(self) -> None:
        for agent in list(self._open):
            self.forget(agent)
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _path(self, agent: str) -> Path:
        path = self._folder / f"{agent}.sock"
        if len(os.fsencode(path)) <= LONGEST_PATH:
            return path
        if self._temporary is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="midwatch-"))  # mode 0700
        return self._temporary / f"{agent}.sock"

    def _read(self, sock: socket.socket, hear: Hear) -> None:
        """Read one datagram: the loop comes back while there are more, and others get their turn."""
        with contextlib.suppress(BlockingIOError, InterruptedError):
            self._take(sock, hear)

    def _take(self, sock: socket.socket, hear: Hear) -> None:
        datagram, told, _, _ = sock.recvmsg(notify.MAX_DATAGRAM_BYTES + 1, _SPACE)
        sender = _sender_of(told)
        self.received += 1
        if len(datagram) > notify.MAX_DATAGRAM_BYTES:
            self.clipped += 1
        hear(BEAT if datagram == _BEAT else notify.decode(datagram, sender), sender)


def _sender_of(told: list[tuple[int, int, bytes]]) -> int:
    """Return the pid of who sent a datagram, as the kernel has checked it; 0 when that is not told.

    Files that somebody may have sent along are none of ours: there was no room for them."""
    for level, kind, data in told:
        if level == socket.SOL_SOCKET and kind == _CREDENTIALS and len(data) >= _UCRED.size:
            return int(_UCRED.unpack_from(data)[0])
    return 0
