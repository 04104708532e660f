"""Leases: on one machine, one user's supervisors never run the same agent twice.

An agent's identity is its `lease` where the fleet file gives one, else the file's real path and the
agent's name; without either there is no lease. The lease is an flock: the kernel gives it back when the
holder dies, however it dies. What stands in the file only says who holds it. A file is removed by its
holder alone, under the lock; whoever locks one that is no longer the one at its path tries again.

A lease is taken in every place that is there and ours, or nowhere: a service that was started before
any login knows only the directory for temporary files, a session also /run/user/UID, and both have to
meet. All ask in the same order, so that of two that begin together one gets all.

A place is ours when its directory belongs to us and nobody else may write it; no symbolic link is
followed there. Where no such directory can be had, leases are off, which is said: a stranger who squats
a name in /tmp must not keep agents from running.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Generator, Iterable, Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class _Lock:
    fd: int
    place: Path
    name: str


class Leases:
    """The leases of one instance. `file` is its fleet file, `data` its data directory; without `places`
    leases are off."""

    def __init__(self, file: Path | None, data: Path, *places: Path) -> None:
        self.unwritten = 0
        """Leases that could not be taken in a place that is there, or say nothing about who holds them."""
        self._file = str(file.resolve()) if file is not None else None
        self._data = str(data)
        self._places = places
        self._held: dict[str, tuple[str, list[_Lock]]] = {}

    def take(self, name: str, agent: Agent, now: float) -> Holder | None:
        """Take the lease of an agent; return who holds it, or None when it is ours (or there is none).

        One that it held under another identity is given back: its entry has changed.
        """
        identity = self._identity(name, agent)
        if name in self._held:
            if self._held[name][0] == identity:
                return None
            self.release(name)
        if identity is None or not self._places:
            return None
        file = f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.lease"
        locks: list[_Lock] = []
        with contextlib.closing(self._folders()) as folders:
            for folder, place in folders:
                try:
                    found = _lock(folder, file)
                except OSError:
                    self.unwritten += 1  # the disk is full: agents matter more than their leases
                    continue
                if isinstance(found, Holder):
                    for lock in locks:
                        _give_back(lock)
                    return found
                locks.append(_Lock(found, place, file))
        if locks:
            self._held[name] = (identity, locks)
            self._sign(locks, name, now)
        return None

    def release(self, name: str) -> None:
        """Give a lease back; another instance may take it at once."""
        for lock in self._held.pop(name, ("", []))[1]:
            _give_back(lock)

    def close(self) -> None:
        """Give back all leases."""
        for name in list(self._held):
            self.release(name)

    def _folders(self) -> Generator[tuple[int, Path]]:
        """Yield each place that is there and ours, open while it is looked at. One that has two names
        is one: we would find ourselves there."""
        seen: set[tuple[int, int]] = set()
        for place in self._places:
            try:
                folder = _open(place)
            except SetupError:
                continue
            try:
                found = os.fstat(folder)
                if (found.st_dev, found.st_ino) not in seen:
                    seen.add((found.st_dev, found.st_ino))
                    yield folder, place
            finally:
                os.close(folder)
        if not seen:
            self.unwritten += 1

    def _identity(self, name: str, agent: Agent) -> str | None:
        if agent.lease is not None:
            return f"lease\0{agent.lease}"
        return None if self._file is None else f"file\0{self._file}\0{name}"

    def _sign(self, locks: Iterable[_Lock], name: str, now: float) -> None:
        said = {"pid": os.getpid(), "agent": name, "data": self._data, "since": now}
        for lock in locks:
            try:
                os.ftruncate(lock.fd, 0)
                os.pwrite(lock.fd, json.dumps(said).encode()[:MAX_BYTES], 0)
            except OSError:
                self.unwritten += 1


def places(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return where this user's leases are to be, whether it is there or not: MIDWATCH_LEASES alone; else
    what every process of the user knows first (/tmp), then what only some have.
    """
    chosen = environment.get(VARIABLE)
    if chosen:
        return (Path(chosen).expanduser().absolute(),)
    uid = os.getuid()
    own = f"midwatch-{uid}"
    wanted = [Path("/tmp", own), Path(tempfile.gettempdir(), own)]  # noqa: S108  looked at with care
    if uid == 0:
        return tuple(dict.fromkeys([*wanted, Path("/run/midwatch")]))
    wanted.append(Path(f"/run/user/{uid}/midwatch"))
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        wanted.append(Path(runtime, "midwatch"))
    return tuple(dict.fromkeys(wanted))


def complaints(wanted: Sequence[Path]) -> list[str]:
    """Return in sentences which places cannot be used although they should, and what follows."""
    usable = False
    missing: list[str] = []
    refused: list[str] = []
    for place in wanted:
        try:
            os.close(_open(place))
            usable = True
        except SetupError as error:
            (refused if place.parent.is_dir() else missing).append(str(error))
    if not usable:
        which = "; ".join(refused or missing)
        return [f"nothing keeps another instance from starting the same agents: {which}"]
    return [
        f"another instance that knows no other place may start the same agents: {why}"
        for why in refused
    ]


def _open(place: Path) -> int:
    """Open a directory that is ours alone, made when missing. Raises SetupError that says what is wrong
    with it."""
    advice = f"set {VARIABLE} to a directory of yours"
    try:
        around = place.parent.stat()
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o700)
        folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise SetupError(f"{str(place)!r} is not a directory of yours; {advice}") from error
        raise SetupError(
            f"{str(place)!r} cannot be used for leases: {error.strerror}; {advice}"
        ) from error
    found = os.fstat(folder)
    # where everybody may write, only the sticky bit keeps others from putting another in its place
    loose = around.st_mode & 0o002 and not around.st_mode & stat.S_ISVTX
    problem = ""
    if found.st_uid != os.getuid() or found.st_mode & 0o022 or loose:
        problem = "may be written or replaced by others"
    elif not os.access(place, os.W_OK | os.X_OK):
        problem = "may not be written"
    if problem:
        os.close(folder)
        raise SetupError(f"{str(place)!r} {problem}; {advice}")
    return folder


def _lock(folder: int, file: str) -> int | Holder:
    """Lock a file and return it, or who has locked it. Raises OSError when it cannot be made."""
    how = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    for _ in range(TRIES):
        fd = os.open(file, how, 0o600, dir_fd=folder)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read(fd)
            os.close(fd)
            return holder
        except OSError:  # a file system without locks
            os.close(fd)
            raise
        if _is_at(fd, folder, file):
            return fd
        os.close(fd)  # removed by its last holder before we had the lock
    return Holder()


def _give_back(lock: _Lock) -> None:
    """Remove the file, if it is still ours, and let go of it."""
    with contextlib.suppress(OSError, SetupError):
        folder = _open(lock.place)
        try:
            if _is_at(lock.fd, folder, lock.name):
                os.unlink(lock.name, dir_fd=folder)
        finally:
            os.close(folder)
    os.close(lock.fd)


def _is_at(fd: int, folder: int, file: str) -> bool:
    """Tell whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(file, dir_fd=folder, follow_symlinks=False))
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
