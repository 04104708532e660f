"""Disks that misbehave for real, without any rights: a small one that can be filled, and one that takes its time.

The small one is a tmpfs in a namespace of its own. The slow one is whatever there is: the kernel asks us before each
fsync of a process that has agreed to it (seccomp's user notification), and we answer when we like.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path


class Unavailable(Exception):
    """This machine does not allow it; says why."""


class SmallDisk:
    """A file system of so many bytes, mounted at `point` for whoever is started with `inside`."""

    def __init__(self, point: Path, size: int) -> None:
        point.mkdir()
        mount = 'mount -t tmpfs -o size="$1" tmpfs "$2" && echo there && exec cat'
        command = ["unshare", "-Urm", "sh", "-c", mount, "sh", str(size), str(point)]
        try:
            self._holder = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        except FileNotFoundError as error:
            raise Unavailable(str(error)) from None
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if self._holder.stdout.readline() != "there\n":
            why = self._holder.stderr.read().strip()
            self.remove()
            raise Unavailable(f"no mount in a namespace of one's own: {why}")
        pid = str(self._holder.pid)
        self.inside = ["nsenter", "-t", pid, "-U", "-m", "--preserve-credentials"]
        self.path = Path(f"/proc/{pid}/root{point}")
        """Where we see it."""

    def fill(self, lasts_s: float) -> None:
        """Leave no free byte for so long, whatever is let go meanwhile."""
        ballast = self.path / "ballast"
        until = time.monotonic() + lasts_s
        file = os.open(ballast, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        try:
            while time.monotonic() < until:
                if not self._crammed(file):
                    time.sleep(0.005)
        finally:
            os.close(file)
            ballast.unlink()

    def _crammed(self, file: int) -> bool:
        """Write as much as there is room for; return whether there was any."""
        try:
            return os.write(file, bytes(4 * 1024 * 1024)) > 0
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return False

    def remove(self) -> None:
        """Unmount it; what is on it is gone."""
        self._holder.kill()
        self._holder.wait()
        for stream in (self._holder.stdin, self._holder.stdout, self._holder.stderr):
            if stream is not None:
                stream.close()


# -- the slow one ---------------------------------------------------------------------------------

_CALLS = {"x86_64": (317, 74, 75), "aarch64": (277, 82, 83)}
"""Numbers of seccomp, fsync and fdatasync."""

_NO_NEW_PRIVS, _SET_FILTER, _NEW_LISTENER = 38, 1, 8
_ALLOW, _ASK = 0x7FFF0000, 0x7FC00000
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTICE_BYTES = 80
_CONTINUE = 1
"""See seccomp_unotify(2)."""


class _Step(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_ushort),
        ("yes", ctypes.c_ubyte),
        ("no", ctypes.c_ubyte),
        ("value", ctypes.c_uint),
    ]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.POINTER(_Step))]


def ask_before_syncing(line: socket.socket) -> None:
    """Have this process, and all that it starts, ask before each fsync; who answers is at the other end of the line."""
    if platform.machine() not in _CALLS:
        line.send(f"no numbers of calls for {platform.machine()}".encode())
        return
    seccomp, fsync, fdatasync = _CALLS[platform.machine()]
    steps = [
        _Step(_LOAD, 0, 0, 0),
        _Step(_EQUAL, 1, 0, fsync),
        _Step(_EQUAL, 0, 1, fdatasync),
        _Step(_RETURN, 0, 0, _ASK),
        _Step(_RETURN, 0, 0, _ALLOW),
    ]
    program = _Program(len(steps), (_Step * len(steps))(*steps))
    kernel = ctypes.CDLL(None, use_errno=True)
    kernel.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    listener = kernel.syscall(seccomp, _SET_FILTER, _NEW_LISTENER, ctypes.byref(program))
    if listener < 0:
        line.send(os.strerror(ctypes.get_errno()).encode())
        return
    socket.send_fds(line, [b"asks"], [listener])
    os.close(listener)


class SlowDisk:
    """Answers each fsync of one process after `delay()` seconds, one after the other, until that has ended."""

    def __init__(self, line: socket.socket, delay: Callable[[], float]) -> None:
        said, listeners, _, _ = socket.recv_fds(line, 200, 1)
        if not listeners:
            raise Unavailable(f"the kernel lets nobody wait: {said.decode() or 'nothing came'}")
        self.waited = 0
        """How many have waited."""
        self._listener = listeners[0]
        self._delay = delay
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def _answer(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while not poll.poll()[0][1] & select.POLLHUP:
            notice = bytearray(_NOTICE_BYTES)
            # who asked may have been killed before we heard it, or while it waited
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._listener, _RECEIVE, notice)
                seconds = self._delay()
                if seconds:
                    self.waited += 1
                    time.sleep(seconds)
                (number,) = struct.unpack_from("Q", notice)
                fcntl.ioctl(self._listener, _SEND, struct.pack("QqiI", number, 0, 0, _CONTINUE))
        os.close(self._listener)

    def join(self) -> None:
        """Wait until the process, and all that it started, are gone."""
        self._thread.join(10)
