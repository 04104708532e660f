"""Finds the instance that a command talks to: by data directory, or by address.

A token from the data directory is only ever sent to the address that stands beside it.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

from midwatch.cli.exits import UNREACHABLE, CommandError


class Instance(NamedTuple):
    """Where a hub is, and the token for it. `data` and `pid` are None for a hub elsewhere.

    No dataclass: what that imports is a tenth of the time that `midwatch kill` takes.
    """

    url: str
    token: str | None
    data: Path | None = None
    pid: int | None = None


def data_directory(chosen: Path | None) -> Path:
    """Return the data directory: `--data` or MIDWATCH_DATA, else the user's own."""
    if chosen is not None:
        return chosen.expanduser().absolute()
    home = os.environ.get("XDG_DATA_HOME", "")
    base = Path(home) if home.startswith("/") else Path("~/.local/share").expanduser()
    return base / "midwatch"


def find(data: Path | None, url: str | None) -> Instance:
    """Return the instance. Raises CommandError that says whether it runs, and how to start it."""
    if url is not None:
        if not _is_address(url):
            raise CommandError(
                f"--url: expected an address such as http://127.0.0.1:8700, got {url!r}"
            )
        return Instance(url.rstrip("/"), os.environ.get("MIDWATCH_TOKEN"))
    directory = data_directory(data)
    found = _read(directory / "instance.json")
    if found is None:
        raise CommandError(
            f"midwatch is not running ({directory} holds no instance). {_start(data)}", UNREACHABLE
        )
    pid, address = found.get("pid"), found.get("hub_url")
    if not isinstance(address, str) or not _is_address(address):
        raise CommandError(
            f"{directory / 'instance.json'} names no hub; restart midwatch", UNREACHABLE
        )
    if not is_running(directory):
        raise CommandError(
            f"midwatch is not running: the instance in {directory} (pid {pid}) has ended. {_start(data)}",
            UNREACHABLE,
        )
    return Instance(
        address.rstrip("/"), _token(directory), directory, pid if isinstance(pid, int) else None
    )


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not close, a port that is none
        return False


def _start(data: Path | None) -> str:
    option = f" --data {data}" if data is not None else ""
    return f"Start it with: midwatch up{option}"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: object = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except PermissionError:
        raise CommandError(f"{path} may not be read by this user; it belongs to another") from None
    except (OSError, ValueError) as error:
        raise CommandError(
            f"{path} cannot be read ({error}); restart midwatch", UNREACHABLE
        ) from None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def _token(directory: Path) -> str | None:
    try:
        return (directory / "token").read_text("ascii").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is damaged"
        raise CommandError(
            f"cannot read the token {directory / 'token'} ({reason}); run as the user who started midwatch"
        ) from None


def limits_of(directory: Path) -> tuple[str, dict[str, str]] | None:
    """Return what the instance of a data directory says of itself: whether cgroups are delegated to it,
    and what holds runs to each limit. None when it does not say."""
    limits = (_read(directory / "instance.json") or {}).get("limits")
    held_by = limits.get("held_by") if isinstance(limits, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not isinstance(held_by, dict):
        return None
    known = cast("dict[str, Any]", limits)
    by = {str(k): str(v) for k, v in cast("dict[str, Any]", held_by).items()}
    return str(known.get("delegation", "")), by


def is_running(directory: Path) -> bool:
    """Tell whether a supervisor holds the data directory's lock.

    A pid proves nothing: it may be another process's by now, or count in another container. The lock is
    asked for as a shared one and given back at once, so that others who ask see nothing of it.
    """
    try:
        lock = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
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
