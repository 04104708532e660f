"""What git has checked out in a directory, read from its files: no git is run.

A repository belongs to those who can write it, sandboxed agents among them, and its configuration can
name programs (hooks, fsmonitor, filters) that git would run as us. So nothing of it is executed: HEAD,
refs and the index are parsed, bounded in size and time. What cannot be told is None, never a guess.
Blocking: called in a worker thread.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from midwatch.core.versions import Revision

MAX_SMALL_BYTES: Final = 4096
"""Of HEAD, a ref, a `.git` file."""

MAX_PACKED_BYTES: Final = 16 * 1024 * 1024
MAX_INDEX_BYTES: Final = 32 * 1024 * 1024
MAX_CONTENT_BYTES: Final = 4 * 1024 * 1024
"""Of a file whose time changed and whose content must tell; a larger one of the same size tells nothing."""

MAX_PATH_BYTES: Final = 4096
"""Of a file's name in the index; version 4 would let names grow from entry to entry."""

DIRTY_S: Final = 1.0
"""How long looking for changed files may take."""

_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF: Final = re.compile(r"refs/(?!.*(?:\.\.|//))[!-~]{1,200}")
_ENTRY: Final = struct.Struct(">10I")
_ASSUME_VALID, _EXTENDED, _SKIP_WORKTREE, _STAGE = 0x8000, 0x4000, 0x4000, 0x3000
_KIND, _LINK, _SUBMODULE = 0o170000, 0o120000, 0o160000


class _Unreadable(Exception):
    """A file of git's is not what we can read."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """Where the parts of a repository lie."""

    tree: Path
    git: Path
    common: Path


def revision(directory: Path, *, dirty: bool = False) -> Revision | None:
    """Return what is checked out there, or None where git has nothing. `dirty` looks at the files, too."""
    checkout = find(directory)
    if checkout is None:
        return None
    try:
        head = _small(checkout.git / "HEAD")
    except _Unreadable:
        return None
    branch: str | None = None
    commit: str | None = head
    if head.startswith("ref:"):
        ref = head.removeprefix("ref:").strip()
        if _REF.fullmatch(ref) is None:
            return None
        branch = ref.removeprefix("refs/heads/")
        commit = _resolve(checkout, ref)
    if commit is None or _COMMIT.fullmatch(commit) is None:
        return None  # no commit yet, or a form that we do not read
    return Revision(commit, branch, is_dirty(checkout, len(commit)) if dirty else None)


def find(directory: Path) -> Checkout | None:
    """Return the repository that a directory lies in."""
    for folder in (directory, *directory.parents):
        mark = folder / ".git"
        try:
            kind = mark.lstat().st_mode
        except OSError:
            continue
        git = mark
        if stat.S_ISREG(kind):  # a worktree or submodule names its directory
            try:
                said = _small(mark)
            except _Unreadable:
                return None
            if not said.startswith("gitdir:"):
                return None
            git = folder / said.removeprefix("gitdir:").strip()
        elif not stat.S_ISDIR(kind):
            return None
        try:
            common = git / _small(git / "commondir")
        except _Unreadable:
            common = git
        return Checkout(folder, git, common)
    return None


def is_dirty(checkout: Checkout, digits: int, limit_s: float = DIRTY_S) -> bool | None:
    """Tell whether a file under version control differs from the index; None when that was not found out."""
    deadline = time.monotonic() + limit_s
    try:
        index = checkout.git / "index"
        written = index.stat().st_mtime_ns
        unsure = False
        for entry in _entries(_bounded(index, MAX_INDEX_BYTES), digits // 2, deadline):
            differs = _differs(checkout.tree, entry, written)
            if differs:
                return True
            unsure = unsure or differs is None
    except (OSError, _Unreadable, struct.error, IndexError, ValueError):
        return None
    return None if unsure else False


@dataclass(frozen=True, slots=True)
class _Entry:
    path: str
    mode: int
    size: int
    mtime_ns: int
    digest: str


def _entries(index: bytes, width: int, deadline: float) -> Iterator[_Entry]:
    """Yield what the index (version 2, 3 or 4) says of each file that is to be compared.

    Raises _Unreadable for one that git would not write, or that takes too long.
    """
    magic, version, count = struct.unpack_from(">4sII", index)
    if magic != b"DIRC" or version not in (2, 3, 4):
        raise _Unreadable
    at, path = 12, b""
    for _ in range(count):
        if time.monotonic() > deadline:
            raise _Unreadable
        start = at
        _, _, seconds, nanos, _, _, mode, _, _, size = _ENTRY.unpack_from(index, at)
        at += _ENTRY.size
        digest = index[at : at + width].hex()
        (flags,) = struct.unpack_from(">H", index, at + width)
        at += width + 2
        more = 0
        if flags & _EXTENDED:
            (more,) = struct.unpack_from(">H", index, at)
            at += 2
        if version == 4:
            strip, at = _varint(index, at)
            end = index.index(b"\0", at)
            path = path[: len(path) - strip] + index[at:end]
            at = end + 1
        else:
            end = index.index(b"\0", at)
            path = index[at:end]
            at = start + (end - start + 8) // 8 * 8
        if len(path) > MAX_PATH_BYTES or path.startswith(b"/") or b".." in path.split(b"/"):
            raise _Unreadable  # what lies outside is none of its business
        left_out = flags & (_ASSUME_VALID | _STAGE) or more & _SKIP_WORKTREE
        if not left_out and mode & _KIND != _SUBMODULE:
            yield _Entry(os.fsdecode(path), mode, size, seconds * 1_000_000_000 + nanos, digest)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read git's offset encoding; return the number and where it ended."""
    byte = data[at]
    value = byte & 0x7F
    while byte & 0x80:
        at += 1
        byte = data[at]
        value = ((value + 1) << 7) | (byte & 0x7F)
    return value, at + 1


