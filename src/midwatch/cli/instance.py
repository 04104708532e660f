"""Finds the instance that a command talks to: by data directory, or by address.

A token from the data directory is only ever sent to the address that stands beside it. It stands in the way of
`midwatch kill`: no pathlib, typing or dataclasses here, which take longer to load than the order to be given.
"""

from __future__ import annotations

import fcntl
import json
import os

from midwatch.cli import loopback
from midwatch.cli.client import record
from midwatch.cli.exits import UNREACHABLE, CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any


class Instance:
    """Where a hub is, and the token for it. `directory` (of its data) and `pid` are None for a hub elsewhere."""

    __slots__ = ("directory", "pid", "token", "url")

    def __init__(
        self, url: str, token: str | None, directory: str | None = None, pid: int | None = None
    ) -> None:
        self.url = url
        self.token = token
        self.directory = directory
        self.pid = pid

    @property
    def data(self) -> Path | None:
        """The data directory, for those who look into it."""
        if self.directory is None:
            return None
        from pathlib import Path

        return Path(self.directory)


def data_directory(chosen: Path | None) -> Path:
    """Return the data directory: `--data` or MIDWATCH_DATA, else the user's own."""
    from pathlib import Path

    return Path(_directory(chosen))


def _directory(chosen: Path | str | None) -> str:
    if chosen is not None:
        path = os.path.expanduser(chosen)  # noqa: PTH111
        return path if path.startswith("/") else os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118
    home = os.environ.get("XDG_DATA_HOME", "")
    base = home if home.startswith("/") else os.path.expanduser("~/.local/share")  # noqa: PTH111
    return os.path.join(base, "midwatch")  # noqa: PTH118


def find(data: Path | str | None, url: str | None) -> Instance:
    """Return the instance. Raises CommandError that says whether it runs, and how to start it."""
    if url is not None:
        if not _is_address(url):
            raise CommandError(
                f"--url: expected an address such as http://127.0.0.1:8700, got {url!r}"
            )
        return Instance(url.rstrip("/"), os.environ.get("MIDWATCH_TOKEN"))
    directory = _directory(data)
    file = f"{directory}/instance.json"
    found = _read(file)
    if found is None:
        raise CommandError(
            f"midwatch is not running ({directory} holds no instance). {_start(data)}", UNREACHABLE
        )
    pid, address = found.get("pid"), found.get("hub_url")
    if not isinstance(address, str) or not _is_address(address):
        raise CommandError(f"{file} names no hub; restart midwatch", UNREACHABLE)
    if not is_running(directory):
        raise CommandError(
            f"midwatch is not running: the instance in {directory} (pid {pid}) has ended. {_start(data)}",
            UNREACHABLE,
        )
    return Instance(
        address.rstrip("/"), _token(directory), directory, pid if isinstance(pid, int) else None
    )


def _is_address(url: str) -> bool:
    if loopback.place(url) is not None:
        return True
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not close, a port that is none
        return False


def _start(data: Path | str | None) -> str:
    option = f" --data {data}" if data is not None else ""
    return f"Start it with: midwatch up{option}"


def _read(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            return record(json.load(file))
    except FileNotFoundError:
        return None
    except PermissionError:
        raise CommandError(f"{path} may not be read by this user; it belongs to another") from None
    except (OSError, ValueError) as error:
        raise CommandError(
            f"{path} cannot be read ({error}); restart midwatch", UNREACHABLE
        ) from None


def _token(directory: str) -> str | None:
    try:
        with open(f"{directory}/token", encoding="ascii") as file:  # noqa: PTH123
            return file.read().strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is damaged"
        raise CommandError(
            f"cannot read the token {directory}/token ({reason}); run as the user who started midwatch"
        ) from None


def limits_of(directory: Path) -> tuple[str, dict[str, str]] | None:
    """Return what the instance of a data directory says of itself: whether cgroups are delegated to it,
    and what holds runs to each limit. None when it does not say."""
    limits = record((_read(f"{directory}/instance.json") or {}).get("limits"))
    held_by = limits.get("held_by")
    if not isinstance(held_by, dict):
        return None
    return str(limits.get("delegation", "")), {
        str(k): str(v) for k, v in record(limits["held_by"]).items()
    }


def is_running(directory: Path | str) -> bool:
    """Tell whether a supervisor holds the data directory's lock.

    A pid proves nothing: it may be another process's by now, or count in another container. The lock is
    asked for as a shared one and given back at once, so that others who ask see nothing of it.
    """
    try:
        lock = os.open(f"{directory}/lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # it cannot be told; the hub's address will
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
