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

from collections.abc import Iterable, Mapping
from typing import Final

PRECISION: Final = 1 / 128
"""Relative error of a quantile, at most."""

MAX_VALUE: Final = 2**63 - 1
"""What is greater counts as this."""

BUCKETS: Final = 57 * 64 + 64
"""Buckets there are: from 0 to 3,711."""

MAX_BYTES: Final = 1 + 10 + BUCKETS * 11
"""What `to_bytes` returns at most, for sums and counts of 64 bits; a sketch of a day's latencies has some 500 bytes."""

SQL: Final = (
    "CASE WHEN {0} < 128 THEN greatest({0}, 0)"
    " ELSE (floor(log2({0}))::BIGINT - 6) * 64 + ({0} >> (floor(log2({0}))::BIGINT - 6)) END"
)
"""`bucket` of a column of whole numbers, for DuckDB: `SQL.format("duration_ns")`. A logarithm that is rounded up or
down just below or at a power of two gives the same bucket: 63 of the next doubling is 127 of this one."""

_FORM: Final = 1
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
        for number, theirs in other.counts.items():
            count = mine.get(number, 0) + theirs * weight
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
        known = sorted((number, count) for number, count in self.counts.items() if count > 0)
        count = sum(count for _, count in known)
        if not count:
            return None
        rank = max(1, _up(share, count))
        for number, here in known:
            rank -= here
            if rank <= 0:
                least, most = bounds(number)
                return (least + most) // 2
        raise AssertionError("the ranks end within the counts")

    @property
    def mean(self) -> float | None:
        """The exact mean; None when there is no value."""
        count = self.count
        return self.total / count if count > 0 else None

    def to_bytes(self) -> bytes:
        """Return it as bytes: the same sketch, the same bytes. `merged` and `from_bytes` read them."""
        out = bytearray((_FORM,))
        _put(out, _zigzag(self.total))
        before = 0
        for number in sorted(self.counts):
            _put(out, number - before)
            _put(out, _zigzag(self.counts[number]))
            before = number
        return bytes(out)

    @classmethod
    def from_bytes(cls, data: bytes) -> Sketch:
        """Return what `to_bytes` wrote. Raises ValueError for anything else."""
        found = cls()
        found.merge_bytes(data)
        return found

    def merge_bytes(self, data: bytes) -> None:
        """Add a sketch that was written as bytes. Raises ValueError, and changes nothing, for anything else."""
        if not data or data[0] != _FORM:
            raise ValueError(f"expected a sketch of form {_FORM}, got {data[:8]!r}")
        numbers = _numbers(data)
        if len(numbers) % 2 == 0:
            raise ValueError(f"a sketch of {len(data)} bytes ends in the middle of a bucket")
        counts: dict[int, int] = {}
        number = 0
        for place in range(1, len(numbers), 2):
            step = numbers[place]
            number += step
            if number >= BUCKETS or (step == 0 and place > 1):
                raise ValueError(f"a sketch has no bucket {number} after its others")
            counts[number] = _unzigzag(numbers[place + 1])
        self.merge(Sketch(counts, _unzigzag(numbers[0])))


def merged(parts: Iterable[bytes]) -> Sketch:
    """Return the sum of sketches that were written as bytes. Raises ValueError for what is none."""
    whole = Sketch()
    for part in parts:
        whole.merge_bytes(part)
    return whole


def _up(share: float, count: int) -> int:
    """Return `share * count`, rounded up, without the dust of floats: 0.95 of 100 is 95, not 96."""
    exact = share * count
    near = round(exact)
    return near if abs(exact - near) <= 1e-9 * max(1.0, exact) else int(exact) + 1


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _unzigzag(value: int) -> int:
    return -((value + 1) >> 1) if value & 1 else value >> 1


def _put(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _numbers(data: bytes) -> list[int]:
    """Return the numbers behind the first byte: seven bits each byte, the lowest first, the eighth says that more
    follow. Raises ValueError for a number that does not end, or that no sketch has."""
    found: list[int] = []
    value = shift = 0
    for byte in memoryview(data)[1:]:
        value |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
            if shift > 140:
                raise ValueError("a sketch holds a number of more than 140 bits")
        else:
            found.append(value)
            value = shift = 0
    if shift:
        raise ValueError(f"a sketch of {len(data)} bytes ends in the middle of a number")
    return found