def _differs(tree: Path, entry: _Entry, written: int) -> bool | None:
    """Tell whether a file differs from its entry; the content decides where times do not."""
    path = tree / entry.path
    try:
        found = path.lstat()
    except OSError:
        return True  # removed
    link = entry.mode & _KIND == _LINK
    if stat.S_ISLNK(found.st_mode) != link or not (link or stat.S_ISREG(found.st_mode)):
        return True
    # git keeps times in parts of a second only where it was built to
    same_time = found.st_mtime_ns in (entry.mtime_ns, entry.mtime_ns // 10**9 * 10**9)
    if same_time and found.st_size & 0xFFFFFFFF == entry.size and found.st_mtime_ns < written:
        return False
    if found.st_size > MAX_CONTENT_BYTES:
        return True if found.st_size & 0xFFFFFFFF != entry.size else None
    content = os.fsencode(path.readlink()) if link else _bounded(path, MAX_CONTENT_BYTES)
    if _blob(content, len(entry.digest)) == entry.digest:
        return False
    # checked out with other line ends, as core.autocrlf does
    return _blob(content.replace(b"\r\n", b"\n"), len(entry.digest)) != entry.digest


def _blob(content: bytes, digits: int) -> str:
    whole = b"blob %d\0%s" % (len(content), content)
    if digits == 64:
        return hashlib.sha256(whole).hexdigest()
    return hashlib.sha1(whole, usedforsecurity=False).hexdigest()


def _resolve(checkout: Checkout, ref: str) -> str | None:
    for folder in dict.fromkeys((checkout.git, checkout.common)):
        try:
            return _small(folder / ref)
        except _Unreadable:
            continue
    try:
        packed = _bounded(checkout.common / "packed-refs", MAX_PACKED_BYTES)
    except (OSError, ValueError, _Unreadable):
        return None
    found = re.search(
        rb"^([0-9a-f]{40,64}) " + re.escape(ref.encode()) + rb"$", packed, re.MULTILINE
    )
    return found[1].decode() if found else None


def _small(path: Path) -> str:
    try:
        return _bounded(path, MAX_SMALL_BYTES).decode("utf-8").strip()
    except (OSError, ValueError) as error:  # not UTF-8, or a path with a NUL in it
        raise _Unreadable from error


def _bounded(path: Path, most: int) -> bytes:
    """Return a regular file's content. A pipe in its place must not make us wait."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as file:  # noqa: PTH123  opened by its descriptor
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _Unreadable
        content = file.read(most + 1)
    if len(content) > most:
        raise _Unreadable
    return content
