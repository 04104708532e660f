"""What a service manager is told of the instance: ready, alive, what it does, that it stops.

The systemd protocol from the other side: NOTIFY_SOCKET and WATCHDOG_USEC of our own environment
(agents never see these). WATCHDOG=1 comes from the supervisor's own loop, and only while what it
is there for works: the loop turns, samples are taken, the log's writer lives. Sending fails open.
Source: sd_notify(3), sd_watchdog_enabled(3), systemd.service(5).
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol, TypeVar

from midwatch.core.service import status_of

T = TypeVar("T")

STATUS_EVERY_S: Final = 5.0
"""How often the status is compared with what was told last."""

SLOWEST_S: Final = 10.0
"""Longest time between two signs of life, whatever the unit says."""


class Watched(Protocol):
    """What is said to be alive."""

    def states(self) -> Mapping[str, str]:
        """Return the agents' states by name."""
        ...

    def trouble(self) -> str | None:
        """Return what no longer works in the supervisor itself, or None."""
        ...


class ServiceManager:
    """The line to the service manager; without one, nothing happens."""

    def __init__(self, environment: Mapping[str, str], pid: int | None = None) -> None:
        self.sent = 0
        self.failed = 0
        self.withheld = 0
        """Signs of life that were not given, because something did not work."""
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._status = ""
        me = os.getpid() if pid is None else pid
        meant = environment.get("WATCHDOG_PID")
        usec = environment.get("WATCHDOG_USEC", "")
        mine = meant is None or meant == str(me)
        self.watchdog_s = int(usec) / 1e6 if usec.isdecimal() and int(usec) and mine else None

    @property
    def listens(self) -> bool:
        return self._address is not None

    def ready(self) -> None:
        self._send("READY=1", f"MAINPID={os.getpid()}")

    def status(self, text: str) -> None:
        """Tell what is done, if it is news."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def reloading(self) -> None:
        self._send(
            "RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
        )

    def telling(self, reload: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
        """Return `reload` as the service manager shall see it: announced, and ready again after it."""

        async def told() -> T:
            self.reloading()
            try:
                return await reload()
            finally:
                self.ready()

        return told

    def stopping(self) -> None:
        self._send("STOPPING=1", "STATUS=agents are asked to end")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    async def keep(self, watched: Watched, say: Callable[[str], None]) -> None:
        """Tell status and signs of life until cancelled."""
        if not self.listens:
            return
        pause = STATUS_EVERY_S
        if self.watchdog_s is not None:
            pause = min(self.watchdog_s / 2, SLOWEST_S)
        told = False
        looked = 0.0
        while True:
            now = time.monotonic()
            trouble = watched.trouble()
            if trouble is None:
                if self.watchdog_s is not None:
                    self.alive()
            else:
                self.withheld += 1
                if not told:
                    told = True
                    say(f"midwatch: {trouble}; the service manager will start Midwatch again")
            if now - looked >= STATUS_EVERY_S or trouble:
                looked = now
                self.status(trouble or status_of(watched.states()))
            await asyncio.sleep(min(pause, STATUS_EVERY_S))

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        text = "\n".join(line.replace("\n", " ")[:1000] for line in lines)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode("utf-8", "replace"), self._address)
        except OSError:
            self.failed += 1
        else:
            self.sent += 1


def _address(name: str) -> str | None:
    """Return the socket's address; `@` begins an abstract one. VSOCK and relative names are not spoken."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else None
