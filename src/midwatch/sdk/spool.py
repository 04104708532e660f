"""What could not be delivered yet: segments on disk, oldest first, bounded.

Every process writes into a directory of its own, `SPOOL/LANE.PID.TIME/`, and holds a lock
on it as long as it lives. A directory whose lock is free belongs to a run that ended; the
next run takes its segments over, so each is delivered by one process. Segments are named by
the time they were begun: sorting by name is sorting by age. When the cap is reached the
oldest segment goes, and what it held is counted. What the disk refuses waits in memory,
bounded too. One thread uses a spool.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from itertools import islice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

    Entry = tuple[str, dict[str, Any]]
    Lose = Callable[[str, int], None]

SEGMENT_BYTES = 1024 * 1024
"""A segment is closed at this size. It is also the grain in which the oldest is dropped."""

CAP_BYTES = 64 * 1024 * 1024
"""What the spool of one process may take on disk; three quarters are for items: some 240,000 beats."""

HELD_ITEMS = 5_000
"""Items kept in memory when the disk refuses them."""

DISK_RETRY_S = 2.0
"""How long a disk that refused is left alone."""

_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What says nothing about the file: an agent that leaks files still has its spool."""


class _Segment:
    """One file of items; `items` is None when an earlier run wrote it."""

    __slots__ = ("items", "path", "size")

    def __init__(self, path: str, size: int, items: int | None) -> None:
        self.path = path
        self.size = size
        self.items = items


