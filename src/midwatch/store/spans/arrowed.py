"""Columns of Python values as an Arrow table, which DuckDB reads where it lies: how what was decided goes into a statement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import arro3.core as arrow

TEXT: Final = arrow.DataType.string()
BYTES: Final = arrow.DataType.binary()
INT: Final = arrow.DataType.int64()


def table(columns: Iterable[tuple[str, Any, Sequence[Any]]]) -> arrow.Table:
    """Return a table of columns: name, type, values; all of one length."""
    names: list[str] = []
    arrays: list[arrow.Array] = []
    for name, kind, values in columns:
        names.append(name)
        arrays.append(arrow.Array(values, type=kind))
    return arrow.Table.from_arrays(arrays, names=names)  # pyright: ignore[reportUnknownMemberType]
