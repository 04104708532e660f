"""Tells the supervisor about life, over NOTIFY_SOCKET, from the caller's own thread.

Not through the worker: it may be waiting for a hub, and liveness must not depend on one.
A datagram to a local socket takes two microseconds and never waits. Beats that follow each
other closely are told once. What the socket does not take at the moment is kept, if it
matters, and sent before the next datagram; a beat that is lost is followed by another.
"""

from __future__ import annotations

import threading
import time
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

BEAT_GAP_S = 0.02
"""Beats within this time of one that was told are not told again."""

EXTEND_MARGIN = 1.5
"""A step is granted this much more than it expects of itself."""

KEPT = 32
"""Datagrams that wait for a socket that was full; the oldest goes first."""

EXTEND_MOST_S = 30 * 86_400.0
"""The longest step that is believed."""


class Notifier:
    """The sending end of NOTIFY_SOCKET."""

    def __init__(self, path: str) -> None:
        """`path` as in NOTIFY_SOCKET; a leading @ names the abstract namespace."""
        from midwatch.wire.notify import Notice, encode

        self._notice = Notice
        self._encode = encode
        self._beat = encode(Notice(beat=True))
        self._path = "\0" + path[1:] if path.startswith("@") else path
        self._socket: socket.socket | None = None
        self._kept: deque[bytes] = deque(maxlen=KEPT)
        self._beat_at = float("-inf")
        self._called_at = float("-inf")
        # reentrant: a signal handler may make a call while its own thread is in here
        self._lock = threading.RLock()
        self._open_calls = 0
        self.sent = 0
        self.failed = 0

    def beat(self) -> None:
        """Tell that a pass of the work loop has ended. Only ever called by the work loop."""
        now = time.monotonic()
        if now - self._beat_at >= BEAT_GAP_S:
            self._beat_at = now
            self._send(self._beat, keep=False)

    def ready(self) -> None:
        self._send(self._encode(self._notice(ready=True)))

    def draining(self) -> None:
        self._send(self._encode(self._notice(draining=True)))

    def done(self) -> None:
        """Tell that the work is complete: an exit that follows is wanted."""
        self._send(self._encode(self._notice(done=True)))

    def step(self, text: str, expect_s: float | None) -> None:
        """Tell what is going on, and how long silence is to be expected."""
        extend_s = None if expect_s is None else min(expect_s * EXTEND_MARGIN, EXTEND_MOST_S)
        self._send(self._encode(self._notice(status=text, extend_s=extend_s)))

    def call_opened(self) -> None:
        """Tell that a call is under way; several at once are told as one."""
        with self._lock:
            self._open_calls += 1
            if self._open_calls == 1:
                self._send(self._encode(self._notice(call="open")))

    def call_done(self) -> None:
        with self._lock:
            self._open_calls -= 1
            if self._open_calls == 0:
                self._send(self._encode(self._notice(call="done")))

    def called(self) -> None:
        """Tell that a call has ended whose begin was not told: a sign of work, but no excuse for silence.

        While another call is open there is nothing to add.
        """
        now = time.monotonic()
        if now - self._called_at < BEAT_GAP_S:
            return
        with self._lock:
            if self._open_calls <= 0:
                self._called_at = now
                self._send(self._encode(self._notice(call="done")), keep=False)

    def child(self, told: dict[str, Any]) -> None:
        """Tell that a sub-agent was started, or has ended."""
        import json

        self._send(self._encode(self._notice(child=json.dumps(told))))

    def forget(self) -> None:
        """Begin anew in a forked child."""
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()
        self._kept.clear()
        self._lock = threading.RLock()
        self._open_calls = 0

    def _send(self, datagram: bytes, *, keep: bool = True) -> None:
        kept = self._kept
        while kept:
            try:
                first = kept.popleft()  # taken out before it is sent: threads may be here together
            except IndexError:
                break
            if not self._put(first):
                kept.appendleft(first)
                break
        if kept or not self._put(datagram):
            self.failed += 1
            if keep:
                kept.append(datagram)

    def _put(self, datagram: bytes) -> bool:
        try:
            if self._socket is None:
                self._open()
            self._socket.sendto(datagram, self._path)  # pyright: ignore[reportOptionalMemberAccess]
        except OSError:
            return False
        self.sent += 1
        return True

    def _open(self) -> None:
        import socket

        opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        opened.setblocking(False)
        self._socket = opened
