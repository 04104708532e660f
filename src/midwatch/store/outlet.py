"""A queue on disk for one target: what is to be sent on waits here while the target is down.

Bodies are appended to files of a few megabytes each, with their numbers and checksums; a file is removed when all of
it was sent, or when there is no room. How far it was sent stands in a file of its own, written after the fact: after a
crash some bodies are sent again, none is left out. A torn end, which a crash leaves, was never acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import threading
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from midwatch.core.errors import StoreError
from midwatch.core.ports import Backlog

FILE_BYTES: Final = 4 * 1024 * 1024
"""Size at which a file is full: what is dropped or given back at one time."""

WEIGHED: Final = 16
"""Bytes of a body that are enough to weigh it."""

_HEAD: Final = struct.Struct("<QIII")
"""Number, length, checksum of the body, and checksum of the three before it."""

T = TypeVar("T")


@dataclass(slots=True)
class _File:
    """One file, and what is in it and not sent."""

    path: Path
    size_bytes: int = 0
    entries: deque[tuple[int, int, int]] = field(default_factory=deque[tuple[int, int, int]])
    """Number, place of the body, length."""
    last: int = 0


class DiskOutlet:
    """An `Outlet` in a folder that is this process's alone. `open` before anything else."""

    def __init__(
        self,
        folder: Path,
        limit_bytes: int,
        file_bytes: int = FILE_BYTES,
        weigh: Callable[[bytes], int] = lambda _: 1,
    ) -> None:
        """`weigh` returns for how much a body counts that is dropped, by its first WEIGHED bytes."""
        self._weigh = weigh
        self._folder = folder
        self._limit = limit_bytes
        self._file_bytes = max(1, min(file_bytes, limit_bytes // 4))
        self._files: deque[_File] = deque()
        self._writer: BinaryIO | None = None
        self._last = 0
        self._sent = 0
        self._dropped = 0
        self._puts: list[tuple[bytes, asyncio.Future[int]]] = []
        self._lock = threading.Lock()
        self._stopped = False
        self._thread = ThreadPoolExecutor(1, "outlet")

    # -- life --------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read what waits. Raises StoreError."""
        await self._run(self._read_all)

    async def stop(self) -> None:
        """Let go of the files; what waits stays. Nothing more is taken."""
        with self._lock:
            self._stopped = True
        await self._run(self._close)
        self._thread.shutdown(wait=False)

    def _read_all(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError, ValueError):
            self._sent = int((self._folder / "sent").read_text())
        self._last = self._sent
        for path in sorted(self._folder.glob("*.queue")):
            found = self._read(path)
            self._last = max(self._last, found.last)
            if found.entries:
                self._files.append(found)
            else:
                path.unlink()

    def _read(self, path: Path) -> _File:
        """Return a file's entries up to where it is torn, and cut it there."""
        found = _File(path)
        with path.open("rb") as file:
            while len(head := file.read(_HEAD.size)) == _HEAD.size:
                number, length, checksum, own = _HEAD.unpack(head)
                place = file.tell()
                if own != zlib.crc32(head[:-4]) or length > self._limit:
                    break
                body = file.read(length)
                if len(body) < length or zlib.crc32(body) != checksum:
                    break
                found.last = number
                found.size_bytes = file.tell()
                if number > self._sent:
                    found.entries.append((number, place, length))
        return found

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(
                OSError
            ):  # what it could not write was told when it was flushed
                writer.close()

    # -- putting -----------------------------------------------------------------------------

    async def put(self, body: bytes) -> int:
        """Keep a body; those that come at one time are synced together. See `Outlet`."""
        if len(body) + _HEAD.size > self._limit:
            raise StoreError(
                f"a body of {len(body)} bytes is larger than the queue ({self._limit}); raise its limit",
                permanent=True,
            )
        waiter = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._stopped:
                raise StoreError(f"the queue in {self._folder} is closed")
            self._puts.append((body, waiter))
            is_first = len(self._puts) == 1
        if is_first:
            # whatever comes while the thread is busy goes with the first of them, also when the first one's caller
            # goes away meanwhile
            self._thread.submit(self._write_all)
        return await waiter

    def _write_all(self) -> None:
        with self._lock:
            puts, self._puts = self._puts, []
        numbers: list[int] = []
        first = self._last + 1
        try:
            for body, _ in puts:
                numbers.append(self._append(body))
            if self._writer is not None:
                self._writer.flush()
                os.fdatasync(self._writer.fileno())
        except OSError as error:
            self._close()  # its end may be torn: the next body begins a file
            self._forget(first)
            failed = self._failed(error)
            for _, waiter in puts:
                waiter.get_loop().call_soon_threadsafe(_fail, waiter, failed)
            return
        self._make_room()
        for (_, waiter), number in zip(puts, numbers, strict=True):
            waiter.get_loop().call_soon_threadsafe(_settle, waiter, number)

    def _append(self, body: bytes) -> int:
        file = self._files[-1] if self._files and self._writer is not None else None
        if file is None or file.size_bytes + len(body) > self._file_bytes:
            self._close()
            file = _File(self._folder / f"{self._last + 1:016d}.queue")
            self._writer = file.path.open("wb")
            self._files.append(file)
        assert self._writer is not None
        number = self._last + 1
        head = _HEAD.pack(number, len(body), zlib.crc32(body), 0)[:-4]
        self._writer.write(head + struct.pack("<I", zlib.crc32(head)) + body)
        place = file.size_bytes + _HEAD.size
        file.size_bytes = place + len(body)
        file.entries.append((number, place, len(body)))
        file.last = self._last = number
        return number

    def _forget(self, first: int) -> None:
        """Leave out what was told to be not kept: torn bodies would go on, with good ones in the same request."""
        for file in self._files:
            while file.entries and file.entries[-1][0] >= first:
                file.size_bytes = file.entries.pop()[1] - _HEAD.size
        while self._files and not self._files[-1].entries:
            self._remove(self._files.pop())

    def _make_room(self) -> None:
        """Drop the oldest files while there is too much; the one that is written to stays as long as it can."""
        while len(self._files) > 1 and self._size() > self._limit:
            oldest = self._files.popleft()
            self._dropped += self._weight(oldest)
            self._remove(oldest)

    def _weight(self, file: _File) -> int:
        """Return for how much a file's bodies count; one of a file that cannot be read counts for one."""
        weight = len(file.entries)
        with contextlib.suppress(OSError), file.path.open("rb") as reader:
            for _, place, length in file.entries:
                reader.seek(place)
                weight += self._weigh(reader.read(min(length, WEIGHED))) - 1
        return weight

    def _size(self) -> int:
        return sum(file.size_bytes for file in self._files)

    def _remove(self, file: _File) -> None:
        with contextlib.suppress(
            OSError
        ):  # one that stays is read at the next start, and swept then
            file.path.unlink()

    # -- taking ------------------------------------------------------------------------------

    async def waiting(self, limit: int) -> Sequence[tuple[int, bytes]]:
        """Return the oldest bodies; see `Outlet`."""
        return await self._run(lambda: self._oldest(limit))

    def _oldest(self, limit: int) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        for file in self._files:
            if len(found) >= limit:
                break
            with file.path.open("rb") as reader:
                for number, place, length in file.entries:
                    if len(found) >= limit:
                        break
                    reader.seek(place)
                    found.append((number, reader.read(length)))
        return found

    async def sent(self, upto: int) -> None:
        """Let go of everything up to this number; see `Outlet`."""
        await self._run(lambda: self._let_go(upto))

    def _let_go(self, upto: int) -> None:
        self._sent = max(self._sent, upto)
        while self._files:
            file = self._files[0]
            while file.entries and file.entries[0][0] <= upto:
                file.entries.popleft()
            if file.entries:
                break
            self._files.popleft()
            if not self._files:
                self._close()
            self._remove(file)
        # not synced: what is lost of it is sent twice
        part = self._folder / "sent.part"
        part.write_text(str(self._sent))
        part.replace(self._folder / "sent")

    def backlog(self) -> Backlog:
        """Return what waits now."""
        files = list(self._files)
        entries = sum(len(file.entries) for file in files)
        return Backlog(entries, sum(f.size_bytes for f in files if f.entries), self._dropped)

    # -- its thread --------------------------------------------------------------------------

    async def _run(self, work: Callable[[], T]) -> T:
        def safe() -> T:
            try:
                return work()
            except OSError as error:
                raise self._failed(error) from None

        return await asyncio.get_running_loop().run_in_executor(self._thread, safe)

    def _failed(self, error: OSError) -> StoreError:
        return StoreError(
            f"the queue in {self._folder} cannot be used: {error.strerror}; see its disk"
        )


def _settle(waiter: asyncio.Future[int], number: int) -> None:
    if not waiter.done():
        waiter.set_result(number)


def _fail(waiter: asyncio.Future[int], error: StoreError) -> None:
    if not waiter.done():
        waiter.set_exception(error)
