from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.wire import journal

plain = st.dictionaries(
    st.text(max_size=8), st.integers() | st.text(max_size=20) | st.none(), max_size=5
)


@given(st.lists(plain, max_size=6))
def test_what_was_written_is_read_back(items: list[dict[str, Any]]) -> None:
    lines = b"".join(journal.encode(item) for item in items).splitlines(keepends=True)
    assert list(journal.decode(iter(lines))) == items


@given(plain, plain, st.data())
def test_a_torn_line_is_reported_and_never_believed(
    first: dict[str, Any], second: dict[str, Any], data: st.DataObject
) -> None:
    whole = journal.encode(second)
    cut = data.draw(st.integers(1, len(whole) - 1))
    lines = (journal.encode(first) + whole[:cut]).splitlines(keepends=True)
    assert list(journal.decode(iter(lines))) == [first, None]


@given(plain, st.data())
def test_a_flipped_bit_is_reported(item: dict[str, Any], data: st.DataObject) -> None:
    line = bytearray(journal.encode(item))
    line[data.draw(st.integers(9, len(line) - 2))] ^= 0x01
    assert all(found is None for found in journal.decode(iter([bytes(line)])))


def test_nan_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        journal.encode({"x": float("nan")})
