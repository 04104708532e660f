"""Quantiles that can be added up: of a minute, an hour, a month, of several hubs, in any order.

A sketch counts whole numbers (nanoseconds, nano-dollars, tokens, millionths) in buckets whose bounds are whole
numbers, too: 64 buckets for each doubling, and below 128 one for each number. So a quantile is off by 1/128 (0.8 %)
of its value at most, and small numbers are exact; there are 3,712 buckets and never more, so nothing is ever thrown
together to save room; and two sketches are added bucket by bucket, which is associative, commutative, and can be
undone. Machines cannot disagree about a bound, as they may with logarithms of floats (DDSketch, Masson et al. 2019,
has the idea of relative error; the buckets are those of HdrHistogram).

`SQL` says the same to a database: what it groups by is what `bucket` returns.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from operator import lt
from typing import Final

PRECISION: Final = 1 / 128
"""Relative error of a quantile, at most."""

MAX_VALUE: Final = 2**63 - 1
"""What is greater counts as this."""

BUCKETS: Final = 57 * 64 + 64
"""Buckets there are: from 0 to 3,711."""

MAX_BYTES: Final = 20 + BUCKETS * 10
"""What `to_bytes` returns at most: 37 kB. Of a day's latencies it is one or two."""

SQL: Final = (
    "CASE WHEN {0} < 128 THEN greatest({0}, 0)"
    " ELSE (floor(log2({0}))::BIGINT - 6) * 64 + ({0} >> (floor(log2({0}))::BIGINT - 6)) END"
)
"""`bucket` of a column of whole numbers, for DuckDB: `SQL.format("duration_ns")`. A logarithm that is rounded up or
down just below or at a power of two gives the same bucket: 63 of the next doubling is 127 of this one."""

_FORM: Final = 1
_HEAD: Final = struct.Struct("<BBH")
_TOTAL_BYTES: Final = 16
_FIRST: Final = _HEAD.size + _TOTAL_BYTES
_CODES: Final = "bhiq"
_LINEAR: Final = 128


def bucket(value: int) -> int:
    """Return the number of the bucket in which a value counts. Less than 0 counts as 0."""
    if value < _LINEAR:
        return max(value, 0)
    value = min(value, MAX_VALUE)
    shift = value.bit_length() - 7
    return (shift << 6) + (value >> shift)


def bounds(number: int) -> tuple[int, int]:
    """Return the least and the greatest value of a bucket."""
    if number < _LINEAR:
        return number, number
    shift = (number >> 6) - 1
    least = (number - (shift << 6)) << shift
    return least, least + (1 << shift) - 1