class Spool:
    """A queue of entries that outlives the process. `lose(reason, count)` is told of losses."""

    def __init__(
        self, folder: str | None, lane: str, lose: Lose, cap_bytes: int = CAP_BYTES
    ) -> None:
        self._folder = folder
        self._lane = lane
        self._lose = lose
        self._cap_bytes = cap_bytes
        self._segments: deque[_Segment] = deque()
        self._held: deque[Entry] = deque()
        self._own: str | None = None
        self._lock: int | None = None
        self._output: BinaryIO | None = None
        self._offset = 0
        self._peeked: list[tuple[int, int]] = []
        self._disk_after = float("-inf")
        self.total_bytes = 0
        self.written = 0

    def __bool__(self) -> bool:
        return bool(self._segments or self._held)

    @property
    def held(self) -> int:
        """How many items wait in memory."""
        return len(self._held)

    def append(self, entries: list[Entry]) -> None:
        """Keep entries behind all that waits. What cannot be kept is counted as lost."""
        if not entries:
            return
        self._held.extend(entries)
        if self._folder is not None and time.monotonic() >= self._disk_after:
            self._spill()
        excess = len(self._held) - HELD_ITEMS
        if excess > 0:
            for _ in range(excess):
                self._held.popleft()
            self._peeked = []
            self._lose("memory_full", excess)

    def peek(self, limit: int) -> list[Entry]:
        """Return the oldest entries, at most `limit`, without removing them.

        Raises OSError when the process is short of something (open files, memory): they stay.
        """
        while self._segments:
            entries = self._read(self._segments[0], limit)
            if entries:
                return entries
            self._drop_head()
        self._peeked = []
        return list(islice(self._held, limit))

    def commit(self, count: int) -> None:
        """Remove the first `count` of the entries that the last peek returned."""
        if count <= 0:
            return
        if not self._peeked:
            for _ in range(min(count, len(self._held))):
                self._held.popleft()
            return
        self._offset = self._peeked[count - 1][1]
        if self._segments and self._offset >= self._segments[0].size:
            self._drop_head()
        self._peeked = []

    def adopt(self) -> int:
        """Take over what ended runs of this agent left. Returns the number of segments."""
        if self._folder is None:
            return 0
        adopted: list[_Segment] = []
        try:
            names = sorted(os.listdir(self._folder))  # noqa: PTH208  # pathlib is 20 modules
        except OSError:
            return 0
        for name in names:
            place = f"{self._folder}/{name}"
            if name.startswith(f"{self._lane}.") and place != self._own:
                adopted += self._take_over(place)
        if adopted:
            adopted.sort(key=lambda segment: os.path.basename(segment.path))  # noqa: PTH119
            self._segments.extendleft(reversed(adopted))
            self._offset, self._peeked = 0, []
            self.total_bytes += sum(segment.size for segment in adopted)
            self._keep_cap()
        return len(adopted)

    def close(self) -> None:
        """Leave on disk what waits, for the next run; leave nothing when nothing waits."""
        if self._held and self._folder is not None:
            self._spill()
        if self._held:
            self._lose("closed", len(self._held))
            self._held.clear()
        self._close_output()
        if self._own is not None and not self._segments:
            _remove(f"{self._own}/lock")
            _remove_folder(self._own)
        self.forget()

    def forget(self) -> None:
        """Let go without a trace on disk: the files belong to the parent process."""
        if self._output is not None:
            self._output.close()
        if self._lock is not None:
            os.close(self._lock)
        self._output = self._lock = self._own = None
        self._segments.clear()
        self._held.clear()
        self._peeked, self._offset, self.total_bytes = [], 0, 0

    def _spill(self) -> None:
        from midwatch.wire import journal

        lines = [journal.encode(entry) for entry in self._held]
        count, size = len(lines), sum(map(len, lines))
        try:
            output = self._open_output()
            rest = memoryview(b"".join(lines))
            while rest:  # a disk that fills up takes a part before it refuses
                rest = rest[output.write(rest) :]
        except OSError:
            self._disk_after = time.monotonic() + DISK_RETRY_S
            self._mend()
            return
        self._held.clear()
        segment = self._segments[-1]
        segment.size += size
        segment.items = (segment.items or 0) + count
        self.total_bytes += size
        self.written += count
        if segment.size >= SEGMENT_BYTES:
            self._close_output()
        self._keep_cap()

    def _open_output(self) -> BinaryIO:
        if self._output is not None:
            return self._output
        if self._own is None:
            self._claim()
        path = f"{self._own}/{time.time_ns():020d}.jsonl"
        self._output = open(path, "xb", buffering=0)  # noqa: SIM115, PTH123
        self._segments.append(_Segment(path, 0, 0))
        return self._output

    def _claim(self) -> None:
        import fcntl

        own = f"{self._folder}/{self._lane}.{os.getpid()}.{time.time_ns()}"
        os.makedirs(own, mode=0o700)  # noqa: PTH103
        lock = None
        try:
            lock = os.open(f"{own}/lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if lock is not None:
                os.close(lock)
            _remove(f"{own}/lock")
            _remove_folder(own)
            raise
        self._own, self._lock = own, lock

    def _take_over(self, place: str) -> list[_Segment]:
        import fcntl

        try:
            lock = os.open(f"{place}/lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return []  # just being made, or just being removed
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._own is None:
                self._claim()
            return self._move(place)
        except OSError:
            return []  # its run lives, or the disk refuses; the next run tries again
        finally:
            os.close(lock)

    def _move(self, place: str) -> list[_Segment]:
        moved: list[_Segment] = []
        for name in sorted(os.listdir(place)):  # noqa: PTH208
            source = f"{place}/{name}"
            if name.endswith(".jsonl"):
                size = os.stat(source).st_size  # noqa: PTH116
                target = f"{self._own}/{name[:20]}-{len(moved)}-{os.path.basename(place)}.jsonl"  # noqa: PTH119
                os.rename(source, target)  # noqa: PTH104
                moved.append(_Segment(target, size, None))
        _remove(f"{place}/lock")
        _remove_folder(place)
        return moved

    def _read(self, segment: _Segment, limit: int) -> list[Entry]:
        from midwatch.wire import journal

        entries: list[Entry] = []
        self._peeked = []
        torn = 0
        try:
            with open(segment.path, "rb") as source:  # noqa: PTH123
                source.seek(self._offset)
                for line in source:
                    end = (self._peeked[-1][1] if self._peeked else self._offset) + len(line)
                    item = next(journal.decode(iter((line,))), None)
                    entry = _entry(item)
                    if entry is None:
                        torn += 1
                        if self._peeked:
                            self._peeked[-1] = (self._peeked[-1][0], end)
                        else:
                            self._offset = end
                        continue
                    self._peeked.append((len(entries), end))
                    entries.append(entry)
                    if len(entries) >= limit:
                        break
        except OSError as error:
            if error.errno in _SHORTAGES:
                raise
            self._lose("spool_unreadable", segment.items or 1)
            return []
        if torn:
            self._lose("torn", torn)
        return entries

    def _keep_cap(self) -> None:
        while self.total_bytes > self._cap_bytes and len(self._segments) > 1:
            segment = self._segments[0]
            count = segment.items if segment.items is not None else _count_lines(segment.path)
            self._drop_head()
            self._lose("spool_full", max(count, 1))

    def _drop_head(self) -> None:
        segment = self._segments.popleft()
        if not self._segments:
            self._close_output()
        self.total_bytes -= segment.size
        self._offset, self._peeked = 0, []
        _remove(segment.path)

    def _mend(self) -> None:
        """After a failed write: leave the segment as it was, and let the next one begin anew."""
        output, self._output = self._output, None
        if output is not None:
            segment = self._segments[-1]
            try:
                output.truncate(segment.size)
            except OSError:
                segment.size = os.fstat(output.fileno()).st_size  # its torn end is skipped later
            output.close()
            if segment.size == 0:
                self._segments.pop()
                _remove(segment.path)
        if self._lock is not None and self._own is not None and not os.path.isdir(self._own):  # noqa: PTH112
            os.close(self._lock)  # somebody removed the directory: begin another
            self._own = self._lock = None

    def _close_output(self) -> None:
        output, self._output = self._output, None
        if output is not None:
            output.close()


def _entry(item: Any) -> Entry | None:
    if isinstance(item, list) and len(item) == 2:  # pyright: ignore[reportUnknownArgumentType]
        path, body = item  # pyright: ignore[reportUnknownVariableType]
        if isinstance(path, str) and isinstance(body, dict):
            return path, body  # pyright: ignore[reportUnknownVariableType]
    return None


def _count_lines(path: str) -> int:
    try:
        with open(path, "rb") as source:  # noqa: PTH123
            return sum(1 for _ in source)
    except OSError:
        return 0


def _remove(path: str) -> None:
    try:
        os.unlink(path)  # noqa: PTH108
    except OSError:
        return  # gone already, or it will be adopted and found empty


def _remove_folder(path: str) -> None:
    try:
        os.rmdir(path)  # noqa: PTH106
    except OSError:
        return
