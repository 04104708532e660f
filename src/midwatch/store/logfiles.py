"""Reads an agent's log across its rotated files: from the oldest, from a time, from the last lines, or
from where another reader stopped.

Invariant: a reader that was away, however long, goes on in the file where it stopped, under whatever
number it is found, and takes every file after it. When that file is gone the gap is told, not hidden.
"""

from __future__ import annotations

import contextlib
import os
import stat
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Final

from midwatch.core.loglines import STAMP_LENGTH

CURRENT: Final = "output.log"

MAX_LINE: Final = 512 * 1024
"""Bytes of one line; a longer one comes in pieces. The writer breaks lines before that."""

BLOCK: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a log that survives rotation: which file, known by its number in the file system and
    its first time, and how far."""

    inode: int
    head: int
    offset: int

    def __str__(self) -> str:
        return f"{self.inode:x}.{self.head:x}.{self.offset:x}"

    @classmethod
    def parse(cls, text: str) -> Mark:
        """Read what `str` wrote. Raises ValueError."""
        parts = text.split(".")
        if len(text) > 64 or len(parts) != 3:
            raise ValueError(f"{text[:64]!r} is no place in a log")
        return cls(*(int(part, 16) for part in parts))


@dataclass(slots=True)
class _File:
    stream: IO[bytes]
    inode: int
    head: int
    first: bytes
    """The time in its first line, or nothing."""


class Reader:
    """Reads one agent's log. Holds the file open in which it stands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gaps = 0
        """How often files went away before they were read."""
        self._file: _File | None = None

    # -- where to begin ----------------------------------------------------------------------

    def begin_after(self, mark: Mark) -> None:
        """Begin where another reader stopped; where that is gone, at the oldest that is kept."""
        with self._all() as files:
            for file in files:
                if (file.inode, file.head) == (mark.inode, mark.head):
                    self._take(files, file)
                    size = os.fstat(file.stream.fileno()).st_size
                    file.stream.seek(min(mark.offset, size))
                    return
            self.gaps += 1

    def begin_at(self, earliest: bytes) -> None:
        """Begin at the first file that can hold lines of that time or later."""
        with self._all() as files:
            for file, after in pairwise(files):
                if after.first > earliest:
                    self._take(files, file)
                    return
            if files:
                self._take(files, files[-1])

    def begin_with_last(self, count: int) -> None:
        """Begin so that the last `count` lines are read."""
        with self._all() as files:
            for file in reversed(files):
                found, offset = _from_end(file.stream, count)
                if found >= count or file is files[0]:
                    self._take(files, file)
                    file.stream.seek(offset)
                    return
                count -= found

    # -- reading -----------------------------------------------------------------------------

    def read(self, *, partial: bool = True) -> Generator[bytes]:
        """Yield what there is up to now, line by line; `partial`: also a line that has no end yet."""
        while self._file is not None or self._enter():
            file = self._file
            assert file is not None
            stream = file.stream
            if os.fstat(stream.fileno()).st_size < stream.tell():
                stream.seek(0)  # somebody emptied it
            yield from _lines(stream, partial=False)
            following = self._following(file)
            if following is None:
                if partial:
                    yield from _lines(stream, partial=True)
                return
            yield from _lines(stream, partial=True)  # what came between reading and rotation
            stream.close()
            self._file = following

    @property
    def mark(self) -> Mark | None:
        """Where the next line begins; None while there is nothing."""
        file = self._file
        return None if file is None else Mark(file.inode, file.head, file.stream.tell())

    def close(self) -> None:
        if self._file is not None:
            self._file.stream.close()
            self._file = None

    def _enter(self) -> bool:
        """Stand at the begin of the oldest file."""
        with self._all() as files:
            if files:
                self._take(files, files[0])
        return self._file is not None

    def _take(self, files: list[_File], file: _File) -> None:
        self.close()
        files.remove(file)  # the others are closed by whoever opened them
        self._file = file

    def _following(self, file: _File) -> _File | None:
        """Return the file after this one, or None when this is the youngest."""
        try:
            status = (self.folder / CURRENT).lstat()
        except OSError:
            return None  # between two names
        if status.st_ino == file.inode:
            return None
        with self._all() as files:
            place = next((i for i, f in enumerate(files) if f.inode == file.inode), None)
            if place is None:
                self.gaps += 1
            younger = files if place is None else files[place + 1 :]
            if not younger:
                return None
            following = younger[0]
            files.remove(following)
            return following

    @contextlib.contextmanager
    def _all(self) -> Generator[list[_File]]:
        """Open all files, oldest first, and close those that are left in the list.

        The youngest is opened first: a rotation meanwhile gives a file a higher number, so it is met
        twice, but never missed.
        """
        found: dict[int, _File] = {}
        names = [CURRENT, *(f"{CURRENT}.{n}" for n in range(1, self._highest() + 2))]
        files: list[_File] = []
        try:
            for name in names:
                file = _open(self.folder / name)
                if file is None:
                    continue
                if file.inode in found:
                    file.stream.close()
                else:
                    found[file.inode] = file
                    files.insert(0, file)
            yield files
        finally:
            for file in files:
                file.stream.close()

    def _highest(self) -> int:
        numbers = (path.suffix[1:] for path in self.folder.glob(f"{CURRENT}.*"))
        return max((int(n) for n in numbers if n.isdecimal() and len(n) < 6), default=0)


def _open(path: Path) -> _File | None:
    """Open a log; links, pipes and devices are none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        return None
    first = os.pread(fd, STAMP_LENGTH - 1, 0)
    # while it is shorter than a time its first bytes still change
    head = zlib.crc32(first) if len(first) == STAMP_LENGTH - 1 else 0
    return _File(os.fdopen(fd, "rb"), status.st_ino, head, first)


def _lines(stream: IO[bytes], *, partial: bool) -> Iterator[bytes]:
    while text := stream.readline(MAX_LINE):
        if not partial and not text.endswith(b"\n") and len(text) < MAX_LINE:
            stream.seek(-len(text), os.SEEK_CUR)
            return
        yield text


def _from_end(stream: IO[bytes], count: int) -> tuple[int, int]:
    """Return how many of the last `count` lines are in the file, and where they begin."""
    size = os.fstat(stream.fileno()).st_size
    if not size or count <= 0:
        return 0, size
    end, found = size, 0
    while end:
        begin = max(0, end - BLOCK)
        stream.seek(begin)
        block = stream.read(end - begin)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            if begin + at + 1 < size:  # the end of the last line begins no line
                found += 1
                if found == count:
                    return found, begin + at + 1
        end = begin
    return found + 1, 0
