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
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from midwatch.core.errors import StoreError
from midwatch.core.ports import Backlog

FILE_BYTES: Final = 4 * 1024 * 1024
"""Size at which a file is full: what is dropped or given back at one time."""

WEIGHED: Final = 16
"""Bytes of a body that are enough to weigh it."""

SOUGHT: Final = 256
"""Bodies that may be damaged behind each other, before the rest of a file is given up."""

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
        """Return a file's entries. A damaged one is left out and counted, those behind it are found again; a torn end
        is neither: it was never acknowledged."""
        found = _File(path)
        data = path.read_bytes()
        at, expected = 0, _first(path)
        while len(data) - at >= _HEAD.size:
            if not _is_head(data, at):
                at = _next_head(data, at + 1, expected)
                if at < 0:
                    # at an end that a crash left stand a part of a head, and zeros
                    rest = data[found.size_bytes :].rstrip(b"\0")
                    self._dropped += len(rest) >= _HEAD.size
                    break
            number, length, checksum, _ = _HEAD.unpack_from(data, at)
            place = at + _HEAD.size
            if place + length > len(data):
                break
            self._dropped += max(0, number - max(expected, self._sent + 1))
            at = found.size_bytes = place + length
            found.last, expected = number, number + 1
            if _gone(number) == data[place - _HEAD.size : at]:
                continue
            if zlib.crc32(data[place:at]) != checksum:
                torn = at == len(data) and not any(data[place:at])
                self._dropped += number > self._sent and not torn
            elif number > self._sent:
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
        self._writer.write(_head(number, body) + body)
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

    async def rewrite(self, change: Callable[[bytes], bytes | None]) -> None:
        """Put other bodies in the place of those that wait, or none; see `Outlet`."""
        for file in await self._run(self._closed_files):
            # one after another: what is put meanwhile waits for one of them at most
            await self._run(partial(self._rewrite, file, change))
        await self._run(self._sync)

    def _sync(self) -> None:
        """Have names of files on the disk, too: what was taken out is not to be there again after a loss of power."""
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _closed_files(self) -> list[_File]:
        self._close()  # the next body begins a file
        return list(self._files)

    def _rewrite(self, file: _File, change: Callable[[bytes], bytes | None]) -> None:
        if file not in self._files:
            return  # there was no room for it
        data = file.path.read_bytes()
        waiting = {number: data[at : at + length] for number, at, length in file.entries}
        made, entries = bytearray(), deque[tuple[int, int, int]]()
        for number in range(min(_first(file.path), *waiting, file.last), file.last + 1):
            body = change(waiting[number]) if number in waiting else None
            if body is None:
                made += _gone(number)
            else:
                made += _head(number, body) + body
                entries.append((number, len(made) - len(body), len(body)))
        if bytes(made) != data:
            self._replace(file, bytes(made), entries)
        # not even what was sent stays of a file that nothing waits in
        if not file.entries:
            self._files.remove(file)
            self._remove(file)

    def _replace(self, file: _File, data: bytes, entries: deque[tuple[int, int, int]]) -> None:
        part = file.path.with_suffix(".part")
        with part.open("wb") as writer:
            writer.write(data)
            writer.flush()
            os.fsync(writer.fileno())
        part.replace(file.path)
        file.size_bytes, file.entries = len(data), entries

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

    async def clear(self) -> int:
        """Remove the queue from the disk, with its folder; return for how much what waited counts. Only `stop` may
        follow. Raises StoreError."""
        return await self._run(self._clear)

    def _clear(self) -> int:
        self._close()
        weight = sum(map(self._weight, self._files))
        self._files.clear()
        for path in self._folder.iterdir():
            path.unlink()
        self._folder.rmdir()
        return weight

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


def _head(number: int, body: bytes) -> bytes:
    return _checked(_HEAD.pack(number, len(body), zlib.crc32(body), 0)[:-4])


def _gone(number: int) -> bytes:
    """Return what stands in the place of a body that was taken out: no body has this checksum and no length."""
    return _checked(_HEAD.pack(number, 0, 1, 0)[:-4])


def _checked(head: bytes) -> bytes:
    return head + struct.pack("<I", zlib.crc32(head))


def _is_head(data: bytes, at: int) -> bool:
    end = at + _HEAD.size
    return data[end - 4 : end] == struct.pack("<I", zlib.crc32(data[at : end - 4]))


def _next_head(data: bytes, at: int, expected: int) -> int:
    """Return where the next head is from there on, by the numbers that may come; -1 when there is none."""
    for number in range(expected, expected + SOUGHT):
        wanted, place = struct.pack("<Q", number), at
        while (place := data.find(wanted, place)) >= 0:
            if len(data) - place >= _HEAD.size and _is_head(data, place):
                return place
            place += 1
    return -1


def _first(path: Path) -> int:
    """Return the number of the first body that was put into a file."""
    return int(path.stem) if path.stem.isdecimal() else 0


def _settle(waiter: asyncio.Future[int], number: int) -> None:
    if not waiter.done():
        waiter.set_result(number)


def _fail(waiter: asyncio.Future[int], error: StoreError) -> None:
    if not waiter.done():
        waiter.set_exception(error)
