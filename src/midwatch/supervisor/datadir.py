"""The data directory as the supervisor finds, makes and locks it (docs/design.md lists its files).

Every file is replaced atomically and is its owner's alone. What cannot be used is told before
anything is started.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import time
from pathlib import Path
from typing import Any, Final

from midwatch.core.access import API_PREFIX
from midwatch.core.errors import SetupError

SECRET_BYTES: Final = 32


class DataDir:
    """A locked data directory. Raises SetupError when it cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self._lock = -1
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            self._take()
        except OSError as error:
            holder = os.read(self._lock, 32).decode("ascii", "replace").strip()
            os.close(self._lock)
            self._lock = -1
            who = f"pid {holder}" if holder else "another process"
            raise SetupError(
                f"{str(self.path)!r} is in use by another instance ({who});"
                " stop that one first, or choose another directory with --data"
            ) from error
        try:
            self._prepare()
        except OSError as error:
            self.close()
            raise self._unusable(error) from error

    def _take(self) -> None:
        """Take the lock. Somebody who only asks whether we run has it for microseconds: that is waited for."""
        for pause in (0.0, 0.01, 0.05, 0.1):
            time.sleep(pause)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                refused = error
            else:
                return
        raise refused

    def _prepare(self) -> None:
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        self.remove("instance.json")  # of one that was killed: nobody shall take it for ours
        for folder in ("supervisor", "hub", "logs", "spool", "run"):
            (self.path / folder).mkdir(exist_ok=True, mode=0o700)
        # written only when missing: a new secret would orphan every spooled item
        if not self._kept("secret", SECRET_BYTES):
            self.write("secret", secrets.token_bytes(SECRET_BYTES))
        if not self._kept("token", 16):
            self.write("token", (API_PREFIX + secrets.token_urlsafe(32)).encode() + b"\n")

    def _kept(self, name: str, least: int) -> bool:
        try:
            kept = len((self.path / name).read_bytes()) >= least
        except FileNotFoundError:
            return False
        (self.path / name).chmod(0o600)
        return kept

    def is_there(self) -> bool:
        """Tell whether the path still leads to the directory that we locked."""
        try:
            return os.path.samestat(os.fstat(self._lock), (self.path / "lock").stat())
        except OSError:
            return False

    @property
    def secret(self) -> bytes:
        return (self.path / "secret").read_bytes()

    def folder(self, *parts: str) -> Path:
        """Return a directory below, made when missing."""
        path = self.path.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    def write(self, name: str, data: bytes) -> None:
        """Replace a file atomically, mode 0600. Raises OSError."""
        target = self.path / name
        fresh = target.with_name(target.name + ".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        fresh.replace(target)

    def write_json(self, name: str, value: Any) -> None:
        """Replace a JSON file. Raises SetupError when the directory cannot take it."""
        try:
            self.write(name, json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n")
        except OSError as error:
            raise self._unusable(error) from error

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Release the lock."""
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = -1

    def _unusable(self, error: OSError) -> SetupError:
        what = {
            errno.EROFS: "is on a read-only file system; choose another directory with --data",
            errno.EACCES: "may not be written by this user; change its owner or choose another with --data",
            errno.EPERM: "may not be written by this user; change its owner or choose another with --data",
            errno.ENOSPC: "has no space left; free some, or choose another directory with --data",
            errno.EDQUOT: "is over its quota; free some space, or choose another directory with --data",
            errno.EEXIST: "is not a directory; choose another path with --data",
            errno.ENOTDIR: "is not a directory; choose another path with --data",
        }.get(
            error.errno or 0,
            f"cannot be used: {error.strerror or error}; choose another directory with --data",
        )
        return SetupError(f"data directory {str(self.path)!r} {what}")
