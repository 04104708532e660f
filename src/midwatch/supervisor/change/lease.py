"""Leases: on one machine, one user's supervisors never run the same agent twice.

An agent's identity is its `lease` where the fleet file gives one, else the file's real path and the
agent's name; without either there is no lease. The lease is an flock: the kernel gives it back when the
holder dies, however it dies. What stands in the file only says who holds it. A file is removed by its
holder alone, under the lock; whoever locks one that is no longer the one at its path tries again.

Where no safe directory can be had, leases are off, which is said: a stranger who squats a name in /tmp
must not keep agents from running.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from midwatch.core import units
from midwatch.core.errors import SetupError
from midwatch.core.fleet import Agent
from midwatch.core.plain import number_of, text_of, whole_of

RETRY_S: Final = 5.0
"""How often an agent whose lease another instance holds is tried again."""

TRIES: Final = 5
"""A lease file may be removed by its last holder just when we lock it; five times in a row it is not."""

MAX_BYTES: Final = 4096
"""More than a holder writes about itself."""

VARIABLE: Final = "MIDWATCH_LEASES"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease. None: not told."""

    pid: int | None = None
    data: str | None = None
    since: float | None = None
    agent: str | None = None

    def sentence(self, now: float) -> str:
        """Return `runs already under pid 4711 (data directory '/x'), for 3 hours`."""
        who = "another instance" if self.pid is None else f"pid {self.pid}"
        where = f" (data directory {self.data!r})" if self.data else ""
        length = (
            "" if self.since is None else f", for {units.show_duration(max(1.0, now - self.since))}"
        )
        return f"runs already under {who}{where}{length}"


class Leases:
    """The leases of one instance. `file` is its fleet file, `data` its data directory."""

    def __init__(self, file: Path | None, data: Path, folder: Path | None) -> None:
        self.folder = folder
        """None: leases are off."""
        self.unwritten = 0
        """Leases that are held without a word about who holds them."""
        self._file = str(file.resolve()) if file is not None else None
        self._data = str(data)
        self._held: dict[str, tuple[str, int, Path]] = {}

    def take(self, name: str, agent: Agent, now: float) -> Holder | None:
        """Take the lease of an agent; return who holds it, or None when it is ours (or there is none).

        One that it held under another identity is given back: its entry has changed.
        """
        identity = self._identity(name, agent)
        if name in self._held:
            if self._held[name][0] == identity:
                return None
            self.release(name)
        if self.folder is None or identity is None:
            return None
        path = self.folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.lease"
        for _ in range(TRIES):
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError:
                self.unwritten += 1
                return None  # the directory is gone or full: agents matter more than their leases
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = _read(fd)
                os.close(fd)
                return holder
            if _is_at(fd, path):
                self._held[name] = (identity, fd, path)
                self._sign(fd, name, now)
                return None
            os.close(fd)  # removed by its last holder before we had the lock
        return Holder()

    def release(self, name: str) -> None:
        """Give a lease back; another instance may take it at once."""
        held = self._held.pop(name, None)
        if held is None:
            return
        _, fd, path = held
        with contextlib.suppress(OSError):
            if _is_at(fd, path):
                path.unlink()
        os.close(fd)

    def close(self) -> None:
        """Give back all leases."""
        for name in list(self._held):
            self.release(name)

    def _identity(self, name: str, agent: Agent) -> str | None:
        if agent.lease is not None:
            return f"lease\0{agent.lease}"
        return None if self._file is None else f"file\0{self._file}\0{name}"

    def _sign(self, fd: int, name: str, now: float) -> None:
        said = {"pid": os.getpid(), "agent": name, "data": self._data, "since": now}
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(said).encode()[:MAX_BYTES], 0)
        except OSError:
            self.unwritten += 1


def folder(environment: Mapping[str, str]) -> Path:
    """Return the directory of this user's leases, made when missing. Raises SetupError.

    MIDWATCH_LEASES; for root /run/midwatch; else /run/user/UID, XDG_RUNTIME_DIR, or the directory for
    temporary files: the first that is there and that nobody else can write.
    """
    chosen = environment.get(VARIABLE)
    if chosen:
        return _own(Path(chosen).expanduser().absolute())
    uid = os.getuid()
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    places = [Path("/run")] if uid == 0 else [Path(f"/run/user/{uid}")]
    if uid and runtime.startswith("/"):
        places.append(Path(runtime))
    for place in places:
        if _is_ours(place):
            with contextlib.suppress(SetupError):
                return _own(place / "midwatch")
    return _own(Path(tempfile.gettempdir()) / f"midwatch-{uid}")


def _own(path: Path) -> Path:
    """Return a directory that is ours alone. Raises SetupError that says what is wrong with it."""
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.lstat()
    except OSError as error:
        raise SetupError(
            f"{str(path)!r} cannot be used for leases: {error.strerror}; set {VARIABLE} to a directory of yours"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise SetupError(
            f"{str(path)!r} may be written by others, or is not a directory of yours; set {VARIABLE} to one that is"
        )
    if not os.access(path, os.W_OK | os.X_OK):
        raise SetupError(
            f"{str(path)!r} may not be written; set {VARIABLE} to a directory of yours"
        )
    return path


def _is_ours(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return ours and not found.st_mode & 0o022 and os.access(path, os.W_OK | os.X_OK)


def _is_at(fd: int, path: Path) -> bool:
    """Tell whether the open file is still the one at its path."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


def _read(fd: int) -> Holder:
    """Return what a holder wrote about itself; it may not have written yet."""
    try:
        found: object = json.loads(os.pread(fd, MAX_BYTES, 0))
    except (OSError, ValueError):
        return Holder()
    if not isinstance(found, dict):
        return Holder()
    said = cast("dict[str, Any]", found)
    return Holder(
        whole_of(said, "pid"),
        text_of(said, "data"),
        number_of(said, "since"),
        text_of(said, "agent"),
    )
