"""A generation: the DuckDB file that is written to, without checkpoints, so that its log is all there is to sync.

All generations are attached to one DuckDB in memory: one memory limit, one statement over all. The newest takes
everything; older ones are frozen and wait to be sealed. Rows are only ever added: an open span stands in `opened`
until the generation goes, its end in `spans`; what was lost and ended after all is named in `hidden`.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import duckdb

from midwatch.core.spans.form import SPANS, TABLES, Row, Signal
from midwatch.store.spans.gathered import Chunk
from midwatch.store.spans.keys import Fingerprints, Key, sorted_numbers
from midwatch.store.spans.segments import quoted
from midwatch.store.spans.shape import COLUMNS, DEFINITIONS, FINGERPRINT, TIME, TIME_AT, turned
from midwatch.store.spans.sources import Pins

MAX_LOST: Final = 10_000
"""Runs of which it is remembered that they are lost; of older ones announcements are taken as they come."""

NOTHING_NS: Final = (2**63 - 1, -(2**63))


@dataclass(slots=True)
class Writes:
    """What one transaction adds."""

    rows: dict[Signal, list[Row]] = field(default_factory=lambda: {s: list[Row]() for s in Signal})
    opened: list[Row] = field(default_factory=list[Row])
    hidden: list[tuple[str, bytes, bytes, int]] = field(
        default_factory=list[tuple[str, bytes, bytes, int]]
    )
    lost: dict[str, int] = field(default_factory=dict[str, int])
    resources: dict[bytes, str] = field(default_factory=dict[bytes, str])


class Generation:
    """One attached file. `keys` is what it holds while it is written to, None when it was found on disk."""

    def __init__(self, base: duckdb.DuckDBPyConnection, folder: Path, number: int) -> None:
        self.number = number
        self.path = folder / f"g{number:08d}.duckdb"
        self.keys: dict[Signal, dict[Key, int]] | None = None
        self.resources: set[bytes] = set()
        self.rows = dict.fromkeys(Signal, 0)
        self.bounds: dict[Signal, tuple[int, int]] = dict.fromkeys(Signal, NOTHING_NS)
        self.hides = False
        """Whether `hidden` names anything."""
        self.gathered: tuple[Chunk, ...] = ()
        """What its spans come to so far, from the first on; replaced whole, under the engine's lock."""
        self.pins = Pins(self.remove)
        self._base = base
        self._prints: dict[Signal, Fingerprints] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Its name in SQL."""
        return f"g{self.number:08d}"

    # -- life --------------------------------------------------------------------------------

    def attach(self) -> None:
        """Open the file, which replays its log, or make an empty one."""
        self._base.cursor().execute(f"ATTACH '{quoted(self.path)}' AS {self.name}")

    def create(self, cursor: duckdb.DuckDBPyConnection, opened: Sequence[Row], lost: Mapping[str, int]) -> None:  # fmt: skip
        """Make the tables and carry over what is open and lost, in one transaction: `ready` is there or not."""
        cursor.begin()
        try:
            for signal in Signal:
                cursor.execute(f"CREATE TABLE {self.name}.{signal.value} ({DEFINITIONS[signal]})")
            cursor.execute(f"CREATE TABLE {self.name}.opened ({DEFINITIONS[Signal.SPANS]})")
            cursor.execute(f"CREATE TABLE {self.name}.resources (resource_id BLOB, text VARCHAR)")
            cursor.execute(f"CREATE TABLE {self.name}.lost (run_id VARCHAR, at_ns BIGINT)")
            cursor.execute(f"CREATE TABLE {self.name}.hidden (agent VARCHAR, trace_id BLOB, span_id BLOB, start_ns BIGINT)")  # fmt: skip
            cursor.execute(f"CREATE TABLE {self.name}.probe (written DOUBLE)")
            cursor.execute(f"CREATE TABLE {self.name}.ready (one INTEGER)")
            self.write(cursor, Writes(opened=list(opened), lost=dict(lost)))
            cursor.commit()
        except BaseException:
            cursor.rollback()
            raise

    @property
    def ready(self) -> bool:
        """Tell whether a file that was found is whole: one that was not finished holds nothing."""
        found = self._base.cursor().execute(
            "SELECT 1 FROM duckdb_tables() WHERE database_name = ? AND table_name = 'ready'", [self.name]
        )  # fmt: skip
        return found.fetchone() is not None

    def detach(self) -> None:
        """Let go of the file. Nobody may read it."""
        self._base.cursor().execute(f"DETACH {self.name}")

    def remove(self) -> None:
        """Let go of the file and remove it, with its log."""
        for chunk in self.gathered:
            chunk.pins.retire()
        self.detach()
        erase(self.path)

    # -- writing -----------------------------------------------------------------------------

    def write(self, cursor: duckdb.DuckDBPyConnection, writes: Writes) -> None:
        """Add rows in the cursor's transaction."""
        for signal, rows in writes.rows.items():
            if rows:
                self._insert(cursor, signal.value, turned(TABLES[signal], rows))
        if writes.opened:
            self._insert(cursor, "opened", turned(SPANS, writes.opened))
        for table, several in (
            ("hidden", writes.hidden),
            ("lost", list(writes.lost.items())),
            ("resources", list(writes.resources.items())),
        ):
            if several:
                marks = ", ".join("?" * len(several[0]))
                cursor.executemany(f"INSERT INTO {self.name}.{table} VALUES ({marks})", several)

    def _insert(self, cursor: duckdb.DuckDBPyConnection, table: str, rows: Any) -> None:
        cursor.register("arriving", rows)
        try:
            cursor.execute(f"INSERT INTO {self.name}.{table} BY NAME SELECT * FROM arriving")
        finally:
            cursor.unregister("arriving")

    def wrote(self, writes: Writes) -> None:
        """Take note of what was committed."""
        for signal, rows in writes.rows.items():
            if rows:
                at = TIME_AT[signal]
                times = [row[at] for row in rows]
                first, last = self.bounds[signal]
                self.bounds[signal] = min(first, min(times)), max(last, max(times))
                self.rows[signal] += len(rows)
        self.resources.update(writes.resources)
        self.hides = self.hides or bool(writes.hidden)

    def reaches(self, signal: Signal, since_ns: int, until_ns: int) -> bool:
        """Tell whether it has rows of this window."""
        first, last = self.bounds[signal]
        return self.rows[signal] > 0 and first < until_ns and last >= since_ns

    @property
    def log_bytes(self) -> int:
        """Bytes of the log: what the next start replays."""
        return _size(self.path.with_suffix(".duckdb.wal"))

    @property
    def size_bytes(self) -> int:
        """Bytes on the disk."""
        return _size(self.path) + self.log_bytes

    # -- reading -----------------------------------------------------------------------------

    def recall(self) -> None:
        """Learn from the file what `wrote` would have noted. For one that was found on disk."""
        cursor = self._base.cursor()
        for signal in Signal:
            time = TIME[signal]
            found = cursor.execute(f"SELECT count(*), min({time}), max({time}) FROM {self.name}.{signal.value}").fetchone()  # fmt: skip
            count, first, last = cast("tuple[int, int | None, int | None]", found)
            self.rows[signal] = count
            if first is not None and last is not None:
                self.bounds[signal] = first, last
        self.hides = cursor.execute(f"SELECT 1 FROM {self.name}.hidden LIMIT 1").fetchone() is not None  # fmt: skip

    def opened(self) -> tuple[list[Row], dict[str, int]]:
        """Return the rows of spans that are open, and the lost runs. True of the newest generation only."""
        cursor = self._base.cursor()
        rows = cursor.execute(
            f"SELECT {COLUMNS[Signal.SPANS]} FROM {self.name}.opened AS o WHERE NOT EXISTS"
            f" (SELECT 1 FROM {self.name}.spans AS s WHERE s.trace_id = o.trace_id"
            "   AND s.span_id = o.span_id AND s.agent = o.agent)"
        ).fetchall()
        lost = cursor.execute(f"SELECT run_id, at_ns FROM {self.name}.lost").fetchall()
        return [list(row) for row in rows], dict(lost)

    def prints(self, signal: Signal) -> Fingerprints:
        """Return the fingerprints of one that was found on disk; made when first asked for."""
        with self._lock:
            found = self._prints.get(signal)
            if found is None:
                rows = self._base.cursor().execute(f"SELECT {FINGERPRINT[signal]} FROM {self.name}.{signal.value}").fetchall()  # fmt: skip
                found = self._prints[signal] = Fingerprints(sorted_numbers([r[0] for r in rows]))
            return found


def erase(path: Path) -> None:
    """Remove a generation's files."""
    for each in (path, path.with_suffix(".duckdb.wal")):
        each.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
