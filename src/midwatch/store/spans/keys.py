"""What makes rows one, and how to know quickly whether one is there already.

Of the generation that is written to, every key is in memory, with the span's rank. Of what lies on disk there is a
sorted array of 64-bit fingerprints beside each file, mapped and not read: one search takes half a microsecond, and
only files whose time reaches to the row's are asked. A fingerprint that is found says "perhaps": the row itself is
looked up before anything is called a duplicate, so that no chance and no crafted id makes a row vanish.
"""

from __future__ import annotations

import hashlib
import mmap
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from midwatch.core.errors import StoreError

Key = bytes
"""An agent's number and the ids of one of its rows: for memory alone."""

WIDTH: Final = 8


class Agents(dict[str, bytes]):
    """Numbers of agents, 4 bytes each, as long as the process lives: keys stay short."""

    def __missing__(self, agent: str) -> bytes:
        number = self[agent] = len(self).to_bytes(4, "big")
        return number


def fingerprint(identity: bytes) -> int:
    """Return what `shape.FINGERPRINT` gives in SQL."""
    return int.from_bytes(hashlib.md5(identity, usedforsecurity=False).digest()[8:], "little")


class Fingerprints:
    """A sorted array of fingerprints, in memory or mapped from a file."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, number: int) -> bool:
        at = bisect_left(self._numbers, number)
        return at < len(self._numbers) and self._numbers[at] == number

    @property
    def numbers(self) -> Sequence[int]:
        """The array itself, of 64-bit numbers."""
        return self._numbers

    @classmethod
    def read(cls, path: Path) -> Fingerprints:
        """Map a file that `write` made. Raises StoreError when it is none."""
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                if size == 0:
                    return cls(array("Q"))
                whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}", permanent=True) from None
        if size % WIDTH:
            raise StoreError(f"{path} is damaged: {size} bytes, no multiple of {WIDTH}", permanent=True)  # fmt: skip
        return cls(memoryview(whole).cast("Q"))


def sorted_numbers(found: Sequence[int]) -> array[int]:
    """Return fingerprints as `Fingerprints` wants them."""
    return array("Q", sorted(found))
