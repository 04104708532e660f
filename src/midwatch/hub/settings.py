"""The hub's settings, from its command line."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from midwatch.core.errors import SetupError


@dataclass(frozen=True, slots=True)
class Settings:
    """How one hub runs."""

    data: Path
    host: str
    port: int
    node: str
    allow_hosts: frozenset[str]


def read_arguments(arguments: Sequence[str]) -> Settings:
    """Return the settings. Raises SetupError, or SystemExit with 2 for what argparse refuses."""
    parser = argparse.ArgumentParser(prog="python -m midwatch.hub", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the instance's data directory")
    parser.add_argument(
        "--listen", default="127.0.0.1:8700", help="HOST:PORT; port 0 takes a free one"
    )
    parser.add_argument("--node", default=socket.gethostname(), help="the name of this machine")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name by which this hub is called (Host header)",
    )
    read = parser.parse_args(arguments)
    host, port = split_address(read.listen)
    names = {name.strip().lower() for name in read.allow_host}
    if host not in ("0.0.0.0", "::", ""):  # noqa: S104  a comparison, nothing is bound
        names.add(host.lower())
    return Settings(read.data, host, port, read.node, frozenset(names))


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of `127.0.0.1:8700` or `[::1]:8700`. Raises SetupError."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise SetupError(f"--listen {text!r}: expected HOST:PORT, for example 127.0.0.1:8700")
    return host, int(port)
