"""Segments: Parquet files that never change, and the fingerprints of their rows beside them.

A segment is written whole, synced, and only then named in the manifest; a file that the manifest does not name does
not exist for anybody and is removed at the next start. To change anything is to write another one and to name it
instead.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import contextlib
import os
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import duckdb

from midwatch.core.spans.form import Signal
from midwatch.store.spans import folded, parts
from midwatch.store.spans.keys import Fingerprints
from midwatch.store.spans.shape import COLUMNS, FINGERPRINT, ORDER, ROW_GROUP, TIME
from midwatch.store.spans.sources import Pins

MAX_MAPPED: Final = 64
"""Fingerprint files that are mapped at one time; what was asked longest ago is let go."""

RESOURCES: Final = "resources"
"""The kind of segments that hold what rows name as their resource."""

MINUTE_NS: Final = 60 * 10**9
"""What costs are told by, of what is gone."""

SORTED_ROWS: Final = 20_000
"""Spans that are sorted at once when a segment is written: fewer than a row group, a few MiB."""

_CHUNK: Final = 65_536


@dataclass(frozen=True, slots=True)
class Segment:
    """What the manifest says of one segment."""

    number: int
    """Its own, never used twice."""
    kind: str
    """A signal, `resources`, or what settling wrote beside them."""
    generation: int
    """The newest generation that went into it."""
    from_ns: int
    to_ns: int
    """The first and the last time of its rows."""
    rows: int
    size_bytes: int
    checksum: int
    """CRC-32 of the file."""
    agents: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    """Rows and the first time, by agent."""

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.number:08d}.parquet"

    def reaches(self, since_ns: int, until_ns: int) -> bool:
        """Tell whether it may hold rows of this window."""
        return self.from_ns < until_ns and self.to_ns >= since_ns


class Shelf:
    """The folder of segments: writes, finds and removes files. Everything may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mapped: OrderedDict[int, Fingerprints] = OrderedDict()
        self._pins: dict[int, Pins] = {}

    def path(self, segment: Segment) -> Path:
        """Return the Parquet file."""
        return self.folder / segment.name

    def prints(self, segment: Segment) -> Fingerprints:
        """Return the segment's fingerprints, mapped. Raises StoreError when they cannot be read."""
        found = self._mapped.get(segment.number)
        if found is None:
            found = self._mapped[segment.number] = Fingerprints.read(_keys_of(self.path(segment)))
            while len(self._mapped) > MAX_MAPPED:
                self._mapped.popitem(last=False)
        return found

    def read_prints(self, segment: Segment) -> Fingerprints:
        """Return the same, mapped for the caller alone: gone from memory with it. Raises StoreError."""
        return Fingerprints.read(_keys_of(self.path(segment)))

    def pins(self, segment: Segment) -> Pins:
        """Return who reads it; made when first asked for."""
        found = self._pins.get(segment.number)
        if found is None:
            found = self._pins.setdefault(segment.number, Pins(lambda: self.remove(segment)))
        return found

    def remove(self, segment: Segment) -> None:
        """Remove its files; the disk has them back."""
        self._mapped.pop(segment.number, None)
        self._pins.pop(segment.number, None)
        path = self.path(segment)
        for each in (path, *_beside(path)):
            each.unlink(missing_ok=True)

    def sweep(self, named: Sequence[Segment]) -> int:
        """Remove every file that is not of these segments; return how many there were."""
        known = {segment.name for segment in named}
        known |= {beside.name for name in known for beside in _beside(Path(name))}
        strange = [path for path in self.folder.iterdir() if path.name not in known]
        for path in strange:
            path.unlink()
        return len(strange)

    def discard(self, numbers: Collection[int]) -> None:
        """Remove the files of segments of these numbers, which nobody named and nobody will."""
        for path in list(self.folder.iterdir()) if numbers else ():
            number = path.name.partition(".")[0].rpartition("-")[2]
            if number.isdigit() and int(number) in numbers:
                with contextlib.suppress(OSError):  # the next start sweeps
                    path.unlink()

    def size_bytes(self, segment: Segment) -> int:
        """Return what it takes on the disk, with all that lies beside it."""
        size = segment.size_bytes + 8 * segment.rows * (segment.kind in FINGERPRINT)
        for beside in _beside(self.path(segment))[1:]:
            with contextlib.suppress(FileNotFoundError):
                size += beside.stat().st_size
        return size

    def write(self, cursor: duckdb.DuckDBPyConnection, signal: Signal, rows: str, number: int, generation: int) -> Segment | None:  # fmt: skip
        """Write what the query `rows` gives (all columns of the signal) and sync it; None when it gives nothing."""
        path = self.folder / f"{signal.value}-{number:08d}.parquet"
        copy(cursor, _ordered(cursor, signal, rows), path, ROW_GROUP[signal])
        time = TIME[signal]
        found = cursor.execute(
            f"SELECT agent, count(*), min({time}), max({time}) FROM read_parquet(?) GROUP BY agent",
            [str(path)],
        ).fetchall()
        if not found:
            path.unlink()
            return None
        cursor.execute(f"SELECT {FINGERPRINT[signal]} AS number FROM read_parquet(?) ORDER BY number", [str(path)])  # fmt: skip
        _write_numbers(_keys_of(path), cursor)
        if signal is Signal.SPANS:
            made = parts.trace_parts(
                f"(SELECT {COLUMNS[signal]} FROM read_parquet('{quoted(path)}'))"
            )
            copy(cursor, made, traces_of(path), parts.ROW_GROUP)
        return Segment(
            number,
            signal.value,
            generation,
            min(row[2] for row in found),
            max(row[3] for row in found),
            sum(row[1] for row in found),
            path.stat().st_size,
            checksum(path),
            {row[0]: (row[1], row[2]) for row in found},
        )

    def write_other(self, cursor: duckdb.DuckDBPyConnection, kind: str, rows: str, number: int, generation: int) -> Segment | None:  # fmt: skip
        """Write rows of another kind, which have no fingerprints: they belong to their generation. Of lines of traces
        that are gone also what they come to."""
        path = self.folder / f"{kind}-{number:08d}.parquet"
        copy(cursor, rows, path, 61_440)
        # all that there is: a result that is not read to its end keeps the cursor from other work
        count = cast("tuple[int]", cursor.execute("SELECT count(*) FROM read_parquet(?)", [str(path)]).fetchall()[0])[0]  # fmt: skip
        if not count:
            path.unlink()
            return None
        first_ns, last_ns = 0, 2**63 - 1
        if kind == folded.GONE:
            lines = f"read_parquet('{quoted(path)}')"
            for suffix, queries in folded.folded(lines, count).items():
                _copy_all(cursor, queries, path.with_suffix(suffix))
            times = f"SELECT min(first_ns) // {MINUTE_NS} * {MINUTE_NS}, max(last_ns) FROM {lines}"
            first_ns, last_ns = cast("tuple[int, int]", cursor.execute(times).fetchall()[0])
        return Segment(number, kind, generation, first_ns, last_ns, count, path.stat().st_size, checksum(path))  # fmt: skip

    def sync(self) -> None:
        """Make the folder's entries durable."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _ordered(cursor: duckdb.DuckDBPyConnection, signal: Signal, rows: str) -> str:
    """Return the query of these rows as they lie in a segment.

    Many spans are sorted in parts, each of a stretch of trace ids: all at once they are more than memory may hold, and
    what is sorted on the disk takes three times the processor. That the parts come in any order harms nobody: a trace
    is in one of them, and row groups are chosen by their bounds.
    """
    every = f"SELECT {COLUMNS[signal]} FROM ({rows}) AS w"
    if not ORDER[signal]:
        return every
    order = f" ORDER BY {ORDER[signal]}"
    if signal is not Signal.SPANS:
        return every + order
    count = cast("tuple[int]", cursor.execute(f"SELECT count(*) FROM ({rows}) AS w").fetchall()[0])[
        0
    ]
    parts_ = min(256, -(-count // SORTED_ROWS))
    if parts_ <= 1:
        return every + order
    bounds = [256 * n // parts_ for n in range(1, parts_)]
    begins = ["", *(f"trace_id >= '\\x{n:02x}'::BLOB" for n in bounds)]
    ends = [*(f"trace_id < '\\x{n:02x}'::BLOB" for n in bounds), ""]
    return " UNION ALL ".join(
        f"(SELECT * FROM ({every}) AS p WHERE {' AND '.join(filter(None, both))}{order})"
        for both in zip(begins, ends, strict=True)
    )


def copy(cursor: duckdb.DuckDBPyConnection, query: str, path: Path, row_group: int) -> None:
    """Write a query's rows to a Parquet file and sync it."""
    cursor.execute(
        f"COPY ({query}) TO '{quoted(path)}'"
        f" (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {row_group}, PARQUET_VERSION v2)"
    )
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _copy_all(cursor: duckdb.DuckDBPyConnection, queries: Sequence[str], path: Path) -> None:
    """Write the rows of several queries, asked one after the other: as one they would need the memory of all."""
    if len(queries) == 1:
        copy(cursor, queries[0], path, folded.ROW_GROUP)
        return
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE folded_now AS {queries[0]}")
    for query in queries[1:]:
        cursor.execute(f"INSERT INTO folded_now {query}")
    copy(cursor, "SELECT * FROM folded_now ORDER BY last_ns", path, folded.ROW_GROUP)
    cursor.execute("DROP TABLE folded_now")


def checksum(path: Path) -> int:
    """Return the CRC-32 of a file."""
    number = 0
    with path.open("rb") as file:
        while part := file.read(1024 * 1024):
            number = zlib.crc32(part, number)
    return number


def quoted(path: Path) -> str:
    """Return a path as it stands between quotes in SQL."""
    return str(path).replace("'", "''")


def traces_of(path: Path) -> Path:
    """Return the file that says what a segment of spans comes to by trace."""
    return path.with_suffix(parts.SUFFIX)


def _beside(path: Path) -> list[Path]:
    """Return the files that may lie beside one, its fingerprints first."""
    suffixes = (parts.SUFFIX, folded.SESSIONS, folded.COSTS, folded.CARRIED)
    return [_keys_of(path), *map(path.with_suffix, suffixes)]


def _keys_of(path: Path) -> Path:
    return path.with_suffix(".keys")


def _write_numbers(path: Path, cursor: duckdb.DuckDBPyConnection) -> None:
    with path.open("wb") as file:
        while rows := cursor.fetchmany(_CHUNK):
            array("Q", [row[0] for row in rows]).tofile(file)
        file.flush()
        os.fsync(file.fileno())