class Sketch:
    """Counts by bucket, and the exact sum of all values. Counts below 0 are corrections that wait for what they
    correct: `add(value, -1)` takes a value back, also before it is added to what has it."""

    __slots__ = ("counts", "total")

    def __init__(self, counts: Mapping[int, int] | None = None, total: int = 0) -> None:
        self.counts: dict[int, int] = {n: c for n, c in (counts or {}).items() if c}
        self.total = total

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sketch):
            return NotImplemented
        return self.total == other.total and self.counts == other.counts

    __hash__ = None  # pyright: ignore[reportAssignmentType]  it changes

    def __repr__(self) -> str:
        return f"Sketch(count={self.count}, total={self.total}, buckets={len(self.counts)})"

    def __bool__(self) -> bool:
        return bool(self.counts) or self.total != 0

    @property
    def count(self) -> int:
        """Values that were added."""
        return sum(self.counts.values())

    def add(self, value: int, weight: int = 1) -> None:
        """Count a value, `weight` times."""
        value = min(max(value, 0), MAX_VALUE)
        number = bucket(value)
        count = self.counts.get(number, 0) + weight
        if count:
            self.counts[number] = count
        else:
            self.counts.pop(number, None)
        self.total += value * weight

    def merge(self, other: Sketch, weight: int = 1) -> None:
        """Add another sketch; with weight -1 take it back."""
        mine = self.counts
        if not mine and weight == 1:
            mine.update(other.counts)
            self.total += other.total
            return
        before = mine.get
        for number, theirs in other.counts.items():
            count = before(number, 0) + theirs * weight
            if count:
                mine[number] = count
            else:
                mine.pop(number, None)
        self.total += other.total * weight

    def quantile(self, share: float) -> int | None:
        """Return the value at the nearest rank: the least that `share` of all values do not exceed, to PRECISION.

        None when there is no value. Raises ValueError for a share outside 0 to 1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"expected a share from 0 to 1, got {share!r}")
        counts = self.counts
        known = sorted(number for number, count in counts.items() if count > 0)
        ranks = list(accumulate(map(counts.__getitem__, known)))
        if not ranks:
            return None
        least, most = bounds(known[bisect_left(ranks, max(1, _up(share, ranks[-1])))])
        return (least + most) // 2

    @property
    def mean(self) -> float | None:
        """The exact mean; None when there is no value."""
        count = self.count
        return self.total / count if count > 0 else None

    def to_bytes(self) -> bytes:
        """Return it as bytes: the same sketch, the same bytes. Raises OverflowError for counts beyond 64 bits."""
        numbers = sorted(self.counts)
        counts = [self.counts[number] for number in numbers]
        code = _code(counts)
        return (
            _HEAD.pack(_FORM, _CODES.index(code), len(numbers))
            + self.total.to_bytes(_TOTAL_BYTES, "little", signed=True)
            + struct.pack(f"<{len(numbers)}H", *numbers)
            + struct.pack(f"<{len(numbers)}{code}", *counts)
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Sketch:
        """Return what `to_bytes` wrote. Raises ValueError for anything else."""
        found = cls()
        found.merge_bytes(data)
        return found

    def merge_bytes(self, data: bytes) -> None:
        """Add a sketch that was written as bytes. Raises ValueError, and changes nothing, for anything else."""
        total, numbers, counts = _read(data)
        mine = self.counts
        if not mine:
            mine.update(zip(numbers, counts, strict=True))
        else:
            for number, theirs in zip(numbers, counts, strict=True):
                count = mine.get(number, 0) + theirs
                if count:
                    mine[number] = count
                else:
                    mine.pop(number, None)
        self.total += total


def merged(parts: Iterable[bytes]) -> Sketch:
    """Return the sum of sketches that were written as bytes. Raises ValueError for what is none.

    About 50 us for a day of latencies.
    """
    every, total = [0] * BUCKETS, 0
    for part in parts:
        more, numbers, counts = _read(part)
        total += more
        for number, count in zip(numbers, counts, strict=True):
            every[number] += count
    return Sketch(dict(enumerate(every)), total)


def _up(share: float, count: int) -> int:
    """Return `share * count`, rounded up, without the dust of floats: 0.95 of 100 is 95, not 96."""
    exact = share * count
    near = round(exact)
    return near if abs(exact - near) <= 1e-9 * max(1.0, exact) else int(exact) + 1


def _code(counts: Sequence[int]) -> str:
    """Return the narrowest of `_CODES` that holds all counts."""
    most = max(map(abs, counts), default=0)
    for code, bits in zip(_CODES, (7, 15, 31, 63), strict=True):
        if most < 1 << bits:
            return code
    raise OverflowError(f"a sketch counts {most} values in one bucket, more than 64 bits hold")


def _read(data: bytes) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    if len(data) < _FIRST:
        raise ValueError(f"expected a sketch of {_FIRST} bytes at least, got {len(data)}")
    form, width, length = _HEAD.unpack_from(data)
    if form != _FORM or width >= len(_CODES):
        raise ValueError(f"expected a sketch of form {_FORM}, got {data[:8]!r}")
    if len(data) != _FIRST + length * (2 + (1 << width)):
        raise ValueError(f"a sketch of {length} buckets is not of {len(data)} bytes")
    numbers = struct.unpack_from(f"<{length}H", data, _FIRST)
    counts = struct.unpack_from(f"<{length}{_CODES[width]}", data, _FIRST + 2 * length)
    # as `to_bytes` writes them: a bucket that stood there twice would lose one of its counts
    rising = all(map(lt, numbers, numbers[1:]))
    if not rising or 0 in counts or (numbers and numbers[-1] >= BUCKETS):
        raise ValueError("expected the buckets of a sketch in their order, each with its count")
    return int.from_bytes(data[_HEAD.size : _FIRST], "little", signed=True), numbers, counts
