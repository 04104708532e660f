"""Addresses that posts listen on: read, checked to be free before anything starts, and named.

A port in use is told with its holder, where the system lets us see it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from midwatch.core.errors import SetupError

PATIENCE_S: Final = 2.0
"""How long a port of our own earlier instance may need to become free."""

_EVERYWHERE: Final = frozenset({"0.0.0.0", "::", "*", ""})  # noqa: S104 - recognised, not bound


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The address as neighbours on this machine reach it."""
        host = "127.0.0.1" if self.host in _EVERYWHERE else self.host
        return f"http://{Address(host, self.port)}"


def parse(listen: str, key: str) -> Address:
    """Read `HOST:PORT`, `:PORT` or `[V6]:PORT`. Raises SetupError that names `key`."""
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise SetupError(f"{key}: expected HOST:PORT such as 127.0.0.1:8700, got {listen!r}")
    return Address(host.strip("[]") or "0.0.0.0", int(port))  # noqa: S104 - `:PORT` means it


def reserve(address: Address, key: str, *, patience_s: float = 0.0) -> Address:
    """Return `address` when it is free, with a port chosen for port 0. Raises SetupError."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return Address(address.host, _try(address))
        except socket.gaierror as error:
            raise SetupError(
                f"{key}: the host {address.host!r} is unknown ({error.strerror})"
            ) from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            raise SetupError(_problem(error, address, key)) from error


def _try(address: Address) -> int:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address.host, address.port))
        # a second listener with SO_REUSEPORT would share the port with us: only listening tells
        sock.listen(1)
        return int(sock.getsockname()[1])


def _problem(error: OSError, address: Address, key: str) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            holder = holder_of(address.port)
            who = f" by {holder}" if holder else ""
            return (
                f"{key}: port {address.port} on {address.host} is in use{who};"
                f" stop that program, or set {key} in the fleet file to another port"
            )
        case errno.EACCES:
            return f"{key}: port {address.port} needs root; choose one from 1024 up"
        case errno.EADDRNOTAVAIL:
            return f"{key}: {address.host!r} is not an address of this machine"
        case _:
            return f"{key}: cannot listen on {address}: {error.strerror or error}"


def holder_of(port: int) -> str | None:
    """Return `pid 123 (python)` for the process that listens on a port, where /proc tells it."""
    inodes = {
        fields[9]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for fields in _rows(table)
        if len(fields) > 9 and fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port
    }
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{name}/fd"):  # noqa: PTH208
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{name}/fd/{fd}") in wanted:  # noqa: PTH115
                        program = Path(f"/proc/{name}/comm").read_text().strip()
                        return f"pid {name} ({program})"
    return None


def _rows(table: str) -> list[list[str]]:
    try:
        return [line.split() for line in Path(table).read_text().splitlines()[1:]]
    except OSError:
        return []
